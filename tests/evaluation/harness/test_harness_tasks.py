"""The harness itself on local tasks: unsteered as its own model, steered as it should be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from odesteer.terrarium import model_path

pytestmark = pytest.mark.slow

Run = Callable[..., dict[str, Any]]
LEVEL = 1.5


@pytest.fixture(scope="module")
def run(tasks: dict[str, dict[str, Any]], harness: Any) -> Run:
    """What the harness finds on all tasks; each run happens once."""
    import lm_eval

    done: dict[str, dict[str, Any]] = {}

    def evaluated(model: str, batch_size: int = 5, **arguments: Any) -> dict[str, Any]:
        key = f"{model} {batch_size} {arguments}"
        if key not in done:
            done[key] = lm_eval.simple_evaluate(
                model=model,
                model_args={"pretrained": str(model_path()), "device": "cpu", **arguments},
                tasks=[dict(task) for task in tasks.values()],
                batch_size=batch_size,
                log_samples=True,
                bootstrap_iters=0,
            )
        return done[key]

    return evaluated


def likelihoods(result: dict[str, Any]) -> list[float]:
    samples = result["samples"]["choosing"]
    return [value for sample in samples for value, _ in sample["filtered_resps"]]


def greedy(result: dict[str, Any]) -> list[bool]:
    samples = result["samples"]["choosing"]
    return [is_greedy for sample in samples for _, is_greedy in sample["filtered_resps"]]


def texts(result: dict[str, Any]) -> list[str]:
    return [sample["filtered_resps"][0] for sample in result["samples"]["answering"]]


def margin(result: dict[str, Any]) -> float:
    """How much likelier the right answers are than the wrong ones, nats on average."""
    values = likelihoods(result)
    return sum(values[::2]) / len(values[::2]) - sum(values[1::2]) / len(values[1::2])


def test_unsteered_it_is_the_harness_own_model(run: Run) -> None:
    own, ours = run("hf"), run("odesteer")
    assert likelihoods(ours) == pytest.approx(likelihoods(own), abs=1e-4)
    assert greedy(ours) == greedy(own)
    assert texts(ours) == texts(own)
    for task in ("choosing", "answering"):
        assert ours["results"][task] == own["results"][task]


def test_steered_it_answers_in_the_direction_of_the_steering(run: Run, truthful: Path) -> None:
    plain = run("odesteer")
    up = run("odesteer", steer=str(truthful), level=LEVEL)
    down = run("odesteer", steer=str(truthful), level=-LEVEL)
    assert margin(down) < margin(plain) - 0.5
    assert margin(plain) < margin(up) - 0.5
    accuracy = [r["results"]["choosing"]["acc,none"] for r in (down, plain, up)]
    assert accuracy == sorted(accuracy)
    assert accuracy[0] < accuracy[2]
    assert texts(up) != texts(plain)


def test_the_batch_size_changes_nothing(run: Run, truthful: Path) -> None:
    five = run("odesteer", steer=str(truthful), level=LEVEL)
    one = run("odesteer", 1, steer=str(truthful), level=LEVEL)
    assert likelihoods(one) == pytest.approx(likelihoods(five), abs=1e-4)
    assert greedy(one) == greedy(five)
    assert texts(one) == texts(five)


def test_results_say_what_steers(run: Run, truthful: Path) -> None:
    (steering,) = run("odesteer", steer=str(truthful), level=LEVEL)["config"]["steering"]
    assert len(steering["digest"]) == 64
    assert steering["steerers"] == [
        {
            "method": "ODESteer",
            "site": {"layer": 4, "position": "last", "part": "residual"},
            "amount": "level=1.5",
            "fitted_on": model_path().name,
        }
    ]
    assert run("odesteer")["config"]["steering"] == []
