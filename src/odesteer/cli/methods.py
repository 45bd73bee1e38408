"""``odesteer methods``: what can be fitted."""

import inspect
from typing import Any

from odesteer.cli.options import Debug, Json
from odesteer.cli.screen import Screen


def methods(json: Json = False, debug: Debug = False) -> None:
    """List the steering methods.

    With the quantities that say how much each steers, and their parameters.
    """
    with Screen(json=json, debug=debug) as screen:
        rows = [_row(name) for name in _names()]
        screen.print(_table(rows))
        screen.print(
            "A parameter is set by --param name=value, a part's by --param part.name=value:\n"
            "  odesteer fit --data pairs.jsonl --layer 3 -o s.safetensors --method odesteer \\\n"
            "    --param level=2 --param solver=rk4 --param barrier.C=10"
        )
        screen.document({"methods": rows, "quantities": _quantities()})


def _names() -> list[str]:
    from odesteer.methods import registry

    return list(registry)


def _quantities() -> dict[str, str]:
    from odesteer.methods import QUANTITIES

    return dict(QUANTITIES)


def _row(name: str) -> dict[str, Any]:
    from odesteer.estimator import Parametrised
    from odesteer.methods import registry

    cls = registry.get(name)
    defaults = {
        parameter: signature.default
        for parameter, signature in inspect.signature(cls).parameters.items()
    }
    return {
        "name": name,
        "class": cls.__name__,
        "summary": (inspect.getdoc(cls) or "").partition("\n")[0],
        "quantities": list(cls.quantities),
        "parameters": {
            parameter: repr(value) if isinstance(value, Parametrised) else value
            for parameter, value in defaults.items()
        },
        "reference": cls.reference,
    }


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(
        title="Steering methods; a bare number means the first quantity",
        title_justify="left",
        show_lines=True,
    )
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("quantities")
    table.add_column("parameters and their defaults", overflow="fold")
    table.add_column("what it does, and where it is from")
    for row in rows:
        parameters = "\n".join(f"{name}={value}" for name, value in row["parameters"].items())
        table.add_row(
            row["name"],
            "\n".join(row["quantities"]),
            parameters,
            f"{row['summary']}\n{row['class']}: {row['reference']}",
        )
    return table
