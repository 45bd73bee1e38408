"""Which references each registered class has; the keys of ``references.bib``.

The first of each is where it comes from; then come the works that a result with it rests on, and
prior art with the same idea.
"""

from collections.abc import Mapping

# Control barriers over hidden states are also BarrierSteer; gradients of learned scores as fields
# are also SVF and K-Steering.
_FLOW = ("zhao2026odesteer", "tran2026barriersteer", "li2026svf", "oozeer2025ksteering")

METHODS: Mapping[str, tuple[str, ...]] = {
    "odesteer": _FLOW,
    "one-step": ("zhao2026odesteer",),
    "caa": ("rimsky2024caa",),
    "repe": ("zou2023repe",),
    "iti": ("li2023iti",),
    "head-iti": ("li2023iti",),
    "mimic": ("singh2024mimic",),
    "linear-act": ("rodriguez2025linearact",),
    "hpr": ("pham2024hpr",),
    "recontrol": ("kong2024recontrol",),
    "truthflow": ("wang2025truthflow",),
    "query-truthflow": ("wang2025truthflow",),
    "angular": ("vu2025angular", "dang2026selective"),
    "norm-preserving": ("zhao2026odesteer",),
    "spherical": ("you2026spherical",),
    "spherical-steering": ("you2026spherical",),
    "conditional": ("lee2025cast", "dalili2026cobras"),
    "sum": ("zhao2026odesteer",),
    "end-to-end": (
        "zhao2026odesteer",
        "cao2024bipo",
        "kong2024recontrol",
        "rafailov2023dpo",
        "loshchilov2019adamw",
    ),
    "ablation": ("arditi2024refusal", "marshall2024affine"),
    "two-sided": ("zhao2026odesteer", "arditi2024refusal", "marshall2024affine"),
    "least-intervention": ("zhao2026odesteer", "tran2026barriersteer", "ames2019cbf"),
    "setpoint": ("skifstad2026alqr",),
    "bridge": ("dalili2026cobras",),
    "gated-direction": ("sheng2025alphasteer",),
    "subspace-map": ("wu2024reft", "singh2024mimic"),
}

_RATIO = ("zhao2026odesteer", "sugiyama2012density")

BARRIERS: Mapping[str, tuple[str, ...]] = {
    "linear": (*_RATIO, "platt1999probabilistic"),
    "logistic-probe": ("li2023iti",),
    "homogeneous": ("pham2024hpr",),
    "mean-difference": ("rimsky2024caa",),
    "linear-discriminant": ("hastie2009elements", "ledoit2004covariance"),
    "quadratic-discriminant": ("singh2024mimic", "hastie2009elements", "ledoit2004covariance"),
    "principal-difference": ("zou2023repe",),
    "heads": ("li2023iti",),
    "polynomial": (*_RATIO, "pham2013tensorsketch", "platt1999probabilistic"),
    "tensor-sketch": ("zhao2026odesteer", "pham2013tensorsketch"),
    "random-fourier": ("zhao2026odesteer", "rahimi2007random"),
    "neural": (*_RATIO, "li2026svf", "oozeer2025ksteering", "loshchilov2019adamw"),
    "value": ("kong2024recontrol",),
    "sae": (
        "zhao2026odesteer",
        "cunningham2024sparse",
        "gao2025scaling",
        "rajamanoharan2024jumprelu",
    ),
    "product": ("zhao2026odesteer", "oozeer2025ksteering"),
    "minimum": ("tran2026barriersteer", "ames2019cbf"),
    "frozen": ("zhao2026odesteer",),
    "multi-label": ("oozeer2025ksteering", "zhao2026odesteer"),
    "neighbours": ("dalili2026cobras",),
    "shared-projection": ("li2026svf", "zhao2026odesteer"),
    "projected": ("zhao2026odesteer", "li2026svf"),
    "linear-potential": ("cao2024bipo",),
    "gated-potential": ("zhao2026odesteer",),
    "quadratic-potential": ("zhao2026odesteer",),
    "neural-potential": ("zhao2026odesteer",),
}

SOLVERS: Mapping[str, tuple[str, ...]] = {
    "euler": ("hairer1993ode",),
    "midpoint": ("hairer1993ode",),
    "rk4": ("kutta1901", "hairer1993ode"),
    "three-eighths": ("kutta1901", "hairer1993ode"),
    "bogacki-shampine": ("bogacki1989",),
    "geodesic": ("you2026spherical", "hairer2006geometric"),
    "certified": ("ames2019cbf", "tran2026barriersteer"),
}

METRICS: Mapping[str, tuple[str, ...]] = {
    "euclidean": (),
    "covariance": ("amari1998natural", "ledoit2004covariance"),
    "null-space": ("sheng2025alphasteer",),
    "matrix": ("amari1998natural",),
}

FAMILIES = {"method": METHODS, "barrier": BARRIERS, "solver": SOLVERS, "metric": METRICS}
