"""The option ``--watermark`` of several commands."""

from typing import Any

from odesteer.cli.errors import checking_usage


def read_watermark(text: str | None) -> Any:
    """The watermarking configuration of transformers that the option names; None without one.

    Raises `UsageError` where it names none.
    """
    if text is None:
        return None
    from odesteer.models.generation.watermark import watermarking_config

    with checking_usage():
        return watermarking_config(text)
