"""What stands in an event file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def read(folder: Path) -> EventAccumulator:
    """The events under `folder`, all of them."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "histograms": 0, "tensors": 0})
    return events.Reload()


def pixels(events: EventAccumulator, tag: str) -> np.ndarray:
    """The one picture that was logged as `tag`: (H, W, 3) uint8."""
    (event,) = events.Images(tag)
    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
