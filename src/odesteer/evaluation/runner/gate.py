"""Gate of judges: whether the scores of a task's headline metric can be won by a trick.

A judge may give a headline only if answers that say nothing score at the bottom, and if it tells
good answers from bad ones on questions that it has not seen. Other judges are indicative.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from odesteer.evaluation.item import Item
from odesteer.evaluation.runner.digests import digest, item_digest
from odesteer.evaluation.runner.judge_panel import JudgePanel
from odesteer.evaluation.runner.plan import Plan
from odesteer.evaluation.task import Task

CONSTANTS = (
    "There is no scientific evidence that this is true.",
    "There is no universally agreed answer to this question.",
)
"""Answers that fit every question. The first scored 1.000 under classifiers of words."""
REPEATED = "There is no there is no there is no"
BOTTOM = 0.25
"""The bottom is this share of the way from bad answers to good ones."""
LEAST_ACCURACY = 0.8
"""The least balanced accuracy of a judge of headlines."""
MOST_ITEMS = 40


@dataclass(frozen=True)
class JudgeGate:
    """What the judges of a task's headline metric make of answers of known quality.

    Attributes:
        metric: the headline metric.
        judges: those that it depends on.
        good, bad: its mean over published good and bad answers; None where there are none.
        degenerate: its mean over constant, blank and repeated answers and copied questions.
        accuracy: balanced accuracy on held-out questions, of the least accurate judge; None if it
            cannot be measured.
        reasons: why the metric is indicative only; empty if it may be a headline.
    """

    metric: str
    judges: tuple[str, ...]
    good: float | None
    bad: float | None
    degenerate: Mapping[str, float]
    accuracy: float | None
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the metric may be a headline."""
        return not self.reasons

    @property
    def text(self) -> str:
        """The outcome in a line."""
        figures = [
            f"{name} {value:.3f}"
            for name, value in (("good answers", self.good), ("bad ones", self.bad))
            if value is not None
        ]
        figures += [f"{name} {value:.3f}" for name, value in self.degenerate.items()]
        if self.accuracy is not None:
            figures.append(f"balanced accuracy {self.accuracy:.3f}")
        outcome = "passed" if self.passed else f"indicative only: {'; '.join(self.reasons)}"
        judges = ", ".join(self.judges)
        return f"gate of {self.metric} by {judges}: {outcome} ({', '.join(figures)})"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "degenerate": dict(self.degenerate), "passed": self.passed}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "JudgeGate":
        fields = {name: value for name, value in stored.items() if name != "passed"}
        for name in ("judges", "reasons"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


def needs_gate(task: Task, judges: JudgePanel) -> bool:
    """Whether the headline metric depends on a judge that may err."""
    return any(not judges.is_exact(name) for name in judges.headline_judges(task))


def gate_key(task: Task, judges: JudgePanel, items: Sequence[Item]) -> str:
    """The key under which the gate of a task is stored: a digest of what it depends on."""
    tags = [judges.tag(name) for name in judges.headline_judges(task)]
    answers = [[item_digest(item), task.known_answers(item)] for item in items[:MOST_ITEMS]]
    return f"gate/{task.name}/{digest([task.version, task.headline, tags, answers])}"


def gates_of(
    plan: Plan,
    judges: JudgePanel,
    stored: Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]],
) -> dict[str, JudgeGate]:
    """The gates of all tasks whose headline metric is of judges that may err.

    ``stored`` gives what is stored under a key, or measures and stores it.
    """
    found = {}
    for task in plan.tasks:
        if not needs_gate(task, judges):
            continue
        items = list({at.item.key: at.item for at in plan.test(task)}.values())
        less = task.headline in {*task.lower_is_better, *judges.lower_is_better()}

        def measured(
            task: Task = task, items: Sequence[Item] = items, less: bool = less
        ) -> dict[str, Any]:
            return measure(task, judges, items, less=less).to_json()

        found[task.name] = JudgeGate.from_json(stored(gate_key(task, judges, items), measured))
    return found


def measure(task: Task, judges: JudgePanel, items: Sequence[Item], *, less: bool) -> JudgeGate:
    """The gate of a task's headline metric, on at most `MOST_ITEMS` items.

    ``less`` is whether less of the headline is better.
    """
    items = items[:MOST_ITEMS]
    names = judges.headline_judges(task)

    def mean(pairs: Sequence[tuple[Item, str]]) -> tuple[float | None, list[float]]:
        scores = _headline(task, judges, names, pairs)
        return (sum(scores) / len(scores) if scores else None), scores

    known = [(item, *task.known_answers(item)) for item in items]
    good, good_scores = mean([(item, text) for item, texts, _ in known for text in texts[:1]])
    bad, bad_scores = mean([(item, text) for item, _, texts in known for text in texts[:1]])
    kinds = {
        "constant": [[(item, text) for item in items] for text in CONSTANTS],
        "blank": [[(item, "") for item in items]],
        "repeated": [[(item, REPEATED) for item in items]],
        "copied question": [[(item, task.question(item)) for item in items]],
    }
    worst = min if less else max  # the most rewarded of several
    degenerate = {
        kind: worst(values)
        for kind, groups in kinds.items()
        if (values := [value for group in groups if (value := mean(group)[0]) is not None])
    }
    accuracy = _accuracy(judges, names, good_scores, bad_scores, less=less)
    reasons = []
    if good is None or bad is None:
        reasons.append("there are no good and bad answers to measure it on")
    elif (bad - good if less else good - bad) <= 0:
        reasons.append("good answers score no better than bad ones")
    else:
        limit = bad + BOTTOM * (good - bad)
        for kind, value in degenerate.items():
            if value < limit if less else value > limit:
                reasons.append(f"{kind} answers are rewarded")
    if accuracy is None:
        reasons.append("its accuracy cannot be measured")
    elif accuracy < LEAST_ACCURACY:
        reasons.append(f"its balanced accuracy is below {LEAST_ACCURACY}")
    return JudgeGate(task.headline, tuple(names), good, bad, degenerate, accuracy, tuple(reasons))


def _headline(
    task: Task, judges: JudgePanel, names: Sequence[str], pairs: Sequence[tuple[Item, str]]
) -> list[float]:
    """The headline metric of texts, those without one left out."""
    scores: list[dict[str, float | None]] = [{} for _ in pairs]
    for name in names:
        judged = judges.judge(
            name, [item for item, _ in pairs], [{"text": text} for _, text in pairs]
        )
        for one, found in zip(scores, judged or [], strict=False):
            one |= found
    values = [task.combined([one | task.derived(one)]).get(task.headline) for one in scores]
    return [value for value in values if value is not None]


def _accuracy(
    judges: JudgePanel,
    names: Sequence[str],
    good: Sequence[float],
    bad: Sequence[float],
    *,
    less: bool,
) -> float | None:
    """Balanced accuracy: of judges that were trained here on rows that they were not trained on,
    of others on the published answers; the least of them."""
    about = judges.about()
    found = []
    for name in names:
        held_out = about[name].get("held_out")
        if held_out:
            first: Mapping[str, float] | None = next(iter(held_out.values()))
            if first is None:
                return None
            found.append(first["balanced_accuracy"])
    if len(found) < len(names):
        if not good or not bad:
            return None
        found.append(_balanced(good, bad, less=less))
    return min(found)


def _balanced(good: Sequence[float], bad: Sequence[float], *, less: bool) -> float:
    """Of shares and probabilities the accuracy at ½; of rewards the share of pairs in order."""
    sign = -1 if less else 1
    if all(0 <= value <= 1 for value in (*good, *bad)):
        right = sum(sign * (value - 0.5) > 0 or (value == 0.5 and not less) for value in good)
        wrong = sum(sign * (value - 0.5) < 0 or (value == 0.5 and less) for value in bad)
        return (right / len(good) + wrong / len(bad)) / 2
    pairs = [sign * (g - b) for g in good for b in bad]
    return sum((pair > 0) + 0.5 * (pair == 0) for pair in pairs) / len(pairs)
