"""Transcripts ("Human: … Assistant: …"): the opening that the texts of a pair share, as prompt."""

import re
from collections.abc import Sequence

# What begins a turn, at the start of a line or as a special token of a chat template.
_ROLE = "Human|User|H|Q|Question|Instruction|Input|Assistant|A|Answer|Response|System"
_TURN_MARKER = re.compile(
    rf"^[ \t]*(?:\#+ ?)?(?:{_ROLE}):"
    r"|<\|im_start\|>\w+\n"
    r"|<\|start_header_id\|>\w+<\|end_header_id\|>\n+"
    r"|<\|(?:system|user|assistant)\|>\n?"
    r"|<start_of_turn>\w+\n"
    r"|\[/?INST\]",
    re.MULTILINE,
)


def shared_opening(texts: Sequence[str]) -> str | None:
    """What all texts begin with, up to the last turn marker that they share, the marker included.

    None where they do not share a turn and the marker of the next one.
    """
    common = _common_start(min(texts), max(texts))
    markers = list(_TURN_MARKER.finditer(common))
    if len(markers) < 2 or not common[markers[0].end() : markers[-1].start()].strip():
        return None
    return common[: markers[-1].end()]


def _common_start(a: str, b: str) -> str:
    """The longest text that both begin with."""
    n = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:n]
