"""Texts, a batch of prompts a job."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from odesteer.cluster.worker import Shared
from odesteer.models import SteeredModel
from odesteer.models.encoding import Prompt
from odesteer.models.rows import rows_of


@dataclass(frozen=True)
class Batch:
    """Prompts that are continued together.

    Attributes:
        prompts: them.
        rows: where they stand among all prompts.
        options: what else `SteeredModel.generate` is told.
    """

    prompts: Sequence[Prompt]
    rows: slice
    options: dict[str, Any]


def write(lm: SteeredModel, batch: Batch, shared: Shared) -> list[Any]:
    """The texts of a batch; shared are the steerers of all prompts."""
    steerers = shared[0]
    own = None if steerers is None else rows_of(steerers, batch.rows)
    return lm.generate(batch.prompts, own, **batch.options)
