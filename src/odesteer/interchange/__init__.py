"""Exchange with other projects: control vectors in GGUF, plain tensors, lm-eval's steered models.

`read_steerer` reads files of others; `ControlVector` is one vector for each layer, which is what a
steerer of constant displacement comes down to.
"""

from odesteer.interchange.control_vector import ControlVector
from odesteer.interchange.gguf_file import read_gguf, write_gguf
from odesteer.interchange.lm_eval import write_lm_eval
from odesteer.interchange.mean_displacement import MeanDisplacement, mean_displacement
from odesteer.interchange.reading import read_steerer

__all__ = [
    "ControlVector",
    "MeanDisplacement",
    "mean_displacement",
    "read_gguf",
    "read_steerer",
    "write_gguf",
    "write_lm_eval",
]
