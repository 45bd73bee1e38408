"""``odesteer push``: share a steerer on the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from odesteer.cli.arguments.options import Debug, Json
from odesteer.cli.errors import UsageError
from odesteer.cli.output.screen import Screen


def push(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A steerer, as fit saves it.")],
    to: Annotated[str, typer.Argument(metavar="NAME", help="owner/name on the hub.")],
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public", help="For a repository that is made now.", show_default=False
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch to push to, made if needed.")
    ] = None,
    message: Annotated[
        str, typer.Option("--message", "-m", metavar="TEXT", help="Of the commit.")
    ] = "Upload steerer",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Share a steerer on the Hugging Face hub.

    A card that tells its origin goes with it. Log in with `hf auth login` or set HF_TOKEN. A NAME
    that is a path (./shared, ~/shared) is a folder of the same shape.
    """
    with Screen(json=json, debug=debug) as screen:
        from odesteer.artifact import load

        steerer = load(file)
        if to.startswith((".", "/", "~")):
            if private is not None or revision is not None:
                raise UsageError(f"{to} is a folder; --private and --revision are for the hub.")
            folder = Path(to).expanduser()
            steerer.save_pretrained(folder)
            address = str(folder)
        else:
            address = steerer.push_to_hub(
                to, private=private, revision=revision, commit_message=message
            )
        screen.rows({"pushed": str(file), "to": address})
        screen.document({"file": str(file), "to": address, "digest": steerer.digest()})
