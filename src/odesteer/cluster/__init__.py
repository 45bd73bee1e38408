"""Capture and generation on many workers, with Ray Data."""

from odesteer.cluster.cluster import Cluster
from odesteer.cluster.model import ClusterModel
from odesteer.cluster.model_source import ModelSource

__all__ = ["Cluster", "ClusterModel", "ModelSource"]
