"""Which map to believe: functions of images, maps and a score, for the maps of any library.

A score is a function (N, C, H, W) -> (N,) of images as the model takes them; `logit` and `probability` make it of a
classifier. It is called with whole rounds of the B images: row n was made of image n % B. All results are (B,).
"""

from seewhy.metrics._scores import logit, probability
from seewhy.metrics.faithfulness import (
    Curve,
    adcc,
    arcc,
    average_drop,
    average_gain,
    average_increase,
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
from seewhy.metrics.localization import (
    average_precision,
    best_iou,
    box_masks,
    energy_pointing,
    grid_pointing,
    mosaics,
    pointing_game,
    relevance_mass,
    relevance_rank,
    top_k_intersection,
)

__all__ = [
    "Curve",
    "adcc",
    "arcc",
    "average_drop",
    "average_gain",
    "average_increase",
    "average_precision",
    "best_iou",
    "box_masks",
    "deletion",
    "deletion_curve",
    "energy_pointing",
    "grid_pointing",
    "insertion",
    "insertion_curve",
    "insertion_minus_deletion",
    "logit",
    "mosaics",
    "pixel_flipping",
    "pointing_game",
    "probability",
    "relevance_mass",
    "relevance_rank",
    "road",
    "road_curve",
    "road_least_relevant_first",
    "road_most_relevant_first",
    "top_k_intersection",
]
