"""What an explanation is: the result types, and whether they can be believed."""

from seewhy.results.concepts import Concepts
from seewhy.results.explanation import Explanation

__all__ = ["Concepts", "Explanation"]
