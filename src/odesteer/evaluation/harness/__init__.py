"""Steered models for lm-evaluation-harness (the package ``lm_eval``).

``lm_eval`` finds models in a registry of its own and reads no entry points, so something has to
put ours there: ``python -m odesteer.evaluation.harness`` in place of the command ``lm_eval``, or
`register` in Python.
"""

from odesteer.evaluation.harness.registering import NAME, register

__all__ = ["NAME", "register"]
