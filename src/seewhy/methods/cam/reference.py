"""Class activation maps of what tells an image from others."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from seewhy.errors import InputError
from seewhy.images.absent import Absent, absent
from seewhy.methods.channels import Reduce, channel_sum, over_space, spread
from seewhy.methods.registry import method


@method(
    "diff_cam",
    needs=("activations", "inputs", "references"),
    source="CVPR 2025, Li et al., pages 10327-10337",
    cost="1 forward, and 1 of the references",
    checked=(
        "The definition in the docstring in float64: the same to 1e-5. The paper's text and code were not at hand: "
        "the difference of mean features is what its abstract says; it has no other figure here."
    ),
)
def diff_cam(
    activations: Float[Tensor, "B C *space"],
    inputs: Float[Tensor, "B c *size"],
    references: Callable[[Tensor], Tensor],
    *,
    reference: Absent = "blur",
    reduce: Reduce = channel_sum,
) -> Float[Tensor, "B *space"]:
    """Channels weighted by how much stronger they are than in a reference group, whatever the score (Li et al. 2025).

    w_k is the mean of channel k over the image less that over all places of the references; the map is sum_k w_k A_k.
    Near chance in the last blocks of a transformer with a class token: its patches hardly differ from those of a
    blurred image.

    Args:
        reference: images (R, c, *size) of the group to compare with, healthy ones say; or "blur", "mean" or "zero", to
            compare each image with itself made absent.
        reduce: how the weighted channels become a map.

    Raises:
        InputError: if the references are of another size than the images.
    """
    if isinstance(reference, Tensor):
        if reference.shape[1:] != inputs.shape[1:] or not len(reference):
            raise InputError(
                "the references do not fit the images.",
                got=tuple(reference.shape),
                expected=f"(R, {', '.join(map(str, inputs.shape[1:]))})",
            )
        usual = over_space(references(reference)).mean(0, keepdim=True)
    else:
        usual = over_space(references(absent(inputs, reference)))
    places = activations[0, 0].numel()
    return reduce(spread((over_space(activations) - usual) / places, activations))
