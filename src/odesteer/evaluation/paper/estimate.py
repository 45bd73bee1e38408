"""Estimate of the time and the GPU memory of a run, before anything is loaded.

A forward pass over a prompt is bound by arithmetic, a step of decoding by reading the weights and
the cache. Right to a factor of about two; `--dry-run` prints what it assumes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from odesteer.evaluation.item import Item
from odesteer.evaluation.paper.completions import Work
from odesteer.evaluation.paper.experiments import Row
from odesteer.evaluation.paper.models import Architecture
from odesteer.evaluation.task import Fold, Task

_CHARACTERS = 4.0
"""Characters of English text a token."""
_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8, "auto": 2}
_LOGIT_BYTES = 40
"""Of one row and word of the vocabulary while a token is drawn: logits, their order, sums."""
_VOCABULARY = 130_000
_OVERHEAD = 3e9
"""Bytes for the CUDA context, activations and fragmentation."""
_MOST_BATCH = 256
_STEP_SECONDS = 0.03
"""Of one step of decoding apart from arithmetic and memory: launching its kernels."""
_ANSWER_TOKENS = 4
"""New tokens of a judge that answers yes or no."""

JUDGE_PARAMETERS = {
    "truthfulqa-truth": 6.74e9,
    "truthfulqa-info": 6.74e9,
    "reward-model": 7.5e9,
    "toxicity-model": 1.25e8,
    "perplexity": 1.56e9,
}
"""Of the published judges; others run on the CPU in seconds."""
_FIT_SECONDS = 20.0
"""A fit of 10,000 activations of width 4,096, from those captured."""


@dataclass(frozen=True)
class Machine:
    """A GPU.

    Attributes:
        name: for people.
        memory: bytes.
        arithmetic: bfloat16 operations a second that are reached.
        bandwidth: bytes a second that are reached.
    """

    name: str
    memory: float
    arithmetic: float
    bandwidth: float

    @classmethod
    def here(cls) -> "Machine":
        """The GPU of this machine; without one, an A100 with 80 GB."""
        import torch

        assumed = cls("one A100, 80 GB, at 40 % of its peak", 80e9, 0.4 * 312e12, 0.6 * 2.0e12)
        if not torch.cuda.is_available():
            return assumed
        found = torch.cuda.get_device_properties(0)
        name = f"{found.name}, with the speed of {assumed.name}"
        return cls(name, float(found.total_memory), assumed.arithmetic, assumed.bandwidth)


@dataclass(frozen=True)
class RunEstimate:
    """What a run takes.

    Attributes:
        machine: on which.
        completions: number of completions.
        prompt_tokens, new_tokens: of all of them, at most.
        fits: number of fits.
        batch_size: completions at a time.
        seconds: of capture, fits, completions, and judging.
        memory: peak bytes of the two passes: steered model, largest judge.
    """

    machine: Machine
    completions: int
    prompt_tokens: float
    new_tokens: float
    fits: int
    batch_size: int
    seconds: dict[str, float]
    memory: dict[str, float]

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())

    @property
    def does_fit(self) -> bool:
        """Whether either pass has room on the machine."""
        return max(self.memory.values()) <= self.machine.memory


def estimate(
    task: Task,
    rows: Sequence[Row],
    works: Sequence[Work],
    folds: dict[int, list[Fold]],
    judges: Iterable[str],
    architecture: Architecture,
    dtype: str = "bfloat16",
    batch_size: int | None = None,
    machine: Machine | None = None,
) -> RunEstimate:
    """The estimate of one task."""
    machine = Machine.here() if machine is None else machine
    size = _BYTES.get(dtype, 2)
    specs = [spec for work in works for spec in work.specs]
    prompts = [_tokens(spec.item) for spec in specs]
    longest = max(prompts, default=0.0) + task.max_new_tokens
    weights = architecture.parameters * size
    per_token = 2 * architecture.layers * architecture.cache_width * size
    per_row = longest * per_token + _LOGIT_BYTES * _VOCABULARY
    room = machine.memory - weights - _OVERHEAD
    batch = batch_size or int(max(1, min(_MOST_BATCH, room / per_row)))
    texts = {fold.digest: fold.fit for each in folds.values() for fold in each}
    captured = sum(
        (len(str(e.prompt)) + len(e.response)) / _CHARACTERS
        for data in texts.values()
        for e in (*data.positive, *data.negative)
    )
    n_fits = sum(1 for row in rows if row.settings) * sum(map(len, folds.values()))
    n_steps = sum(-(-len(work.specs) // batch) for work in works) * task.max_new_tokens
    cache = sum(prompts) * per_token * task.max_new_tokens + len(specs) * per_token * (
        task.max_new_tokens**2 / 2
    )
    operation = 2 * architecture.parameters / machine.arithmetic
    seconds = {
        "capture": captured * operation,
        "fits": n_fits * _FIT_SECONDS,
        "completions": sum(prompts) * operation
        + (n_steps * weights + cache) / machine.bandwidth
        + n_steps * _STEP_SECONDS,
        "judging": 0.0,
    }
    largest = 0.0
    for name in judges:
        parameters = JUDGE_PARAMETERS.get(name, 0.0)
        read = sum(prompts) + len(specs) * (task.max_new_tokens + _ANSWER_TOKENS)
        seconds["judging"] += read * 2 * parameters / machine.arithmetic
        largest = max(largest, 2 * parameters)
    memory = {
        "completions": weights + batch * per_row + _OVERHEAD,
        "judging": largest + _OVERHEAD if largest else 0.0,
    }
    n_new = float(len(specs) * task.max_new_tokens)
    return RunEstimate(machine, len(specs), sum(prompts), n_new, n_fits, batch, seconds, memory)


def _tokens(item: Item) -> float:
    return len(item.text) / _CHARACTERS
