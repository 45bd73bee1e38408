"""Limits on files of steerers: what reading and applying one may cost."""

from dataclasses import dataclass, fields

from odesteer.errors import ArtifactError


@dataclass(frozen=True)
class FileLimits:
    """Bounds that a file is checked against before its tensors are read and anything is run.

    Attributes:
        n_bytes: bytes of all tensors.
        n_tensors: number of tensors.
        n_steps: steps of solvers and other repetitions (`Parametrised.step_parameters`), added up
            over all objects of the file.
        size: any parameter that sets the size of a tensor (`Parametrised.size_parameters`).
        n_header_bytes: bytes of the header, which names the tensors and describes the steerer.
    """

    n_bytes: int = 2**32
    n_tensors: int = 10_000
    n_steps: int = 50_000
    size: int = 2**20
    n_header_bytes: int = 2**22

    def check(self, name: str, value: int, what: str) -> None:
        """Raise `ArtifactError` if ``value`` is above the limit ``name``; ``what`` names it."""
        limit: int = getattr(self, name)
        if value > limit:
            raise ArtifactError(
                f"{what}: {value}, and files may have {limit}. If you trust the file, load it with"
                " odesteer.load(path, limits=None)."
            )


DEFAULT_LIMITS = FileLimits()
NO_LIMITS = FileLimits(*[2**63] * len(fields(FileLimits)))
