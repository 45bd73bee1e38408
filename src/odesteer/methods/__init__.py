"""Steering methods: the base class, one file for each method, the registry."""

from odesteer.methods.ablation import Ablation
from odesteer.methods.amount import QUANTITIES, Amount
from odesteer.methods.angular import Angular
from odesteer.methods.base import Method, Prepared
from odesteer.methods.bridge import Bridge
from odesteer.methods.conditional import Conditional
from odesteer.methods.constant import CAA, ITI, RepE
from odesteer.methods.end_to_end import EndToEnd
from odesteer.methods.gated_direction import GatedDirection
from odesteer.methods.head_iti import HeadITI
from odesteer.methods.hpr import HPR
from odesteer.methods.least_intervention import LeastIntervention
from odesteer.methods.linear_act import LinearAcT
from odesteer.methods.mimic import MiMiC
from odesteer.methods.norm_preserving import NormPreserving
from odesteer.methods.objectives import (
    Distillation,
    Likelihood,
    Preference,
    Reward,
    TrainingObjective,
)
from odesteer.methods.odesteer import ODESteer
from odesteer.methods.one_step import OneStep
from odesteer.methods.query_truthflow import QueryTruthFlow
from odesteer.methods.recontrol import REControl
from odesteer.methods.setpoint import Setpoint
from odesteer.methods.spherical import Spherical
from odesteer.methods.spherical_steering import SphericalSteering
from odesteer.methods.subspace_map import SubspaceMap
from odesteer.methods.sum import Sum
from odesteer.methods.truthflow import TruthFlow
from odesteer.methods.two_sided import TwoSided
from odesteer.methods.wrapper import Wrapper
from odesteer.registry import Registry

registry: Registry[Method] = Registry(
    "method",
    {
        "odesteer": "odesteer.methods.odesteer:ODESteer",
        "end-to-end": "odesteer.methods.end_to_end:EndToEnd",
        "one-step": "odesteer.methods.one_step:OneStep",
        "caa": "odesteer.methods.constant:CAA",
        "repe": "odesteer.methods.constant:RepE",
        "iti": "odesteer.methods.constant:ITI",
        "head-iti": "odesteer.methods.head_iti:HeadITI",
        "mimic": "odesteer.methods.mimic:MiMiC",
        "linear-act": "odesteer.methods.linear_act:LinearAcT",
        "hpr": "odesteer.methods.hpr:HPR",
        "recontrol": "odesteer.methods.recontrol:REControl",
        "truthflow": "odesteer.methods.truthflow:TruthFlow",
        "query-truthflow": "odesteer.methods.query_truthflow:QueryTruthFlow",
        "angular": "odesteer.methods.angular:Angular",
        "norm-preserving": "odesteer.methods.norm_preserving:NormPreserving",
        "spherical": "odesteer.methods.spherical:Spherical",
        "spherical-steering": "odesteer.methods.spherical_steering:SphericalSteering",
        "ablation": "odesteer.methods.ablation:Ablation",
        "two-sided": "odesteer.methods.two_sided:TwoSided",
        "least-intervention": "odesteer.methods.least_intervention:LeastIntervention",
        "setpoint": "odesteer.methods.setpoint:Setpoint",
        "bridge": "odesteer.methods.bridge:Bridge",
        "gated-direction": "odesteer.methods.gated_direction:GatedDirection",
        "conditional": "odesteer.methods.conditional:Conditional",
        "sum": "odesteer.methods.sum:Sum",
        "subspace-map": "odesteer.methods.subspace_map:SubspaceMap",
    },
    entry_point_group="odesteer.methods",
)
objective_registry: Registry[TrainingObjective] = Registry(
    "objective",
    {
        "preference": "odesteer.methods.objectives:Preference",
        "likelihood": "odesteer.methods.objectives:Likelihood",
        "distillation": "odesteer.methods.objectives:Distillation",
        "reward": "odesteer.methods.objectives:Reward",
    },
)

__all__ = [
    "CAA",
    "HPR",
    "ITI",
    "QUANTITIES",
    "Ablation",
    "Amount",
    "Angular",
    "Bridge",
    "Conditional",
    "Distillation",
    "EndToEnd",
    "GatedDirection",
    "HeadITI",
    "LeastIntervention",
    "Likelihood",
    "LinearAcT",
    "Method",
    "MiMiC",
    "NormPreserving",
    "ODESteer",
    "OneStep",
    "Preference",
    "Prepared",
    "QueryTruthFlow",
    "REControl",
    "RepE",
    "Reward",
    "Setpoint",
    "Spherical",
    "SphericalSteering",
    "SubspaceMap",
    "Sum",
    "TrainingObjective",
    "TruthFlow",
    "TwoSided",
    "Wrapper",
    "objective_registry",
    "registry",
]
