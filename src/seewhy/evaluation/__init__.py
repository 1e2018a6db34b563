"""Which map to believe: measure methods and layers on a model, choose by what was measured, check one map."""

from seewhy.evaluation._check import Check, check
from seewhy.evaluation._choose import Choice, choose
from seewhy.evaluation._evaluate import METRICS, Evaluation, evaluate

__all__ = ["METRICS", "Check", "Choice", "Evaluation", "check", "choose", "evaluate"]
