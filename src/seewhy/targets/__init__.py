"""What is explained: from a model's output to one score per image and target."""

from seewhy.targets.base import BaseTarget, FunctionTarget, Target, Unasked, checked
from seewhy.targets.boxes import Box, Redetected, declared_classes, redetected
from seewhy.targets.classes import (
    Category,
    ClassScores,
    Contrast,
    Finer,
    Probability,
    class_name,
    class_scores,
    finer,
)
from seewhy.targets.context import Context, Encode, Shares
from seewhy.targets.indices import Classes, as_indices, find_label, matching_labels, per_image
from seewhy.targets.outputs import Output, answers, scores_tensor, select
from seewhy.targets.regions import Pixel, Region
from seewhy.targets.resolving import (
    as_target,
    classes_of,
    describe,
    for_rows,
    mirrored,
    outline,
    probabilities,
    resolve,
)
from seewhy.targets.text import Interaction, Similarity, Text, without_redundancy
from seewhy.targets.tokens import Spoken, Token, probable

__all__ = [
    "BaseTarget",
    "Box",
    "Category",
    "ClassScores",
    "Classes",
    "Context",
    "Contrast",
    "Encode",
    "Finer",
    "FunctionTarget",
    "Interaction",
    "Output",
    "Pixel",
    "Probability",
    "Redetected",
    "Region",
    "Shares",
    "Similarity",
    "Spoken",
    "Target",
    "Text",
    "Token",
    "Unasked",
    "answers",
    "as_indices",
    "as_target",
    "checked",
    "class_name",
    "class_scores",
    "classes_of",
    "declared_classes",
    "describe",
    "find_label",
    "finer",
    "for_rows",
    "matching_labels",
    "mirrored",
    "outline",
    "per_image",
    "probabilities",
    "probable",
    "redetected",
    "resolve",
    "scores_tensor",
    "select",
    "without_redundancy",
]
