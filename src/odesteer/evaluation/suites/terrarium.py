"""Suite ``terrarium``: truth, civility and mood on the bundled model, with exact judges."""

from odesteer.errors import InvalidInputError
from odesteer.evaluation.item import Item
from odesteer.evaluation.suites.base import Sizes, Suite
from odesteer.evaluation.task import Fold, Task
from odesteer.terrarium import Split, World, worlds

_N_PAIRS, _N_VALIDATION, _N_TEST = 150, 20, 60
_N_DRAWS = 4
_SHOTS = {"truth": 1, "civility": 1, "mood": 3}
"""Examples of truth and civility have several turns; those of mood have one story."""


class TerrariumSuite(Suite):
    """One task for each world of the terrarium."""

    name = "terrarium"
    title = "truth, civility and mood in the worlds of the bundled model, with exact judges"
    full = Sizes(fit=_N_PAIRS, validation=_N_VALIDATION, test=_N_TEST)
    quick = Sizes(fit=60, validation=8, test=16)

    def tasks(self) -> tuple[Task, ...]:
        if self.data is not None:
            raise InvalidInputError(
                f"the terrarium makes its own data; leave out {str(self.data)!r}, or use the suite"
                " 'contrast' for it."
            )
        return tuple(TerrariumTask(world, self.sizes) for world in worlds())


class TerrariumTask(Task):
    """Valid completions with the positive attribute, in one world."""

    name = "terrarium"
    title = "completions that show the attribute and that the world could have said"
    version = "1"
    source = "odesteer's own miniature worlds (docs/terrarium.md); no published counterpart"
    changelog = ("1: the first version",)

    judges = ("terrarium", "perplexity")
    headline = "joint"

    def __init__(self, world: World, sizes: Sizes) -> None:
        self.name = world.name  # type: ignore[misc]
        self.title = world.title  # type: ignore[misc]
        self.layer = world.layer
        self.capture_position = world.position
        self.max_new_tokens = world.max_new_tokens
        self.stop = (world.stop,)
        self.shots = _SHOTS.get(world.name, 1)
        self._world = world
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
        drawn = self._world.prompts(split, seed, _N_DRAWS * n)
        prompts = list(dict.fromkeys(drawn))[:n]
        return tuple(
            Item(f"{split}/{seed}/{i}", prompt, f"prompt {prompt}", {"world": self._world.name})
            for i, prompt in enumerate(prompts)
        )
