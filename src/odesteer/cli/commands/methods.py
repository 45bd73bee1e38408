"""``odesteer methods``: list the steering methods."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from odesteer.cli.arguments.options import Debug, Json
from odesteer.cli.errors import UsageError
from odesteer.cli.output.screen import Screen

if TYPE_CHECKING:
    from odesteer.methods.table import Description


def methods(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Write the tables of the documentation.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the steering methods.

    With the field or map of each, its barrier, the quantities that say how much it steers, its
    parameters, what it costs, and its paper.
    """
    with Screen(json=json, debug=debug) as screen:
        if markdown and json:
            raise UsageError("--markdown and --json exclude each other; give one of them.")
        from rich.padding import Padding
        from rich.text import Text

        from odesteer.methods import QUANTITIES, table

        described = table.describe_all()
        if markdown:
            screen.write(table.markdown(described), end="")
            return
        for method in described:
            heading = Text.assemble((method.name, "bold"), f"  {method.cls.__name__}")
            screen.print(heading, Padding(method.summary, (0, 0, 0, 2)), _block(method))
        screen.print(
            "How much: one of these; a bare number means the first of a method.\n"
            + "\n".join(f"  {quantity}: {unit}" for quantity, unit in QUANTITIES.items())
        )
        screen.print(
            "A parameter is set by --param name=value, a part's by --param part.name=value:\n"
            "  odesteer fit --data pairs.jsonl --layer 3 -o s.safetensors --method odesteer \\\n"
            "    --param level=2 --param solver=rk4 --param barrier.C=10"
        )
        screen.document({"methods": list(map(_row, described)), "quantities": dict(QUANTITIES)})


def _row(method: "Description") -> dict[str, Any]:
    instance = method.cls()
    return {
        "name": method.name,
        "class": method.cls.__name__,
        "summary": method.summary,
        "dynamics": method.dynamics,
        "barrier": None if method.barrier == "none" else method.barrier,
        "solver": method.solver,
        "keeps_norm": instance.keeps_norm,
        "quantities": list(instance.quantities),
        "cost": method.cost,
        "parameters": {
            name: _plain(value) for name, value in instance.get_params(deep=False).items()
        },
        "meanings": {parameter.name: parameter.meaning for parameter in method.parameters},
        "reference": method.reference,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def _block(method: "Description") -> Any:
    from rich.padding import Padding
    from rich.table import Table

    parameters = ", ".join(f"{each.name}={each.default}" for each in method.parameters)
    rows = {
        "field or map": method.dynamics,
        "barrier": method.barrier,
        "solver": method.solver,
        "how much": method.quantities,
        "norm kept": method.keeps_norm,
        "per token": method.cost,
        "parameters": parameters,
        "paper": method.reference,
    }
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(name, value)
    return Padding(grid, (0, 0, 1, 2))
