"""The card of a steerer: what it is and where it comes from, in Markdown."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from odesteer.artifact.steerer import Steerer

# Every card has this line, so that a README that somebody else wrote is recognised.
MARK = "<!-- card written by odesteer -->"

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def write_card(steerer: Steerer, repo_id: str | None = None) -> str:
    """The card; ``repo_id`` is where the steerer will be found.

    It states what the artifact records and nothing else.
    """
    origin = steerer.provenance
    base = origin.model_id if HUB_ID.fullmatch(origin.model_id or "") else None
    method = type(steerer.method).__name__
    where = f" at {steerer.site}" if steerer.site else ""
    model = f" of `{_plain(origin.model_id)}`" if origin.model_id else ""
    source = getattr(steerer.method, "reference", None)
    quantity, value = _default(steerer)
    title = f"{method} steerer" + (f" for {_plain(origin.model_id)}" if origin.model_id else "")
    lines = [
        *_front_matter(base),
        "",
        MARK,
        "",
        f"# {title}",
        "",
        f"An activation steerer of the method {method}{f' ({source})' if source else ''}, saved"
        f" with [odesteer](https://pypi.org/project/odesteer). It moves activations of width"
        f" {steerer.width}{model}{where}.",
        "",
        "## Use",
        "",
        "```python",
        "import odesteer",
        "",
        f"lm = odesteer.SteeredModel.from_pretrained({_quoted(base or 'MODEL')})",
        f"steerer = odesteer.Steerer.from_pretrained({_quoted(repo_id or 'THIS_REPOSITORY')})",
        f'print(lm.generate(["PROMPT"], steerer, {quantity}={value}))',
        "```",
        "",
        f"It takes {' or '.join(f'`{name}`' for name in steerer.method.quantities)}.",
        "",
        "## Origin",
        "",
        *_table(("recorded", "value"), _recorded(steerer)),
    ]
    if origin.held_out:
        figures = [(name, f"{figure:.4g}") for name, figure in origin.held_out.items()]
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


def _default(steerer: Steerer) -> tuple[str, str]:
    amount = steerer.method.default_amount
    value = amount.value
    return amount.quantity, str(value) if isinstance(value, (int, float)) else "..."


def _recorded(steerer: Steerer) -> list[tuple[str, str]]:
    origin, site = steerer.provenance, steerer.site
    rows = [
        ("method", repr(steerer.method)),
        ("model", origin.model_id),
        ("model revision", origin.model_revision),
        ("model width", origin.model_width),
        ("model layers", origin.n_layers),
        ("layer (from zero)", site.layer if site else None),
        ("positions steered", site.position if site else None),
        ("positions fitted on", origin.capture_position),
        ("positive examples", origin.n_positive),
        ("negative examples", origin.n_negative),
        ("mean activation norm", f"{steerer.method.mean_norm_:.6g}"),
        ("seed", origin.seed),
        ("data sha256", origin.data_digest),
        ("chat template sha256", origin.chat_template_hash),
        ("steerer sha256", steerer.digest()),
        ("odesteer version", origin.odesteer_version),
    ]
    return [(name, f"`{_plain(value)}`") for name, value in rows if value is not None]


def _table(header: tuple[str, str], rows: list[tuple[str, str]]) -> list[str]:
    lines = [f"| {name} | {value} |" for name, value in (header, ("---", "---"))]
    return lines + [f"| {_plain(name)} | {value} |" for name, value in rows]


def _plain(value: object) -> str:
    """A value in one line without what Markdown or a table would read as a mark."""
    text = " ".join(str(value).split()).replace("|", "¦").replace("`", "'").replace("<", "‹")
    return text if len(text) <= 300 else text[:299] + "…"


def _quoted(text: str) -> str:
    return json.dumps(text)
