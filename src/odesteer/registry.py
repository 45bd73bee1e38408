"""Registry: classes by name, imported on first use, with entry points of plugins."""

import difflib
import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar, cast

from odesteer.errors import InvalidInputError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names mapped to ``"module:Class"`` paths that are imported on first use.

    Listing the names imports nothing. Third parties register a class under
    ``entry_point_group`` in their package metadata; entries that clash with a name or are
    malformed are left out with a warning.
    """

    def __init__(
        self, kind: str, paths: dict[str, str], entry_point_group: str | None = None
    ) -> None:
        self.kind = kind
        self._paths = dict(paths)
        self._group = entry_point_group
        self._plugins_read = entry_point_group is None

    def register(self, name: str, path: str) -> None:
        """Add a name. Raises `InvalidInputError` if it is malformed or taken."""
        self._read_plugins()
        self._add(name, path)

    def get(self, name: str) -> type[T]:
        """The class called ``name``. Raises `UnknownNameError` with the nearest names."""
        self._read_plugins()
        if name not in self._paths:
            near = difflib.get_close_matches(str(name).lower(), self._paths, n=3, cutoff=0.5)
            hint = f" Did you mean {', '.join(map(repr, near))}?" if near else ""
            known = ", ".join(self)
            raise UnknownNameError(f"unknown {self.kind} {name!r}.{hint} Known: {known}.")
        module, _, attribute = self._paths[name].partition(":")
        return cast("type[T]", getattr(import_module(module), attribute))

    def name_of(self, cls: type[Any]) -> str:
        """The registered name of a class. Raises `UnknownNameError` if it has none."""
        self._read_plugins()
        path = f"{cls.__module__}:{cls.__qualname__}"
        for name, known in self._paths.items():
            if known == path:
                return name
        raise UnknownNameError(
            f"{cls.__qualname__} is not a registered {self.kind}; register it first with"
            f" registry.register(name, {path!r}) or an entry point."
        )

    def __iter__(self) -> Iterator[str]:
        self._read_plugins()
        return iter(sorted(self._paths))

    def __contains__(self, name: object) -> bool:
        self._read_plugins()
        return name in self._paths

    def _add(self, name: str, path: str) -> None:
        if not name or name != name.lower() or not name.replace("-", "").isalnum():
            raise InvalidInputError(
                f"{self.kind} name {name!r} must be lower case letters, digits and hyphens."
            )
        module, _, attribute = path.partition(":")
        if not module or not attribute:
            raise InvalidInputError(f"{self.kind} path {path!r} must read 'package.module:Class'.")
        if self._paths.get(name, path) != path:
            raise InvalidInputError(
                f"{self.kind} {name!r} is already {self._paths[name]!r}; choose another name."
            )
        self._paths[name] = path

    def _read_plugins(self) -> None:
        if self._plugins_read:
            return
        self._plugins_read = True
        for entry in entry_points(group=self._group or ""):
            try:
                self._add(entry.name, entry.value)
            except InvalidInputError as error:  # somebody else's; the others must go on
                warnings.warn(
                    f"an installed package's entry point of the group {self._group} is left out:"
                    f" {error}",
                    stacklevel=3,
                )
