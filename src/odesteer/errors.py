"""Exception classes.

All derive from `OdesteerError`; each also derives from the built-in error a caller would
catch. Messages say what was wrong, with the value, and what to do about it.
"""


class OdesteerError(Exception):
    """Base of every error that odesteer raises on purpose."""


class InvalidInputError(OdesteerError, ValueError):
    """An argument, a tensor or a data row that cannot be used."""


class UnknownNameError(InvalidInputError):
    """A name that is in no registry."""


class NotFittedError(OdesteerError, RuntimeError):
    """An estimator was used before `fit`."""


class ConvergenceError(OdesteerError, RuntimeError):
    """A fit did not converge."""


class ArtifactError(OdesteerError, ValueError):
    """A file that is not a usable steerer artifact."""


class DataError(OdesteerError, ValueError):
    """A data file, row or field that cannot be used."""


class ModelError(OdesteerError, ValueError):
    """A model whose structure, width or name does not fit the request."""


class MissingDependencyError(OdesteerError, ImportError):
    """An optional package is needed and not installed."""


class WeakSignalWarning(UserWarning):
    """A fit that held-out examples do not confirm, or that has no held-out examples."""


class ClusterError(OdesteerError, RuntimeError):
    """A cluster that cannot be reached, is too small, or loses its workers."""
