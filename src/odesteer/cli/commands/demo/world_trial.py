"""Trial of steering in one world of the terrarium: fit, generate in three arms, judge."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from odesteer.artifact import Steerer
from odesteer.methods import Method
from odesteer.models import Generation, SteeredModel
from odesteer.terrarium import Verdict, World

ARMS = ("unsteered", "steered", "opposite")

SAMPLING: dict[str, Any] = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0}


def _share(part: int, whole: int) -> float:
    """``part`` of ``whole``; 0 of nothing."""
    return part / whole if whole else 0.0


@dataclass(frozen=True)
class Rates:
    """Shares of all completions of one arm.

    Attributes:
        attribute: with the positive attribute, valid or not.
        validity: texts that the world could have produced.
        joint: valid and positive.
        negative_joint: valid and negative.
    """

    attribute: float
    validity: float
    joint: float
    negative_joint: float

    @classmethod
    def of(cls, verdicts: Sequence[Verdict]) -> "Rates":
        n = len(verdicts)
        return cls(
            attribute=_share(sum(v.attribute is True for v in verdicts), n),
            validity=_share(sum(v.valid for v in verdicts), n),
            joint=_share(sum(v.achieves(True) for v in verdicts), n),
            negative_joint=_share(sum(v.achieves(False) for v in verdicts), n),
        )


@dataclass(frozen=True)
class ArmResult:
    """The completions of one arm, one for each prompt, and their verdicts."""

    texts: tuple[Generation, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def rates(self) -> Rates:
        return Rates.of(self.verdicts)

    @property
    def barrier(self) -> tuple[float, float] | None:
        """Mean log-density ratio of the steered activations before and after, nats."""
        moved = [
            (before, after)
            for text in self.texts
            for before, after in zip(text.before, text.after, strict=True)
            if before is not None and after is not None
        ]
        if not moved:
            return None
        before, after = (sum(column) / len(moved) for column in zip(*moved, strict=True))
        return before, after

    def to_json(self) -> dict[str, Any]:
        moved = self.barrier
        return {
            **asdict(self.rates),
            "barrier": None if moved is None else {"before": moved[0], "after": moved[1]},
            "capped": sum(text.capped for text in self.texts),
            "tokens": sum(len(text.tokens) for text in self.texts),
        }


# Larger than the default level of steering up: stories turn sad only from there on.
OPPOSITE_LEVEL = -2.0


@dataclass(frozen=True)
class WorldTrial:
    """A steerer of one world and its effect on test prompts.

    Attributes:
        world: the world.
        steerer: fitted on its data.
        n_pairs: pairs that it was fitted on.
        fit_seconds: duration of the fit.
        level: of the steered arm.
        opposite: level of the opposite arm.
        prompts: the test prompts.
        arms: unsteered, steered, and steered the other way.
    """

    world: World
    steerer: Steerer
    n_pairs: int
    fit_seconds: float
    level: float
    opposite: float
    prompts: tuple[str, ...]
    arms: dict[str, ArmResult]

    def to_json(self, artifact: Path) -> dict[str, Any]:
        return {
            "title": self.world.title,
            "poles": list(self.world.poles),
            "layer": self.world.layer,
            "capture_position": self.world.position,
            "pairs": self.n_pairs,
            "fit_seconds": self.fit_seconds,
            "held_out": dict(self.steerer.provenance.held_out),
            "level": self.level,
            "opposite_level": self.opposite,
            "artifact": str(artifact),
            **{name: arm.to_json() for name, arm in self.arms.items()},
            "examples": [
                {"prompt": prompt, **{name: arm.texts[i].text for name, arm in self.arms.items()}}
                for i, prompt in enumerate(self.prompts[:3])
            ],
        }

    def verdict(self, arm: str, i: int) -> str:
        """The verdict on a completion, named by the poles of the world."""
        found = self.arms[arm].verdicts[i]
        if not found.valid:
            return "not valid"
        return "neither" if found.attribute is None else self.world.poles[not found.attribute]

    def succeeds(self, arm: str, i: int) -> bool:
        """Whether a steered completion is valid and on the side of its arm."""
        return self.arms[arm].verdicts[i].achieves(arm == "steered")


def try_world(
    lm: SteeredModel, world: World, method: Method, *, n_pairs: int, n_samples: int, seed: int
) -> WorldTrial:
    """Fit on the world's data, then generate one completion an arm for each test prompt."""
    pairs = world.contrast("fit", seed, n_pairs)
    started = perf_counter()
    steerer = lm.fit(method, pairs, world.layer, position=world.position, seed=seed)
    took = perf_counter() - started
    level = float(method.default_amount.value)
    prompts = world.prompts("test", seed, n_samples)
    levels: list[float | None] = (
        [None] * n_samples + [level] * n_samples + [OPPOSITE_LEVEL] * n_samples
    )
    # One batch for all arms, so that rows differ in their steering only.
    texts = lm.generate(
        prompts * len(ARMS),
        steerer,
        level=levels,
        max_new_tokens=world.max_new_tokens,
        seed=seed,
        receipt=True,
        **SAMPLING,
    )
    arms = {}
    for k, name in enumerate(ARMS):
        own = tuple(texts[k * n_samples : (k + 1) * n_samples])
        verdicts = tuple(world.judge(p, t.text) for p, t in zip(prompts, own, strict=True))
        arms[name] = ArmResult(own, verdicts)
    return WorldTrial(world, steerer, n_pairs, took, level, OPPOSITE_LEVEL, prompts, arms)
