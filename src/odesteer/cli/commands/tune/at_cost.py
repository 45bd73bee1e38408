"""``odesteer tune --kl``: the amounts that cost so many nats of KL to the unsteered model."""

import json
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from odesteer.cli.commands.tune.layers import LayerRule, kept_layers
from odesteer.cli.commands.tune.objective import Proxy, data_and_objective
from odesteer.cli.output.screen import Screen
from odesteer.cli.output.steerers import describe
from odesteer.errors import InvalidInputError
from odesteer.files import write_file

if TYPE_CHECKING:
    from odesteer.cli.model.opening import ModelChoice
    from odesteer.data import ContrastData
    from odesteer.models.tokens.capture_positions import CapturePosition
    from odesteer.terrarium import World
    from odesteer.tuning import AtCost, Candidate

STEERER, FOUND = "steerer.safetensors", "at-kl.json"


def run_at_cost(
    screen: Screen,
    choice: "ModelChoice",
    source: "ContrastData | World",
    candidates: "Sequence[Candidate]",
    layers: "Sequence[int] | None",
    layer_rule: LayerRule | None,
    kl: float,
    *,
    proxy: Proxy,
    n_items: int,
    max_new_tokens: int,
    seed: int,
    batch_size: int,
    position: "CapturePosition",
    steer_position: str,
    folder: Path,
) -> None:
    """Find the amounts, choose among them by the objective, and save the chosen steerer.

    A single method at a single layer is fitted on all data, and nothing is judged.
    """
    from odesteer.data import ContrastData
    from odesteer.tuning import coarse_layers, tune_to_cost

    with choice.opened(screen) as lm:
        for layer in layers or ():
            lm.layers.at(layer)
        kept = kept_layers(
            lm,
            source,
            layer_rule,
            layers,
            position=position,
            seed=seed,
            batch_size=batch_size,
            screen=screen,
        )
        chosen = coarse_layers(lm.n_layers) if kept is None else list(dict.fromkeys(kept))
        is_single = len(chosen) * len(candidates) == 1
        objective = None
        if is_single and isinstance(source, ContrastData):
            data = source
        else:
            data, objective = data_and_objective(
                lm,
                source,
                proxy,
                screen,
                n_items=n_items,
                max_new_tokens=max_new_tokens,
                seed=seed,
                batch_size=batch_size,
            )
        found = tune_to_cost(
            lm,
            data,
            candidates,
            chosen,
            kl,
            None if is_single else objective,
            position=position,
            steer_position=steer_position,
            seed=seed,
            batch_size=batch_size,
            progress=screen.note,
        )
    best = found[0]
    document = {"kl": kl, "found": [one.to_json() for one in found]}
    folder.mkdir(exist_ok=True)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_file(folder / FOUND, f"{text}\n".encode())
    _show(screen, found, kl)
    if best.amount is None or best.steerer is None:
        reasons = "; ".join(f"{one.label}, layer {one.layer}: {one.failure}" for one in found[:3])
        raise InvalidInputError(
            f"nothing costs {kl:g} nats a token. {reasons}. Ask for another --kl."
        )
    best.steerer.save(folder / STEERER)
    amount = best.amount
    screen.write(
        f"\nSaved in {folder}. Next:\n  odesteer generate {choice.argument}--steer"
        f" {quote(str(folder / STEERER))} --compare --{amount.quantity} {amount.value:g}"
        ' "A PROMPT"'
    )
    screen.document(
        {
            **document,
            "choice": best.to_json(),
            "files": {"steerer": str(folder / STEERER), "found": str(folder / FOUND)},
            "steerer": describe(best.steerer),
        }
    )


def _show(screen: Screen, found: "Sequence[AtCost]", kl: float) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for heading in ("", "layer", "amount", "KL, nats a token", "value"):
        table.add_column(heading, justify="left" if not heading else "right")
    for one in found:
        if one.amount is None or one.divergence is None:
            table.add_row(one.label, str(one.layer), one.failure, "", "")
            continue
        cost = f"{one.divergence.mean:.3f} ± {one.divergence.standard_error:.3f}"
        value = "" if one.score is None else f"{one.score.value:.3f} ± {one.score.value_error:.3f}"
        table.add_row(one.label, str(one.layer), str(one.amount), cost, value)
    screen.print(table)
