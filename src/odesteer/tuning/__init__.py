"""Selecting layer, amount and parameters of a method under a fluency budget."""

from odesteer.tuning.grid import AMOUNTS, Candidate, Cell, coarse_layers
from odesteer.tuning.halving import Halving
from odesteer.tuning.heat_map import heat_map
from odesteer.tuning.margin import LikelihoodMargin
from odesteer.tuning.measurement import Measurement, Score
from odesteer.tuning.objective import Objective
from odesteer.tuning.reading import ReadingJudge
from odesteer.tuning.run import BUDGET, Progress, Tuning, tune
from odesteer.tuning.search import Ask, Search
from odesteer.tuning.sources import PROXIES, from_data, from_world
from odesteer.tuning.surface import Row, Surface
from odesteer.tuning.written import SAMPLING, TextJudge, WrittenTexts

__all__ = [
    "AMOUNTS",
    "BUDGET",
    "PROXIES",
    "SAMPLING",
    "Ask",
    "Candidate",
    "Cell",
    "Halving",
    "LikelihoodMargin",
    "Measurement",
    "Objective",
    "Progress",
    "ReadingJudge",
    "Row",
    "Score",
    "Search",
    "Surface",
    "TextJudge",
    "Tuning",
    "WrittenTexts",
    "coarse_layers",
    "from_data",
    "from_world",
    "heat_map",
    "tune",
]
