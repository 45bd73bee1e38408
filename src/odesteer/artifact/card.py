"""Model cards in Markdown: method, site, provenance and use of a steerer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from math import isnan
from typing import Any, Protocol

from odesteer.artifact.provenance import Provenance
from odesteer.artifact.site import Site
from odesteer.methods import Method

# Every card has this line, which tells it from a README that somebody else wrote.
MARK = "<!-- card written by odesteer -->"

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Member(Protocol):
    """What a card shows of one steerer; `Steerer` has all of it."""

    @property
    def method(self) -> Method: ...

    @property
    def site(self) -> Site | None: ...

    @property
    def provenance(self) -> Provenance: ...

    @property
    def gate(self) -> object | None: ...

    @property
    def width(self) -> int: ...


class CardSource(Protocol):
    """What a card is written from: a `Steerer` or a `SteererSet`."""

    @property
    def members(self) -> Sequence[Member]: ...

    @property
    def quantities(self) -> tuple[str, ...]: ...

    def digest(self) -> str: ...


def write_card(artifact: CardSource, repo_id: str | None = None) -> str:
    """The card of a steerer or a set of them; ``repo_id`` is where it will be found.

    It states only what the artifact records.
    """
    steerers, kind = artifact.members, type(artifact).__name__
    is_set = kind == "SteererSet"
    first = steerers[0]
    origin = first.provenance
    base = origin.model_id if HUB_ID.fullmatch(origin.model_id or "") else None
    methods = dict.fromkeys(type(steerer.method) for steerer in steerers)
    named = " and ".join(method.__name__ for method in methods)
    sources = dict.fromkeys(getattr(method, "reference", None) for method in methods)
    source = "; ".join(source for source in sources if source)
    model = f" of `{_plain(origin.model_id)}`" if origin.model_id else ""
    widths = " and ".join(map(str, dict.fromkeys(steerer.width for steerer in steerers)))
    if is_set:
        where = f" at {len(steerers)} sites"
        what = f"A set of {len(steerers)} activation steerers of the method {named}"
        moves = "Together they move"
    else:
        where = f" at {first.site}" if first.site else ""
        what, moves = f"An activation steerer of the method {named}", "It moves"
    gates = dict.fromkeys(str(steerer.gate) for steerer in steerers if steerer.gate)
    acts = f" It acts {'; '.join(gates)}." if gates else ""
    title = f"{named} steerer" + (f" for {_plain(origin.model_id)}" if origin.model_id else "")
    lines = [
        *_front_matter(base),
        "",
        MARK,
        "",
        f"# {title}",
        "",
        f"{what}{f' ({source})' if source else ''}, saved"
        f" with [odesteer](https://pypi.org/project/odesteer). {moves} activations of width"
        f" {widths}{model}{where}.{acts}",
        "",
        "## Use",
        "",
        "```python",
        "import odesteer",
        "",
        f"lm = odesteer.SteeredModel.from_pretrained({_quoted(base or 'MODEL')})",
        f"steerer = odesteer.{kind}.from_pretrained({_quoted(repo_id or 'THIS_REPOSITORY')})",
        f'print(lm.generate(["PROMPT"], steerer{_default(steerers)}))',
        "```",
        "",
        f"It takes {' or '.join(f'`{name}`' for name in artifact.quantities)}.",
        "",
        "## Origin",
        "",
        *_table(("recorded", "value"), _recorded(artifact, steerers)),
    ]
    figures = [
        (f"{steerer.site}: {name}" if is_set else name, f"{figure:.4g}")
        for steerer in steerers
        for name, figure in steerer.provenance.held_out.items()
    ]
    if figures:
        lines += [
            "",
            "## Held-out figures",
            "",
            "Measured on examples that the fit did not see.",
            "",
            *_table(("figure", "value"), figures),
        ]
    return "\n".join(lines) + "\n"


def _front_matter(base: str | None) -> list[str]:
    lines = ["---", "library_name: odesteer", "tags:", "- odesteer", "- activation-steering"]
    if base:
        lines.append(f"base_model: {_quoted(base)}")
    return [*lines, "---"]


def _default(steerers: Sequence[Member]) -> str:
    """The default amount as an argument; empty where the methods have different defaults."""
    amounts = {str(s.method.default_amount): s.method.default_amount for s in steerers}
    if len(amounts) > 1:
        return ""
    ((_, amount),) = amounts.items()
    value = amount.value
    return f", {amount.quantity}={value if isinstance(value, (int, float)) else '...'}"


def _recorded(artifact: CardSource, steerers: Sequence[Member]) -> list[tuple[str, str]]:
    """Rows of the table of recorded values; for sets, the values that differ in order."""
    each = [_figures(steerer) for steerer in steerers]
    rows = {}
    for name in each[0]:
        values = [_plain(figures[name]) for figures in each if figures[name] is not None]
        rows[name] = ", ".join(dict.fromkeys(values) if len({*values}) == 1 else values)
    rows["steerer sha256"] = artifact.digest()
    return [(name, f"`{_plain(value)}`") for name, value in rows.items() if value]


def _figures(steerer: Member) -> dict[str, Any]:
    origin, site = steerer.provenance, steerer.site
    norm = steerer.method.mean_norm_
    return {
        "method": repr(steerer.method),
        "model": origin.model_id,
        "model revision": origin.model_revision,
        "model width": origin.model_width,
        "model layers": origin.n_layers,
        "layer (from zero)": site.layer if site else None,
        "part of the layer": site.part if site and site.part != "residual" else None,
        "attention heads": origin.n_heads,
        "positions steered": site.position if site else None,
        "positions fitted on": origin.capture_position,
        "condition": steerer.gate,
        "positive examples": origin.n_positive,
        "negative examples": origin.n_negative,
        "mean activation norm": "unknown" if isnan(norm) else f"{norm:.6g}",
        "strength 1, in activation units": f"{steerer.method.strength_unit:.6g}",
        "seed": origin.seed,
        "data sha256": origin.data_digest,
        "chat template sha256": origin.chat_template_hash,
        "chat template arguments": json.dumps(dict(origin.chat_template_kwargs))
        if origin.chat_template_kwargs
        else None,
        "odesteer version": origin.odesteer_version,
    }


def _table(header: tuple[str, str], rows: list[tuple[str, str]]) -> list[str]:
    lines = [f"| {name} | {value} |" for name, value in (header, ("---", "---"))]
    return lines + [f"| {_plain(name)} | {value} |" for name, value in rows]


def _plain(value: object) -> str:
    """A value in one line, without characters that have a meaning in Markdown tables."""
    text = " ".join(str(value).split()).replace("|", "¦").replace("`", "'").replace("<", "‹")
    return text if len(text) <= 300 else text[:299] + "…"


def _quoted(text: str) -> str:
    return json.dumps(text)
