"""The provider ``odesteer`` in Inspect AI itself, on a tiny model."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_models
from odesteer.artifact import Site, Steerer
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA
from odesteer.models import SteeredModel

inspect_ai = pytest.importorskip(
    "inspect_ai", reason="Inspect AI is not installed: pip install 'odesteer[peers]'"
)
from odesteer.evaluation.inspect_ai.batching import BatchingThread  # noqa: E402
from odesteer.evaluation.inspect_ai.provider import SteeredModelAPI, _until_stop  # noqa: E402

# Inspect AI leaves streams to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspect")
    tiny_models.llama().save_pretrained(path / "model")
    tiny_models.tokenizer().save_pretrained(path / "model")
    direction = 3 * torch.randn(32, generator=torch.Generator().manual_seed(2))
    Steerer(CAA.from_direction(direction), Site(2)).save(path / "a.safetensors")
    return path


def evaluated(folder: Path, **arguments: Any) -> list[str]:
    """The answers of a run of a task by Inspect AI."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    task = Task(
        dataset=[Sample(input=text, target="x") for text in ("Hello", "The sun", "Who are you?")],
        solver=generate(),
        scorer=includes(),
    )
    (log,) = eval(
        task,
        model=f"odesteer/{folder / 'model'}",
        model_args={"device": "cpu", "dtype": "float32", **arguments},
        max_tokens=12,
        temperature=0,
        log_dir=str(folder / "logs"),
        display="none",
    )
    assert log.status == "success", log.error
    return [sample.output.completion for sample in log.samples]


def test_answers_are_those_of_the_steered_model(folder: Path) -> None:
    lm = SteeredModel.from_pretrained(str(folder / "model"), device="cpu", dtype="float32")
    from odesteer.artifact import load
    from odesteer.data import Message

    chats = [(Message("user", text),) for text in ("Hello", "The sun", "Who are you?")]
    steerer = load(folder / "a.safetensors")
    plain = lm.generate(chats, max_new_tokens=12)
    steered = lm.generate(chats, steerer, T=1.5, max_new_tokens=12)
    assert plain != steered
    assert evaluated(folder) == plain
    assert evaluated(folder, steer=str(folder / "a.safetensors"), T=1.5) == steered
    assert evaluated(folder, steer=f"{folder / 'a.safetensors'}@T=1.5") == steered


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steer": "none.safetensors"}, "no such file"),
        ({"T": 1.0}, "needs a steerer"),
        ({"stear": "a"}, "'stear' is no model argument"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(Exception, match=message):
        SteeredModelAPI(str(folder / "model"), **arguments)


def test_what_is_not_supported_is_an_error(folder: Path) -> None:
    import anyio
    from inspect_ai.model import ChatMessageUser, GenerateConfig

    api = SteeredModelAPI(str(folder / "model"), device="cpu", dtype="float32")
    chat = [ChatMessageUser(content="Hello")]

    async def ask(config: GenerateConfig, tools: list[Any]) -> Any:
        return await api.generate(chat, tools, "none", config)

    with pytest.raises(InvalidInputError, match="logprobs"):
        anyio.run(ask, GenerateConfig(logprobs=True), [])
    with pytest.raises(InvalidInputError, match="tools"):
        anyio.run(ask, GenerateConfig(), [object()])
    out = anyio.run(ask, GenerateConfig(max_tokens=5, temperature=0, num_choices=None), [])
    assert out.usage.output_tokens <= 5
    assert out.choices[0].stop_reason in ("stop", "max_tokens")
    two = anyio.run(ask, GenerateConfig(max_tokens=4, num_choices=2, seed=1), [])
    assert len(two.choices) == 2
    anyio.run(api.aclose)


def test_requests_with_equal_options_share_a_batch() -> None:
    import threading

    seen: list[tuple[int, dict[str, Any]]] = []
    go = threading.Event()

    def generate(prompts: Any, options: dict[str, Any]) -> Any:
        go.wait(10)
        seen.append((len(prompts), options))
        if options.get("fail"):
            raise ValueError("no")
        return [prompt.upper() for prompt in prompts]

    thread = BatchingThread(generate, 3)
    futures = [thread.submit(text, {"n": 1}) for text in "abcd"]
    other, failing = thread.submit("e", {"n": 2}), thread.submit("f", {"fail": True})
    go.set()
    assert [future.result(10) for future in futures] == list("ABCD")
    assert other.result(10) == "E"
    with pytest.raises(ValueError, match="no"):
        failing.result(10)
    thread.close()
    assert sum(n for n, _ in seen) == 6
    assert max(n for n, _ in seen) == 3
    assert all(n == 1 for n, options in seen if options != {"n": 1})


def test_texts_end_before_stop_sequences() -> None:
    assert _until_stop("one two three", ["three", "two"]) == ("one ", True)
    assert _until_stop("one", ["two"]) == ("one", False)
