"""A model, inputs, a target and a method become an explanation."""

from seewhy.explainer._explain import concepts, explain
from seewhy.explainer._explainer import Explainer

__all__ = ["Explainer", "concepts", "explain"]
