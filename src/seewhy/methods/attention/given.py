"""What every method of attention is given: types, and how a reading of rows is taken.

Everywhere in this folder `attentions`, `attention_logits`, `attention_gradients` are sequences with a (B, heads, rows,
columns) for each layer, first to last, each made when it is asked for, as they are large: self-attention over all
tokens, and last, where the model has one, an attention that pools them. `readings` has for each layer the share
(B, rows) of each row in what is read of it further on: all of a class token's, the same for all patches where they are
averaged. `places` takes values by column, (n, columns), to the grid of the patches, (n, *space). Maps are (B, *space),
signed, before the ReLU that some papers end with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Layers = Sequence[Float[Tensor, "B _ _ _"]]
Readings = list[Float[Tensor, "B _"]]
Sequences = list[Float[Tensor, "B tokens C"]]
Places = Callable[[Tensor], Tensor]
Map = Float[Tensor, "B *space"]


def read(reading: Float[Tensor, "B rows"], matrix: Float[Tensor, "B rows columns"]) -> Float[Tensor, "B columns"]:
    """The rows of a matrix by their shares."""
    return torch.einsum("br,brc->bc", reading.to(matrix), matrix)
