"""Does the model use what a map shows: what becomes of the score when parts of an image are taken away."""

from seewhy.images.absent import grid_cells, superpixels
from seewhy.metrics._similarity import correlation
from seewhy.metrics.faithfulness._imputation import NEIGHBOURS, impute
from seewhy.metrics.faithfulness._ranking import lowest
from seewhy.metrics.faithfulness.agreement import (
    faithfulness_correlation,
    faithfulness_estimate,
    infidelity,
    saco,
    sensitivity_n,
)
from seewhy.metrics.faithfulness.curves import (
    Curve,
    deletion,
    deletion_curve,
    insertion,
    insertion_curve,
    insertion_minus_deletion,
    pixel_flipping,
    road,
    road_curve,
    road_least_relevant_first,
    road_most_relevant_first,
)
from seewhy.metrics.faithfulness.masking import (
    adcc,
    arcc,
    average_drop,
    average_gain,
    average_increase,
    complexity,
    harmonic_mean,
)
from seewhy.metrics.faithfulness.segments import irof

__all__ = [
    "NEIGHBOURS",
    "Curve",
    "adcc",
    "arcc",
    "average_drop",
    "average_gain",
    "average_increase",
    "complexity",
    "correlation",
    "deletion",
    "deletion_curve",
    "faithfulness_correlation",
    "faithfulness_estimate",
    "grid_cells",
    "harmonic_mean",
    "impute",
    "infidelity",
    "insertion",
    "insertion_curve",
    "insertion_minus_deletion",
    "irof",
    "lowest",
    "pixel_flipping",
    "road",
    "road_curve",
    "road_least_relevant_first",
    "road_most_relevant_first",
    "saco",
    "sensitivity_n",
    "superpixels",
]
