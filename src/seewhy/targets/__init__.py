"""What is explained: from a model's output to one score per image and target."""

from seewhy.targets.boxes import Box, Redetected, redetected
from seewhy.targets.classes import (
    Category,
    Classes,
    ClassScores,
    Contrast,
    Finer,
    Probability,
    class_scores,
    find_label,
    finer,
)
from seewhy.targets.context import Context, Encode
from seewhy.targets.outputs import answers, scores_tensor
from seewhy.targets.regions import Pixel, Region
from seewhy.targets.resolving import Target, checked, classes, for_rows, mirrored, outline, probabilities, resolve
from seewhy.targets.text import Similarity, Text, without_redundancy

__all__ = [
    "Box",
    "Category",
    "ClassScores",
    "Classes",
    "Context",
    "Contrast",
    "Encode",
    "Finer",
    "Pixel",
    "Probability",
    "Redetected",
    "Region",
    "Similarity",
    "Target",
    "Text",
    "answers",
    "checked",
    "class_scores",
    "classes",
    "find_label",
    "finer",
    "for_rows",
    "mirrored",
    "outline",
    "probabilities",
    "redetected",
    "resolve",
    "scores_tensor",
    "without_redundancy",
]
