"""Write the generated parts of docs/methods.md and of the pages of each family of methods.

A page below docs/methods has an introduction by hand, then a mark, then a section for each method
of its family, read from the code. A registered method that is in no family is an error.
"""

from collections.abc import Iterator
from pathlib import Path

from odesteer.methods import registry
from odesteer.methods.table import describe, overview, section

DOCS = Path(__file__).resolve().parents[1] / "docs"
START = "<!-- from here on written by scripts/write_method_tables.py -->\n\n"
END = "\n<!-- up to here -->\n"

#: The page of each family below docs/methods, and its methods in their order there.
FAMILIES = {
    "flows": (
        "odesteer",
        "one-step",
        "two-sided",
        "least-intervention",
        "recontrol",
        "end-to-end",
    ),
    "vectors": ("caa", "repe", "iti", "head-iti", "gated-direction"),
    "rotations": ("spherical", "spherical-steering", "bridge", "angular", "hpr"),
    "maps": (
        "ablation",
        "setpoint",
        "mimic",
        "linear-act",
        "subspace-map",
        "truthflow",
        "query-truthflow",
    ),
    "combinations": ("conditional", "sum", "norm-preserving"),
}


def pages() -> Iterator[tuple[Path, str]]:
    """Every page with generated parts, and its text of today.

    Raises `SystemExit` for a method without a family, and for a page without its marks.
    """
    family_of = {name: family for family, names in FAMILIES.items() for name in names}
    missing = sorted({*registry} ^ {*family_of})
    if missing:
        raise SystemExit(f"{', '.join(missing)}: add to FAMILIES, or drop from it.")
    addresses = {name: f"methods/{family}.md" for name, family in family_of.items()}
    in_order = [describe(name) for names in FAMILIES.values() for name in names]
    yield _filled(DOCS / "methods.md", overview(addresses, in_order))
    for family, names in FAMILIES.items():
        sections = "\n".join(section(describe(name)) for name in names)
        yield _filled(DOCS / "methods" / f"{family}.md", sections)


def _filled(path: Path, generated: str) -> tuple[Path, str]:
    before, start, rest = path.read_text().partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise SystemExit(f"{path} has lost its marks {START.strip()} and {END.strip()}.")
    return path, before + start + generated + end + after


if __name__ == "__main__":
    for path, text in pages():
        path.write_text(text)
        print(f"wrote {path.relative_to(DOCS.parent)}")
