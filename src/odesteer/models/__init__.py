"""Steering a Hugging Face model: its layers, its activations, its generation."""

from odesteer.models.capture import Activations
from odesteer.models.captured_tokens import CAPTURE_POSITIONS
from odesteer.models.encoding import Encoded
from odesteer.models.generation import Generation
from odesteer.models.layers import DecoderLayers, find_decoder_layers
from odesteer.models.origin import ProvenanceWarning
from odesteer.models.receipt import Receipt
from odesteer.models.steered_model import SteeredModel
from odesteer.models.steering import Steering

__all__ = [
    "CAPTURE_POSITIONS",
    "Activations",
    "DecoderLayers",
    "Encoded",
    "Generation",
    "ProvenanceWarning",
    "Receipt",
    "SteeredModel",
    "Steering",
    "find_decoder_layers",
]
