"""Pictures of explanations, and files of them. Importing this does not import matplotlib; drawing does."""

from seewhy.render import grids
from seewhy.render._figure import figure
from seewhy.render._overlay import overlay
from seewhy.render._save import save

__all__ = ["figure", "grids", "overlay", "save"]
