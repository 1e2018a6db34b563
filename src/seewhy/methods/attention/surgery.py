"""What the head says of each token, once the path to it is led past the last blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seewhy import targets
from seewhy.errors import InputError
from seewhy.methods.attention.given import Map, Places, Sequences
from seewhy.methods.registry import method


@method(
    "clip_surgery",
    needs=("block_inputs", "value_attention", "token_scores", "places"),
    source="arXiv:2304.05653",
    cost="1 forward, 1 with every block twice, and for each token what follows the last block",
    ask=targets.without_redundancy,
    checked=(
        "The paper's path and its feature surgery in float64, through towers of open_clip and transformers: the "
        "same to 1e-4. The authors' code scales the signed similarity of each prompt to [0, 1] by its own range, "
        "so that what is negative is drawn too. Here the map is signed, and the heatmap begins at 0: a place of 0 "
        "between -1 and 1 is 0.5 in theirs and 0 here."
    ),
)
def clip_surgery(
    block_inputs: Sequences,
    value_attention: Sequences,
    token_scores: Callable[[Tensor], Tensor],
    places: Places,
    *,
    depth: int = 6,
) -> Map:
    """What the head says of each patch, led past the last blocks by attention among values alone (Li et al. 2023).

    x_N = x_d + sum_(i >= d) A_i, where x_d (B, tokens, C) is what the first of the last `depth` blocks is given, and
    A_i what the attention of block i adds to its own input if queries and keys are its values; the other layers are
    left out. `token_scores` tells (B, tokens) what the score is of each token in place of all. Of a prompt against
    others the part that they share is removed first: see `targets.without_redundancy`.
    """
    if depth < 1:
        raise InputError("no block is left to look at.", got=f"depth={depth}", expected="1 or more")
    return places(token_scores(block_inputs[-depth:][0] + torch.stack(value_attention[-depth:]).sum(0)))
