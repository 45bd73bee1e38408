"""Suite ``contrast``: a user's contrastive file, with held-out groups."""

from typing import Any

from odesteer.data import ContrastData
from odesteer.data.load import read_contrast
from odesteer.errors import DataError
from odesteer.evaluation.item import Item
from odesteer.evaluation.suites.base import Sizes, Suite
from odesteer.evaluation.suites.data_files import first, held_out, shuffled
from odesteer.evaluation.task import Fold, Task

_SEED = 42
_TEST_SHARE, _VALIDATION_SHARE = 0.3, 0.2


class ContrastSuite(Suite):
    """Likelihoods of held-out examples of a user's file."""

    name = "contrast"
    title = "your own contrastive file: likelihoods of its held-out examples"
    quick = Sizes(fit=40, validation=4, test=8)
    needs_data = "a contrastive file (the rows that odesteer fit takes); name it with --data"

    def tasks(self) -> tuple[Task, ...]:
        if self.data is None or not self.data.exists():
            raise DataError(
                f"there is no file {self.data}; name one with --data. Its rows are"
                ' {"positive": …, "negative": …}, {"prompt": …, "chosen": …, "rejected": …} or'
                ' {"text": …, "label": …}.'
            )
        data = read_contrast(self.data, **self.data_options)
        return (ContrastTask(data, self.sizes),)


class ContrastTask(Task):
    """Held-out pairs: how often, and by how much, the positive side is likelier."""

    name = "contrast"
    title = "likelihood of held-out positive examples against negative ones"
    version = "1"
    source = "the user's own data; groups are held out as `ContrastData` labels them"
    differences = (
        "no published protocol: 30 % of groups to test, 20 % of the rest to choose by",
        "texts without a counterpart of the other side are compared with one at random",
    )
    changelog = ("1: the first version",)

    kind = "choice"
    judges = ("multiple-choice",)
    headline = "mc2"

    def __init__(self, data: ContrastData, sizes: Sizes) -> None:
        groups = [*data.groups_positive, *data.groups_negative]
        rest, test = held_out(groups, _TEST_SHARE, f"contrast/{_SEED}/test")
        fit, validation = held_out(sorted(rest), _VALIDATION_SHARE, f"contrast/{_SEED}/validation")
        self._fit = select_groups(data, fit, sizes.fit)
        self._validation = first(_items(data, validation), sizes.validation)
        self._test = first(_items(data, test), sizes.test)
        if not self._validation or not self._test:
            raise DataError(
                "no held-out group has examples that can be compared; give pairs, or more rows of"
                " both sides."
            )

    def folds(self, seed: int) -> tuple[Fold, ...]:
        return (Fold("all", self._fit, self._validation, self._test),)


def select_groups(data: ContrastData, groups: set[str], most: int | None) -> ContrastData:
    """The examples of some groups, at most ``most`` of either side."""
    sides: list[Any] = []
    for examples, labels in (
        (data.positive, data.groups_positive),
        (data.negative, data.groups_negative),
    ):
        kept = [pair for pair in zip(examples, labels, strict=True) if pair[1] in groups]
        sides.append(first(kept, most))
    positive, negative = sides
    return ContrastData(
        tuple(example for example, _ in positive),
        tuple(example for example, _ in negative),
        tuple(group for _, group in positive),
        tuple(group for _, group in negative),
    )


def _items(data: ContrastData, groups: set[str]) -> list[Item]:
    """An item for each group and prompt that has both sides."""
    found: dict[tuple[str, Any], dict[str, int]] = {}
    for label, examples, labels in (
        (1, data.positive, data.groups_positive),
        (0, data.negative, data.groups_negative),
    ):
        for example, group in zip(examples, labels, strict=True):
            if group in groups:
                found.setdefault((group, example.prompt), {}).setdefault(example.response, label)
    items: list[Item] = []
    for (group, prompt), choices in found.items():
        if {*choices.values()} == {0, 1}:
            both = {"choices": list(choices), "labels": list(choices.values())}
            key = f"{group}/{len(items)}"
            items.append(Item(key, prompt, group, {"mc1": both, "mc2": both}))
    # Texts without a counterpart: paired at random, as many as the smaller side has.
    sides: dict[int, list[tuple[str, str]]] = {1: [], 0: []}
    for (group, prompt), choices in found.items():
        if prompt == "" and len({*choices.values()}) == 1:
            sides[next(iter(choices.values()))] += [(group, text) for text in choices]
    mixed = [shuffled(sorted(sides[label]), f"contrast/{_SEED}/{label}") for label in (1, 0)]
    for (group, positive), (_, negative) in zip(*mixed, strict=False):
        both = {"choices": [positive, negative], "labels": [1, 0]}
        items.append(Item(f"{group}/{len(items)}", "", group, {"mc1": both, "mc2": both}))
    return items
