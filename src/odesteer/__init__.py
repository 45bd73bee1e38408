"""Activation steering of large language models as an ODE along a barrier function.

Names are imported on first use, so that ``import odesteer`` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from odesteer.version import __version__ as __version__

if TYPE_CHECKING:
    from odesteer.artifact import Gate as Gate
    from odesteer.artifact import Provenance as Provenance
    from odesteer.artifact import Site as Site
    from odesteer.artifact import Steerer as Steerer
    from odesteer.artifact import SteererSet as SteererSet
    from odesteer.artifact import load as load
    from odesteer.artifact import save as save
    from odesteer.barriers import LinearBarrier as LinearBarrier
    from odesteer.barriers import PolynomialBarrier as PolynomialBarrier
    from odesteer.citations import citation as citation
    from odesteer.data import ContrastData as ContrastData
    from odesteer.data import Example as Example
    from odesteer.data import Message as Message
    from odesteer.data import load_contrast as load_contrast
    from odesteer.errors import OdesteerError as OdesteerError
    from odesteer.methods import CAA as CAA
    from odesteer.methods import HPR as HPR
    from odesteer.methods import ITI as ITI
    from odesteer.methods import Ablation as Ablation
    from odesteer.methods import Amount as Amount
    from odesteer.methods import Angular as Angular
    from odesteer.methods import Bridge as Bridge
    from odesteer.methods import Conditional as Conditional
    from odesteer.methods import Distillation as Distillation
    from odesteer.methods import EndToEnd as EndToEnd
    from odesteer.methods import GatedDirection as GatedDirection
    from odesteer.methods import HeadITI as HeadITI
    from odesteer.methods import LeastIntervention as LeastIntervention
    from odesteer.methods import Likelihood as Likelihood
    from odesteer.methods import LinearAcT as LinearAcT
    from odesteer.methods import Method as Method
    from odesteer.methods import MiMiC as MiMiC
    from odesteer.methods import NormPreserving as NormPreserving
    from odesteer.methods import ODESteer as ODESteer
    from odesteer.methods import OneStep as OneStep
    from odesteer.methods import Preference as Preference
    from odesteer.methods import QueryTruthFlow as QueryTruthFlow
    from odesteer.methods import REControl as REControl
    from odesteer.methods import RepE as RepE
    from odesteer.methods import Reward as Reward
    from odesteer.methods import Setpoint as Setpoint
    from odesteer.methods import Spherical as Spherical
    from odesteer.methods import SphericalSteering as SphericalSteering
    from odesteer.methods import SubspaceMap as SubspaceMap
    from odesteer.methods import Sum as Sum
    from odesteer.methods import TruthFlow as TruthFlow
    from odesteer.methods import TwoSided as TwoSided
    from odesteer.models import SteeredModel as SteeredModel


_HOMES = {
    "Ablation": "odesteer.methods",
    "Amount": "odesteer.methods",
    "Angular": "odesteer.methods",
    "Bridge": "odesteer.methods",
    "CAA": "odesteer.methods",
    "Conditional": "odesteer.methods",
    "ContrastData": "odesteer.data",
    "Distillation": "odesteer.methods",
    "EndToEnd": "odesteer.methods",
    "Example": "odesteer.data",
    "Gate": "odesteer.artifact",
    "GatedDirection": "odesteer.methods",
    "HPR": "odesteer.methods",
    "HeadITI": "odesteer.methods",
    "ITI": "odesteer.methods",
    "Likelihood": "odesteer.methods",
    "LeastIntervention": "odesteer.methods",
    "LinearAcT": "odesteer.methods",
    "LinearBarrier": "odesteer.barriers",
    "Message": "odesteer.data",
    "Method": "odesteer.methods",
    "MiMiC": "odesteer.methods",
    "NormPreserving": "odesteer.methods",
    "ODESteer": "odesteer.methods",
    "OdesteerError": "odesteer.errors",
    "OneStep": "odesteer.methods",
    "PolynomialBarrier": "odesteer.barriers",
    "Preference": "odesteer.methods",
    "Provenance": "odesteer.artifact",
    "QueryTruthFlow": "odesteer.methods",
    "REControl": "odesteer.methods",
    "RepE": "odesteer.methods",
    "Reward": "odesteer.methods",
    "Setpoint": "odesteer.methods",
    "Site": "odesteer.artifact",
    "Spherical": "odesteer.methods",
    "SteeredModel": "odesteer.models",
    "SphericalSteering": "odesteer.methods",
    "Steerer": "odesteer.artifact",
    "SteererSet": "odesteer.artifact",
    "SubspaceMap": "odesteer.methods",
    "Sum": "odesteer.methods",
    "TruthFlow": "odesteer.methods",
    "citation": "odesteer.citations",
    "TwoSided": "odesteer.methods",
    "load": "odesteer.artifact",
    "load_contrast": "odesteer.data",
    "save": "odesteer.artifact",
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'odesteer' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
