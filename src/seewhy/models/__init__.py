"""Models that come with their preprocessing and labels."""

from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded import Loaded
from seewhy.models.loading import load

__all__ = ["Loaded", "Preprocess", "load"]
