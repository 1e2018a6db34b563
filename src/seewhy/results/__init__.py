"""What an explanation is: the result types, and whether they can be believed."""

from seewhy.results._cat import cat
from seewhy.results.concepts import Concepts
from seewhy.results.explanation import Explanation, Explanations

__all__ = ["Concepts", "Explanation", "Explanations", "cat"]
