"""What ``odesteer fit`` takes for training end to end: cost, distillation, prompts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from odesteer.cli.errors import UsageError, checking_usage

if TYPE_CHECKING:
    from odesteer.methods import Method

END_TO_END = "end-to-end"


def trained_method(
    name: str | None, params: Sequence[str], seed: int, kl: float | None, distil: str | None
) -> "Method":
    """The method that the options name; ``kl`` and ``distil`` are for `EndToEnd` alone.

    Raises `UsageError` for another method beside them.
    """
    from odesteer.cli.arguments.parameters import build_method
    from odesteer.methods import Distillation, EndToEnd

    given = [f"--{o}" for o, value in (("kl", kl), ("distil", distil)) if value is not None]
    if given and name not in (None, END_TO_END):
        raise UsageError(
            f"{given[0]} is for barriers learned through the model; write --method {END_TO_END},"
            f" not --method {name}."
        )
    name = name or (END_TO_END if given else "odesteer")
    with checking_usage():
        method = build_method(name, params, seed)
        if kl is not None:
            method = method.with_params(kl=kl)
        if distil is not None:
            method = method.with_params(objective=Distillation(distil))
        if isinstance(method, EndToEnd):
            method.check()
    return method
