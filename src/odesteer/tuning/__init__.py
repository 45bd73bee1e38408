"""Selection of layer, amount and parameters of a method under a fluency budget."""

from odesteer.tuning.ablation_choice import AblationChoice, choose_ablation
from odesteer.tuning.at_cost import AtCost, tune_to_cost
from odesteer.tuning.cost_search import CostSearch
from odesteer.tuning.heat_map import heat_map
from odesteer.tuning.layer_rules import early_layers, layers_by_rule, opposite_sign_layers
from odesteer.tuning.objectives.base import Measurement, Objective, Score
from odesteer.tuning.objectives.factories import PROXIES, from_data, from_world
from odesteer.tuning.objectives.generated_texts import SAMPLING, TextJudge, WrittenTexts
from odesteer.tuning.objectives.likelihood_margin import LikelihoodMargin
from odesteer.tuning.objectives.reading_judge import ReadingJudge
from odesteer.tuning.run import BUDGET, Tuning, TuningProgress, tune
from odesteer.tuning.search.grid import AMOUNTS, Candidate, Setting, coarse_layers
from odesteer.tuning.search.results import SearchResults, SettingResult
from odesteer.tuning.search.search import MeasurementRequest, Search
from odesteer.tuning.search.successive_halving import Halving

__all__ = [
    "AMOUNTS",
    "BUDGET",
    "PROXIES",
    "SAMPLING",
    "AblationChoice",
    "AtCost",
    "Candidate",
    "CostSearch",
    "Halving",
    "LikelihoodMargin",
    "Measurement",
    "MeasurementRequest",
    "Objective",
    "ReadingJudge",
    "Score",
    "Search",
    "SearchResults",
    "Setting",
    "SettingResult",
    "TextJudge",
    "Tuning",
    "TuningProgress",
    "WrittenTexts",
    "choose_ablation",
    "coarse_layers",
    "early_layers",
    "from_data",
    "from_world",
    "heat_map",
    "layers_by_rule",
    "opposite_sign_layers",
    "tune",
    "tune_to_cost",
]
