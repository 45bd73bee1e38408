"""SteererSet: several steerers at distinct sites, saved and applied together."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from typing_extensions import Self

from odesteer.artifact.base import Artifact
from odesteer.artifact.format import Content
from odesteer.artifact.site import Site
from odesteer.artifact.steerer import Steerer, content_of, steerers_in
from odesteer.errors import ArtifactError, InvalidInputError, OdesteerError


@dataclass(frozen=True, init=False)
class SteererSet(Artifact):
    """Steerers at several sites of a model, used, saved and shared as one.

    A model takes it wherever it takes a `Steerer`. An amount applies to each of its steerers;
    without one each takes the default of its own method. They are sorted in the order in which a
    forward pass reaches their sites.

    Raises `InvalidInputError` for a steerer without a site, for two at the same site, and for none.
    """

    steerers: tuple[Steerer, ...]

    def __init__(self, steerers: Iterable[Steerer]) -> None:
        given = tuple(steerers)
        if not given:
            raise InvalidInputError("a set of steerers holds at least one.")
        for steerer in given:
            if not isinstance(steerer, Steerer):
                raise InvalidInputError(f"a set holds steerers, not {steerer!r:.80}.")
            if steerer.site is None:
                raise InvalidInputError(
                    "a steerer in a set needs a site, as in Steerer(method, Site(layer=13))."
                )
        ordered = tuple(sorted(given, key=_sort_key))
        for one, other in pairwise(ordered):
            if one.site == other.site:
                raise InvalidInputError(
                    f"two steerers of the set are at the same site ({one.site}); compose them"
                    " into one method, or apply them one after another."
                )
        object.__setattr__(self, "steerers", ordered)

    def __len__(self) -> int:
        return len(self.steerers)

    def __iter__(self) -> Iterator[Steerer]:
        return iter(self.steerers)

    def __getitem__(self, index: int) -> Steerer:
        return self.steerers[index]

    @property
    def members(self) -> tuple[Steerer, ...]:
        return self.steerers

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(steerer.site for steerer in self.steerers if steerer.site is not None)

    @property
    def quantities(self) -> tuple[str, ...]:
        """The quantities of an amount that all methods have, in the order of the first method."""
        first, *rest = (steerer.method.quantities for steerer in self.steerers)
        return tuple(name for name in first if all(name in others for others in rest))

    def when(
        self,
        condition: Steerer,
        *,
        below: float | None = None,
        above: float | None = None,
        pool: str = "last",
    ) -> "SteererSet":
        """A copy that acts only on rows whose prompt meets a condition, see `Gate`."""
        return SteererSet(
            steerer.when(condition, below=below, above=above, pool=pool) for steerer in self
        )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "SteererSet":
        """A copy whose floating-point tensors are on ``device`` in ``dtype``."""
        return SteererSet(steerer.to(device, dtype) for steerer in self)

    def content(self) -> Content:
        return content_of(self.steerers, is_set=True)

    @classmethod
    def restored(cls, content: Content) -> Self:
        if not content.is_set:
            raise ArtifactError("it holds one steerer, no set; open it with odesteer.load.")
        try:
            return cls(steerers_in(content))
        except ArtifactError:
            raise
        except OdesteerError as error:
            raise ArtifactError(str(error)) from None


def _sort_key(steerer: Steerer) -> tuple[tuple[int, int], str]:
    site = steerer.site
    return ((-1, 0), "") if site is None else (site.depth, site.position)
