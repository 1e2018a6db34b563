"""Models that come with their preprocessing and labels."""

from seewhy.models.load import load
from seewhy.models.loaded import Loaded, Preprocess

__all__ = ["Loaded", "Preprocess", "load"]
