"""Base class of benchmark tasks: folds of data, decoding, judges, headline metric."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from odesteer.data import ContrastData
from odesteer.errors import DataError
from odesteer.evaluation.item import Item

TaskKind = Literal["generation", "choice"]


@dataclass(frozen=True)
class Decoding:
    """How completions are drawn; the paper's setting by default.

    Attributes:
        options: further options of `SteeredModel.generate`, JSON-able.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """For `SteeredModel.generate`; a temperature of 0 takes the likeliest token."""
        if self.temperature == 0:
            return {"do_sample": False, "num_beams": 1, **self.options}
        return {
            "do_sample": True,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": 0,
            **self.options,
        }


@dataclass(frozen=True)
class Fold:
    """Data to fit on, to choose settings on (validation) and to report on (test), disjoint.

    Raises `DataError` if items share a key, or if two of the three share a group.
    """

    name: str
    fit: ContrastData
    validation: tuple[Item, ...]
    test: tuple[Item, ...]

    def __post_init__(self) -> None:
        for part in ("validation", "test"):
            items: tuple[Item, ...] = getattr(self, part)
            if not items:
                raise DataError(f"fold {self.name!r} has no {part} item; give it more data.")
            keys = [item.key for item in items]
            if len(set(keys)) < len(keys):
                twice = next(key for key in keys if keys.count(key) > 1)
                raise DataError(f"fold {self.name!r} has the {part} item {twice!r} twice.")
        groups = {
            "fit": {*self.fit.groups_positive, *self.fit.groups_negative},
            "validation": {item.group for item in self.validation},
            "test": {item.group for item in self.test},
        }
        for one, other in (("fit", "validation"), ("fit", "test"), ("validation", "test")):
            shared = groups[one] & groups[other]
            if shared:
                raise DataError(
                    f"fold {self.name!r} has the group {min(shared)!r} in {one} and in {other}."
                )

    @cached_property
    def digest(self) -> str:
        """Digest of the data to fit on."""
        return self.fit.digest()


class Task(ABC):
    """A task of a benchmark: its data and how completions are scored.

    Attributes of the class:
        name: in results.
        title: a line for people.
        version: of the data and the scoring; results of different versions do not compare.
        source: the paper or the origin of the data.
        differences: where the protocol departs from the published one, a line each.
        changelog: what each version changed, the newest first.
        kind: whether completions are judged, or choices are scored by their likelihoods.
        max_new_tokens: the most tokens of a completion.
        stop: texts at which a completion ends.
        decoding: how completions are drawn.
        judges: names of the judges that score it by default.
        headline: the metric that settings are chosen by and tables are sorted by.
        lower_is_better: metrics of which less is better.
        percentiles: metrics whose 90th percentile is reported as well.
        wins: a metric whose wins against no steering, item by item, are reported as ``win_rate``.
        layer: decoder layer to steer after, counted from zero; None to leave it to the search.
        capture_position: where in an example activations are taken, of `odesteer.models`.
        instruction: of the prompt-only baseline, before the prompts (a system message for chats).
        shots: positive examples before the prompts of that baseline. Without either there is no
            such baseline.
        samples: completions per item and seed.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[str]
    source: ClassVar[str]
    differences: ClassVar[tuple[str, ...]] = ()
    changelog: ClassVar[tuple[str, ...]] = ()

    kind: TaskKind = "generation"
    max_new_tokens: int = 50
    stop: tuple[str, ...] = ()
    decoding: Decoding = Decoding()
    judges: tuple[str, ...] = ()
    headline: str
    lower_is_better: tuple[str, ...] = ("perplexity", "nll", "toxicity", "repetition")
    percentiles: tuple[str, ...] = ()
    wins: str = ""
    layer: int | None = None
    capture_position: str = "last"
    instruction: str = ""
    shots: int = 0
    samples: int = 1

    @abstractmethod
    def folds(self, seed: int) -> tuple[Fold, ...]:
        """The folds for one seed, the same at every call.

        A fold of one seed may test what a fold of *another name* validates on, never what the
        fold of its own name does under any seed: settings are chosen for each name, over all
        seeds. Raises `DataError` without data.
        """

    def derived(self, scores: Mapping[str, float | None]) -> dict[str, float | None]:
        """Further metrics of one completion, from those of its judges; None is missing."""
        return {}

    def combined(self, samples: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
        """Metrics of one item from those of its completions: the mean of what is not missing."""
        found: dict[str, float | None] = {}
        for name in samples[0]:
            known = [value for one in samples if (value := one.get(name)) is not None]
            found[name] = math.fsum(known) / len(known) if known else None
        return found

    def known_answers(self, item: Item) -> tuple[list[str], list[str]]:
        """Good and bad answers to an item, by which its judges are measured; the best first.

        Those of the item's reference: ``best`` and ``correct`` against ``incorrect``, or
        ``chosen`` against ``rejected``. Empty where there are none.
        """
        reference = item.reference
        good = [reference[name] for name in ("best", "chosen") if name in reference]
        bad = [reference[name] for name in ("rejected",) if name in reference]
        good += reference.get("correct", [])
        bad += reference.get("incorrect", [])
        return list(dict.fromkeys(good)), list(dict.fromkeys(bad))

    def question(self, item: Item) -> str:
        """What an answer that copies the question says."""
        return str(item.reference.get("question", item.text))

    def cut(self, text: str) -> str:
        """A completion up to the first of the stop texts."""
        ends = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text
