"""``python -m odesteer``, the same as the command ``odesteer``."""

import sys

from odesteer.cli import main

sys.exit(main())
