"""What several tests of runs begin with."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def one_thread():
    """Sums are the same in every process only with as many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
