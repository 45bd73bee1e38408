"""Suites ``terrarium`` and ``terrarium-hard``: worlds of the bundled model, with exact judges."""

from typing import Any, ClassVar

from odesteer.errors import InvalidInputError
from odesteer.evaluation.item import Item
from odesteer.evaluation.suites.base import Sizes, Suite
from odesteer.evaluation.task import Fold, Task
from odesteer.terrarium import Split, World, hard_worlds, worlds

_N_PAIRS, _N_VALIDATION, _N_TEST = 150, 20, 60
_N_DRAWS = 12
_FIRST_SEED = 1_000
_STUDIED_SEEDS, _STUDIED = (1, 2, 3), 100  # of studies.barriers
_SHOTS = {"truth": 1, "civility": 1, "mood": 3}
"""Examples of truth and civility have several turns; those of mood have one story."""


class TerrariumSuite(Suite):
    """One task for each world of the terrarium."""

    name = "terrarium"
    title = "truth, civility and mood in the worlds of the bundled model, with exact judges"
    full = Sizes(fit=_N_PAIRS, validation=_N_VALIDATION, test=_N_TEST)
    quick = Sizes(fit=60, validation=8, test=16)

    def tasks(self) -> tuple[Task, ...]:
        self._check_data()
        return tuple(TerrariumTask(world, self.sizes) for world in worlds())

    def _check_data(self) -> None:
        if self.data is not None:
            raise InvalidInputError(
                f"the terrarium makes its own data; leave out {str(self.data)!r}, or use the suite"
                " 'contrast' for it."
            )


class TerrariumHardSuite(TerrariumSuite):
    """Two tasks for each hard world: test prompts like those of the fit, and shifted ones."""

    name = "terrarium-hard"
    title = "worlds in which what is desired depends on the text so far, with exact judges"
    full = Sizes(fit=300, validation=_N_VALIDATION, test=_N_TEST)
    exceptions: ClassVar[float] = 0.4
    """The dial of difficulty, see `odesteer.terrarium.hard_worlds`."""

    def tasks(self) -> tuple[Task, ...]:
        self._check_data()
        shifted = hard_worlds(self.exceptions, shifted=True)
        pairs = zip(hard_worlds(self.exceptions), shifted, strict=True)
        return tuple(
            TerrariumTask(world, self.sizes, tested=tested, exceptions=self.exceptions)
            for world, other in pairs
            for tested in (None, other)
        )


class TerrariumTask(Task):
    """Valid completions with the positive attribute, in one world.

    Parameters:
        world: the data to fit on and to choose settings on.
        sizes: numbers of pairs and prompts.
        tested: the world of the test prompts; the same by default.
        exceptions: of a hard world.
    """

    name = "terrarium"
    title = "completions that show the attribute and that the world could have said"
    version = "2"
    source = "odesteer's own miniature worlds (docs/terrarium.md); no published counterpart"
    changelog = (
        "2: none of the prompts that the default of ODESteer was chosen on",
        "1: the first version",
    )

    judges = ("terrarium", "perplexity")
    headline = "joint"

    def __init__(
        self,
        world: World,
        sizes: Sizes,
        *,
        tested: World | None = None,
        exceptions: float | None = None,
    ) -> None:
        self.name = world.name if tested is None else f"{world.name}-shifted"  # type: ignore[misc]
        self.title = world.title  # type: ignore[misc]
        self.layer = world.layer
        self.capture_position = world.position
        self.max_new_tokens = world.max_new_tokens
        self.stop = (world.stop,)
        self.shots = _SHOTS.get(world.name, 1)
        self._world = world
        self._tested = world if tested is None else tested
        self._reference: dict[str, Any] = {"world": world.name}
        if exceptions is not None:
            self._reference["exceptions"] = exceptions
        self._sizes = sizes

    def folds(self, seed: int) -> tuple[Fold, ...]:
        sizes = self._sizes
        return (
            Fold(
                "all",
                self._world.contrast("fit", seed, sizes.fit or _N_PAIRS),
                self._items("validation", seed, sizes.validation or _N_VALIDATION),
                self._items("test", seed, sizes.test or _N_TEST),
            ),
        )

    def _items(self, split: Split, seed: int, n: int) -> tuple[Item, ...]:
        # Duplicate prompts add nothing: draw more, and keep the first n distinct ones.
        world = self._tested if split == "test" else self._world
        drawn = world.prompts(split, _FIRST_SEED + seed, _N_DRAWS * n)
        studied = _studied(world) if split == "test" else frozenset[str]()
        prompts = [prompt for prompt in dict.fromkeys(drawn) if prompt not in studied][:n]
        return tuple(
            Item(f"{split}/{seed}/{i}", prompt, f"prompt {prompt}", self._reference)
            for i, prompt in enumerate(prompts)
        )


def _studied(world: World) -> frozenset[str]:
    """Prompts that studies drew to choose defaults by: what is reported on must be others."""
    if all(world.name != studied.name for studied in worlds()):
        return frozenset()
    return frozenset(
        prompt for seed in _STUDIED_SEEDS for prompt in world.prompts("test", seed, _STUDIED)
    )
