"""The command ``lm_eval`` with the model ``odesteer`` added."""

import sys

from odesteer.errors import OdesteerError
from odesteer.evaluation.harness import register


def main() -> int:
    """Run ``lm_eval`` with the arguments of the process; returns the exit code."""
    try:
        register()
        from lm_eval.__main__ import cli_evaluate

        cli_evaluate()
    except OdesteerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
