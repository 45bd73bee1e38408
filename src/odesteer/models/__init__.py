"""Steering a Hugging Face model: its layers, its activations, its generation."""

from odesteer.models.aligned_pairs import fit_aligned
from odesteer.models.architecture.layers import DecoderLayers, find_decoder_layers
from odesteer.models.capture.capturer import Activations
from odesteer.models.divergence import Divergence, NeutralTexts, neutral_prompts
from odesteer.models.fit_in_order import fit_in_order
from odesteer.models.generation.result import Generation
from odesteer.models.jacobians import mean_jacobians
from odesteer.models.provenance_check import ProvenanceWarning
from odesteer.models.steered_model import SteeredModel
from odesteer.models.steering.context import Steering
from odesteer.models.steering.receipts import Receipt
from odesteer.models.steering.threads import SteeringWarning
from odesteer.models.tokens.capture_positions import CAPTURE_POSITIONS
from odesteer.models.tokens.encoding import Encoded
from odesteer.models.transfer import ActivationMap, Transferred, transfer
from odesteer.models.triples import fit_triples, for_request
from odesteer.models.weight_edit import ablate_weights

__all__ = [
    "CAPTURE_POSITIONS",
    "ActivationMap",
    "Activations",
    "DecoderLayers",
    "Divergence",
    "Encoded",
    "Generation",
    "NeutralTexts",
    "ProvenanceWarning",
    "Receipt",
    "SteeredModel",
    "Steering",
    "SteeringWarning",
    "Transferred",
    "ablate_weights",
    "find_decoder_layers",
    "fit_aligned",
    "fit_in_order",
    "fit_triples",
    "for_request",
    "mean_jacobians",
    "neutral_prompts",
    "transfer",
]
