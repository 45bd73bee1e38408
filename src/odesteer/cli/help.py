"""Help of a command with its options in panels, as plain text."""

from typing import Any

import typer.core

DATA = "Data"
STEERING = "Steering"
TRAINING = "Training"
SEARCH = "Search"
GENERATION = "Generation"
JUDGES = "Judges"
NETWORK = "Network"
LIMITS = "Limits"
MACHINE = "Model and machine"
RAY = "Ray"
PAPER = "The paper's experiments"

_ORDER = (
    PAPER,
    DATA,
    STEERING,
    TRAINING,
    SEARCH,
    GENERATION,
    JUDGES,
    NETWORK,
    LIMITS,
    MACHINE,
    RAY,
)


class PanelCommand(typer.core.TyperCommand):
    """A command whose help lists options under the headings of their ``rich_help_panel``.

    Arguments come first, then the panels in the order above, then options without a panel.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of arguments and options."""
        arguments, others = [], []
        panels: dict[str, list[tuple[str, str]]] = {heading: [] for heading in _ORDER}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            panel = getattr(parameter, "rich_help_panel", None)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            elif panel is None:
                others.append(record)
            else:
                panels[panel].append(record)
        for heading, records in {"Arguments": arguments, **panels, "Options": others}.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
