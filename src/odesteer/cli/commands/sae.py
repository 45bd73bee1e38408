"""``odesteer sae``: train a small sparse autoencoder on captured activations."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odesteer.cli.arguments.options import Debug, Device, Dtype, Force, Json, Revision
from odesteer.cli.arguments.prompts import read_texts
from odesteer.cli.errors import UsageError
from odesteer.cli.help import DATA, TRAINING
from odesteer.cli.model.opening import ModelChoice
from odesteer.cli.output.files import check_new_folder
from odesteer.cli.output.screen import Screen
from odesteer.errors import ArtifactError, InvalidInputError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from odesteer.data import Example
    from odesteer.models import SteeredModel

_ANSWER_TOKENS = 100
_MOST_ROUNDS = 100


def sae(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Id on the Hugging Face hub, a folder or a .gguf."),
    ],
    layer: Annotated[int, typer.Option(min=0, metavar="N", help="The layer, counted from zero.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write it.")
    ],
    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Texts to read, one a line; by default the model's own answers to 120 neutral"
            " prompts.",
            rich_help_panel=DATA,
        ),
    ] = None,
    tokens: Annotated[
        int,
        typer.Option(
            min=100, metavar="N", help="Train on about N tokens.", rich_help_panel=TRAINING
        ),
    ] = 20_000,
    features: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Number of features.", rich_help_panel=TRAINING),
    ] = 2048,
    active: Annotated[
        int,
        typer.Option(
            min=1, metavar="K", help="Features that are on at a token.", rich_help_panel=TRAINING
        ),
    ] = 32,
    epochs: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Passes over the tokens.", rich_help_panel=TRAINING),
    ] = 10,
    seed: Annotated[
        int,
        typer.Option(metavar="N", help="Of texts and training.", rich_help_panel=TRAINING),
    ] = 0,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a small top-k sparse autoencoder on a layer of a model.

    Writes a folder in sae-lens's layout, and names each feature by the tokens on which it is most
    active. A barrier on its features: --param barrier=sae --param barrier.sae=FOLDER of fit.

    odesteer sae ./my-model --layer 13 -o my-sae
    """
    with Screen(json=json, debug=debug) as screen:
        if active > features:
            raise UsageError(f"--active {active} is more than --features {features}.")
        _check_output(output, force=force)
        lines = None if texts is None else read_texts(texts, "--texts")
        choice = ModelChoice(model, revision, device, dtype)
        choice.check_layers([layer], screen)

        from odesteer.autoencoders import named_by_tokens, train_top_k

        with choice.opened(screen) as lm:
            screen.note(f"loaded {lm.model_id}; capturing about {tokens:,} tokens …")
            examples = _own_answers(lm, tokens, seed) if lines is None else _cut(lm, lines, tokens)
            states, ids = _captured(lm, examples, layer)
            words = lm.tokenizer.batch_decode([[token] for token in ids])
            metadata = {
                "model_name": lm.model_id,
                "hook_name": f"blocks.{layer}.hook_resid_post",
                "layer": layer,
            }
        screen.note(f"training {features:,} features on {len(states):,} tokens …")
        trained = train_top_k(
            states,
            features,
            active,
            epochs=epochs,
            seed=seed,
            metadata=metadata,
            progress=lambda epoch, loss: screen.note(f"epoch {epoch}: loss {loss:.4f}"),
        )
        named_by_tokens(trained.autoencoder, states, words).save(output)
        figures = {"explained_variance": trained.explained, "dead_features": trained.dead}
        screen.rows(
            {
                "explained variance": f"{trained.explained:.1%} of held-out activations",
                "dead features": f"{trained.dead:.1%}",
                "left out": f"{trained.n_left_out} activations of outlying norm",
                "saved": str(output),
            }
        )
        screen.write(
            f"\nNext:\n  odesteer fit {model} --data FILE --layer {layer} --param barrier=sae"
            f" --param barrier.sae={output} -o steerer.safetensors"
        )
        screen.document({"saved": str(output), "n_tokens": len(states), **figures})


def _check_output(folder: Path, *, force: bool) -> None:
    check_new_folder(folder)
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise ArtifactError(
            f"{folder} is not empty; choose another folder, or write into it with --force."
        )


def _own_answers(lm: "SteeredModel", n_tokens: int, seed: int) -> "list[Example]":
    """Sampled answers to the neutral prompts, round by round until there are enough tokens."""
    from odesteer.data import Example
    from odesteer.models.divergence import as_question, neutral_prompts

    prompts = [as_question(lm, text) for text in neutral_prompts()]
    lengths = [len(lm.encode(prompt)) for prompt in prompts]
    context = lm.context or max(lengths) + _ANSWER_TOKENS
    room = min(_ANSWER_TOKENS, max(context // 2, context - max(lengths)))
    prompts = [p for p, n in zip(prompts, lengths, strict=True) if n + room <= context]
    if not prompts:
        raise UsageError(
            f"no neutral prompt leaves room for an answer in the model's context of {context}"
            " tokens; give texts (--texts)."
        )
    examples: list[Example] = []
    n = 0
    for round_ in range(_MOST_ROUNDS):
        missing = max(1, -(-(n_tokens - n) // room))
        asked = prompts[:missing]
        answers = lm.generate(
            asked,
            max_new_tokens=room,
            do_sample=True,
            seed=seed + round_,
            batch_size=32,
        )
        for prompt, answer in zip(asked, answers, strict=True):
            example = Example(prompt, answer)  # type: ignore[arg-type]
            with suppress(InvalidInputError):  # its text may take more tokens than it was made of
                n += len(lm.encode_example(example).response)
                examples.append(example)
        if n >= n_tokens:
            return examples
    raise ModelError(
        f"{lm.model_id} wrote {n} tokens in {_MOST_ROUNDS} rounds of answers; give texts (--texts)."
    )


def _cut(lm: "SteeredModel", lines: Sequence[str], n_tokens: int) -> "list[Example]":
    """As many texts as hold the tokens that are wanted."""
    from odesteer.data import Example

    examples, n = [], 0
    for i, line in enumerate(lines, start=1):
        examples.append(Example("", line))
        n += len(lm.encode_example(examples[-1], f"text {i}").response)
        if n >= n_tokens:
            break
    return examples


def _captured(
    lm: "SteeredModel", examples: "Sequence[Example]", layer: int
) -> "tuple[Tensor, list[int]]":
    """The activations of all tokens of the answers or texts `[n, d]`, and the tokens."""
    states = lm.capture(examples, layer, "answer").states[layer]
    encoded = [lm.encode_example(example) for example in examples]
    return states, [one.ids[i] for one in encoded for i in one.response]
