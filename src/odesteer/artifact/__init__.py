"""Steerers: methods bound to a site, sets of them, requests by name, files and the hub.

`Steerer` and `SteererSet` are saved to safetensors files (`format`, `serialization`) and shared
on the Hugging Face hub (`hub`, `card`); `Applied` adds an amount.
"""

from odesteer.artifact.applied import Applied
from odesteer.artifact.layer_control import lqr, pid
from odesteer.artifact.limits import FileLimits
from odesteer.artifact.positions import POSITIONS
from odesteer.artifact.provenance import Provenance
from odesteer.artifact.request import (
    SteererRequest,
    check_name,
    parse_amount,
    parse_requests,
    split_path,
)
from odesteer.artifact.saving import from_pretrained, load, save
from odesteer.artifact.site import PARTS, Site
from odesteer.artifact.steerer import POOLS, Gate, Steerer
from odesteer.artifact.steerer_set import SteererSet

__all__ = [
    "PARTS",
    "POOLS",
    "POSITIONS",
    "Applied",
    "FileLimits",
    "Gate",
    "Provenance",
    "Site",
    "Steerer",
    "SteererRequest",
    "SteererSet",
    "check_name",
    "from_pretrained",
    "load",
    "lqr",
    "parse_amount",
    "parse_requests",
    "pid",
    "save",
    "split_path",
]
