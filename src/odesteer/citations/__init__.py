"""References of methods, barriers and solvers, as BibTeX (`citation`)."""

from odesteer.citations.citing import citation, reference_keys

__all__ = ["citation", "reference_keys"]
