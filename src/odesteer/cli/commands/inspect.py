"""``odesteer inspect``: the contents of a steerer file."""

from math import isnan
from typing import Annotated, Any

import typer

from odesteer.cli.arguments.options import Debug, Json
from odesteer.cli.output.screen import Screen
from odesteer.cli.output.steerers import describe
from odesteer.cli.output.text import format_figures, format_nats, without_controls


def inspect(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="A steerer, as fit saves it, or its name on the hub."),
    ],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what is in the file of a steerer.

    Its method and parameters, where it acts, what it was fitted on, held-out figures, tensors.
    """
    with Screen(json=json, debug=debug) as screen:
        from odesteer.artifact import from_pretrained
        from odesteer.barriers.linear_probe import concerns

        steerer = from_pretrained(file)
        found = steerer.content()
        content = {
            "file": file,
            "bytes": len(found.to_bytes()),
            **describe(steerer),
            "tensors": {
                name: {
                    "shape": list(tensor.shape),
                    "dtype": str(tensor.dtype).removeprefix("torch."),
                }
                for name, tensor in found.tensors.items()
            },
        }
        screen.rows(_file(content))
        for described in content.get("steerers", [content]):
            screen.rows(_rows(described) | _warnings(concerns(described["held_out"])))
        screen.print("", _tensors(content["tensors"]))
        screen.document(content)


def _file(content: dict[str, Any]) -> dict[str, str]:
    rows = {
        "file": f"{content['file']} ({content['bytes']:,} bytes)",
        "digest": content["digest"],
    }
    if "steerers" in content:
        rows["holds"] = f"a set of {len(content['steerers'])} steerers that act together"
        rows["amounts"] = ", ".join(content["quantities"])
    return rows


def _rows(content: dict[str, Any]) -> dict[str, str]:
    site, levels = content["site"], content["levels"]
    rows = {"method": content["method"]}
    rows |= {f"  {name}": str(value) for name, value in content["parameters"].items()}
    rows["amounts"] = f"{', '.join(content['quantities'])}; by default {content['default']}"
    if site is None:
        rows["site"] = "none; it is not bound to a layer"
    else:
        part = "" if site["part"] == "residual" else f", {site['part']}"
        rows["site"] = f"layer {site['layer']} (from zero){part}, positions: {site['position']}"
    if content["gate"] is not None:
        rows["acts"] = content["gate"]
    rows["width"] = str(content["width"])
    norm = content["mean_norm"]
    rows["mean norm"] = "unknown" if isnan(norm) else f"{norm:.6g} activation units"
    rows["strength 1"] = f"{content['strength_unit']:.6g} activation units"
    if levels is not None and isnan(levels["1"]):
        rows["levels"] = "have no meaning: the barrier was given, not fitted to examples"
    elif levels is not None:
        rows["level 1"] = f"h = {format_nats(levels['1'])} nats"
        rows["level -1"] = f"h = {format_nats(levels['-1'])} nats"
    rows |= _features(content["features"] or [])
    origin = dict(content["provenance"])
    rows["fitted on"] = "" if origin else "unknown"
    rows |= {f"  {name.replace('_', ' ')}": str(value) for name, value in origin.items()}
    rows |= format_figures(content["held_out"]) or {"held out": "no figures"}
    return rows


def _features(features: list[dict[str, Any]]) -> dict[str, str]:
    """A row for each feature that carries the steerer: its share of h, and how often it is on."""
    rows = {"carried by": ""} if features else {}
    for feature in features:
        on = (
            f"on in {feature['on_in_positives']:.0%} of positives,"
            f" {feature['on_in_negatives']:.0%} of"
        )
        name = f" ({without_controls(feature['name'])})" if feature["name"] else ""
        rows[f"  feature {feature['feature']}"] = (
            f"{feature['nats']:+.3f} nats, {on} negatives{name}"
        )
    return rows


def _warnings(concerns: list[str]) -> dict[str, str]:
    return {"warning": "; ".join(concerns)} if concerns else {}


def _tensors(tensors: dict[str, dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table("tensor", "type", "shape", title="Tensors", title_justify="left")
    for name, tensor in tensors.items():
        table.add_row(name, tensor["dtype"], " x ".join(map(str, tensor["shape"])) or "one number")
    return table
