"""Pictures of explanations, and files of them. Importing this does not import matplotlib; drawing does."""

from seewhy.render import tensorboard
from seewhy.render.figure import figure
from seewhy.render.overlay import overlay
from seewhy.render.save import save

__all__ = ["figure", "overlay", "save", "tensorboard"]
