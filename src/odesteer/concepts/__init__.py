"""Concepts by name: contrastive pairs for "polite" and "rude", written by a language model.

`write_pairs` asks a writer, the model itself (`ModelWriter`) or an OpenAI-compatible endpoint
(`EndpointWriter`), to answer neutral prompts in both ways, and keeps the pairs that are judged to
differ in the right direction.
"""

from odesteer.concepts.pairs import Concept, ConceptPairs, PairWriter, write_pairs
from odesteer.concepts.writers import EndpointWriter, ModelWriter

__all__ = ["Concept", "ConceptPairs", "EndpointWriter", "ModelWriter", "PairWriter", "write_pairs"]
