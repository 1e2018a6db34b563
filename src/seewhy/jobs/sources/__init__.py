"""Where pictures come from: whatever a caller names, as samples in a fixed order."""

from seewhy.jobs.sources.base import Sample, Source
from seewhy.jobs.sources.named import picture_at, source_of

__all__ = ["Sample", "Source", "picture_at", "source_of"]
