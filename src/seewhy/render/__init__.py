"""Pictures of explanations, and files of them. Figures need matplotlib; overlays in the default colours do not."""

from seewhy.render import grids
from seewhy.render._figure import figure
from seewhy.render._overlay import overlay, overlays
from seewhy.render._report import report
from seewhy.render._save import save
from seewhy.render._sheet import sheet
from seewhy.render._words import strip, words

__all__ = ["figure", "grids", "overlay", "overlays", "report", "save", "sheet", "strip", "words"]
