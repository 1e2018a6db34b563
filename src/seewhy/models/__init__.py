"""Models that come with their preprocessing and labels."""

from seewhy.images.preprocess import Preprocess
from seewhy.models.accepted import Limits, as_module, limits_of
from seewhy.models.loaded import Loaded
from seewhy.models.loading import load

__all__ = ["Limits", "Loaded", "Preprocess", "as_module", "limits_of", "load"]
