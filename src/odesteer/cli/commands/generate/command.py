"""``odesteer generate``: continue prompts with a steered model."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from odesteer.cli.arguments.options import (
    STEER_POSITION_HELP,
    ArcLength,
    ChatTemplateKwargs,
    Debug,
    Device,
    Dtype,
    Interpolation,
    Json,
    Level,
    Revision,
    Strength,
    Watermark,
    checked_position,
)
from odesteer.cli.arguments.prompts import model_and_prompts, read_prompts
from odesteer.cli.errors import UsageError
from odesteer.cli.help import GENERATION, MACHINE, STEERING
from odesteer.cli.model.opening import ModelChoice, has_form_of_hub_id
from odesteer.cli.output.screen import Screen
from odesteer.cli.output.text import format_nats, readable, side_by_side, without_controls

if TYPE_CHECKING:
    from odesteer.cli.arguments.steerers import SteererFromFile
    from odesteer.cli.commands.generate.generator import SteeredText, SteererReceipt


def generate(
    model_and_texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] PROMPT...",
            help="Texts to continue; \\n in them is a line end, - reads them from stdin, one a"
            " line. If the first is a folder, or the owner/name of a model, it is the model;"
            " otherwise that is the bundled one.",
            show_default=False,
        ),
    ] = None,
    steer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[@AMOUNT]",
            help="A steerer that fit saved, and how much it steers: @1.5 in the method's own"
            " quantity, or @T=5, @strength=2. Repeat it for several at once.",
            rich_help_panel=STEERING,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="The model; then all words are prompts.", rich_help_panel=MACHINE
        ),
    ] = None,
    level: Level = None,
    T: ArcLength = None,
    strength: Strength = None,
    interpolation: Interpolation = None,
    position: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS",
            help=f"Which tokens to steer, instead of what the file says: {STEER_POSITION_HELP}",
            rich_help_panel=STEERING,
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Show the unsteered text beside the steered one.",
            rich_help_panel=STEERING,
        ),
    ] = False,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Show the text as it arises, for one prompt.",
            rich_help_panel=GENERATION,
        ),
    ] = False,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="The most tokens to write.  [default: 128]",
            rich_help_panel=GENERATION,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Of the sampling.  [default: 0.7]", rich_help_panel=GENERATION
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Sample from this share of the mass.  [default: 0.9]",
            rich_help_panel=GENERATION,
        ),
    ] = None,
    greedy: Annotated[
        bool,
        typer.Option(
            "--greedy",
            help="Take the likeliest token instead of sampling.",
            rich_help_panel=GENERATION,
        ),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Of the sampling.  [default: 0]", rich_help_panel=GENERATION
        ),
    ] = None,
    watermark: Watermark = None,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat",
            help="Put each prompt to the model as a user's message.",
            rich_help_panel=GENERATION,
        ),
    ] = False,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Take backslashes in prompts as they are.", rich_help_panel=GENERATION
        ),
    ] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Prompts at a time.", rich_help_panel=MACHINE)
    ] = 16,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    chat_template_kwargs: ChatTemplateKwargs = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Continue prompts with a steered model.

    Examples:

    odesteer generate --steer truth.safetensors --compare "Q: Who makes honey?\\nA:"

    odesteer generate Qwen/Qwen2.5-0.5B --steer a.safetensors@2 --steer b.safetensors@T=5 "Once"
    """
    with Screen(json=json, debug=debug) as screen:
        name, rest = model_and_prompts(model_and_texts or [], model)
        prompts = read_prompts(rest, raw=raw)
        if name is None and has_form_of_hub_id(rest[0]):
            screen.note(
                f"{rest[0]!r} is taken for a prompt; if it is a model, name it: --model {rest[0]}"
            )
        if compare and not steer:
            raise UsageError("--compare needs a steerer to compare with; name one with --steer.")
        if stream and json:
            raise UsageError("--stream is for people and --json for machines; leave out one.")
        if stream and len(prompts) > 1:
            raise UsageError(f"--stream shows one prompt, not {len(prompts)}; leave it out.")
        choice = ModelChoice(name, revision, device, dtype, chat_template_kwargs)

        from odesteer.cli.arguments.steerers import one_amount, read_steerers
        from odesteer.cli.arguments.watermark import read_watermark
        from odesteer.cli.commands.generate.generator import TextGenerator, sampling_options

        sampling = sampling_options(temperature, top_p, seed, greedy)
        mark = read_watermark(watermark)
        amount = one_amount(level, T, strength, interpolation)
        if amount is not None and not steer:
            raise UsageError(f"--{amount.quantity} needs a steerer; name one with --steer FILE.")
        if position is not None:
            position = checked_position(position)
        steerers = read_steerers(steer or [], amount, position)
        _check_model(choice, steerers)
        choice.n_layers(screen)
        with choice.opened(screen) as lm:
            generator = TextGenerator(
                lm, prompts, sampling, max_new_tokens, batch_size, chat=chat, watermark=mark
            )
            show = _TextStream(screen, prompts[0], compare) if stream else None
            unsteered = None
            if compare:
                observing = [each.without_effect() for each in steerers]
                unsteered = generator.generate(observing, show.begin("unsteered") if show else None)
            steered = generator.generate(steerers, show.begin("steered") if show else None)
            model_id = lm.model_id
        if show is not None:
            show.end()
        for i, prompt in enumerate(prompts):
            if show is None:
                _show(screen, prompt, steerers, steered[i], unsteered[i] if unsteered else None)
            if show is not None or unsteered is None:
                for each, receipt in zip(steerers, steered[i].receipts, strict=True):
                    screen.note(f"{each}: {_format_receipt(receipt)}")
        screen.document(
            {
                "model": model_id,
                "steerers": [each.to_json() for each in steerers],
                "sampling": {
                    **asdict(sampling),
                    "max_new_tokens": generator.max_new_tokens,
                    "watermarked": mark is not None,
                },
                "results": [
                    {
                        "prompt": prompt,
                        **steered[i].to_json(),
                        **({} if unsteered is None else {"unsteered": unsteered[i].to_json()}),
                    }
                    for i, prompt in enumerate(prompts)
                ],
            }
        )


def _check_model(choice: ModelChoice, steerers: "Sequence[SteererFromFile]") -> None:
    """Raise `UsageError` for steerers of another model where no model is named."""
    if choice.name is not None:
        return
    bundled = Path(choice.source).name
    for each in steerers:
        fitted_on = each.steerer.members[0].provenance.model_id
        if fitted_on is not None and fitted_on != bundled:
            raise UsageError(
                f"{each.file} was fitted on the model {fitted_on!r}, and no MODEL is named, so that"
                " the bundled one would be steered; name it: odesteer generate MODEL"
                f" --steer {each.file} PROMPT"
            )


class _TextStream:
    """Shows one text, or two after each other, while they are generated."""

    def __init__(self, screen: Screen, prompt: str, named: bool) -> None:
        self._screen = screen
        self._prompt = Text(prompt, style="dim")
        self._named = named
        self._begun = False

    def begin(self, name: str) -> Callable[[int, str], None]:
        """The callback for the pieces of the text called ``name``."""
        if self._begun:
            self._screen.write("\n")
        self._begun = True
        if self._named:
            self._screen.print(Text(f"── {name} ──", style="bold"))
        self._screen.out.print(self._prompt, end="", soft_wrap=True)
        return lambda row, piece: self._screen.write(without_controls(piece), end="")

    def end(self) -> None:
        self._screen.write("")


def _show(
    screen: Screen,
    prompt: str,
    steerers: "Sequence[SteererFromFile]",
    steered: "SteeredText",
    unsteered: "SteeredText | None",
) -> None:
    if unsteered is None:
        screen.print_unwrapped(
            Text.assemble((prompt, "dim"), without_controls(steered.text).rstrip("\n"))
        )
        return
    amounts = ", ".join(str(each.amount) for each in steerers)
    both = {"unsteered": unsteered, f"steered, {amounts}": steered}
    screen.print(
        Text(prompt, style="italic"),
        side_by_side(
            {heading: readable(each.text) for heading, each in both.items()},
            {heading: _receipts(each) for heading, each in both.items()},
        ),
        "",
    )


def _receipts(text: "SteeredText") -> Text:
    """The receipts of all steerers, a line each."""
    return Text("\n".join(map(_format_receipt, text.receipts)), style="dim")


def _format_receipt(receipt: "SteererReceipt") -> str:
    if receipt.is_open is False:
        return f"left alone: its condition finds h {format_nats(receipt.condition or 0.0)} nats"
    if receipt.before is None or receipt.after is None:
        return f"{receipt.moved} tokens"
    before, after = format_nats(receipt.before), format_nats(receipt.after)
    moved = f"{before} nats" if before == after else f"{before} → {after} nats"
    return f"mean h {moved} over {receipt.moved} tokens{_format_exceptions(receipt)}"


def _format_exceptions(receipt: "SteererReceipt") -> str:
    text = ""
    if receipt.capped:
        text += f", {receipt.capped} at the cap before their level"
    if receipt.unusable:
        text += f", {receipt.unusable} zero or not finite and left alone"
    return text
