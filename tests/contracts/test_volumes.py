"""Every method on (B, C, D, H, W): what a still film shows is what the image shows, slice by slice."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import MapWarning
from tests.contracts.zoo import CHEAP, CLASSES

# their masks, regions and noise are other ones for a volume than for an image, as is a quarter of its values
DRAWN = {"rise", "lime", "kernel_shap", "sobol", "hsic", "var_grad", "guided_integrated_gradients"}
OPTIONS = CHEAP | {"ss_cam": {"samples": 1, "noise": 0.0}, "vit_cx": {"noise": 0.0}}
OPTIONS |= {
    name: {"samples": 1, "noise": 0.0} for name in ("smooth_grad", "smooth_grad_squared")
}  # the noise too would be another
# the network has no boxes, words and attention; eagle cuts regions that are others in a volume
METHODS = [
    name
    for name, found in seewhy.methods.available().items()
    if name not in DRAWN and name not in ("d_rise", "tam", "eagle") and not found.attends
]


class Flat(nn.Module):
    """A small network of two or three dimensions; the kernels of the latter see one slice at a time."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        convolution = nn.Conv3d if dimensions == 3 else nn.Conv2d

        def sides(size: int, depth: int) -> tuple[int, ...]:
            return (depth, size, size)[-dimensions:]

        options = {"kernel_size": sides(3, 1), "stride": sides(2, 1), "padding": sides(1, 0)}
        self.body = nn.Sequential(
            convolution(3, 8, **options), nn.ReLU(), convolution(8, 8, **options), nn.ReLU()
        )  # fmt: skip
        self.head = nn.Linear(8, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image).flatten(2).mean(-1))


@pytest.mark.few(15)
@pytest.mark.parametrize("method", METHODS)
def test_a_volume_of_equal_slices_has_the_images_heatmap_in_each(method: str) -> None:
    """NEEDS part 1, 4."""
    torch.manual_seed(0)
    flat, deep = Flat(2).eval(), Flat(3).eval()
    deep.load_state_dict(
        {name: value[:, :, None] if value.ndim == 4 else value for name, value in flat.state_dict().items()}
    )
    image = torch.randn(1, 3, 16, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MapWarning)
        options = {"method": method, **OPTIONS.get(method, {})}
        expected = seewhy.explain(flat, image, 1, **options).heatmap
        found = seewhy.explain(deep, image[:, :, None].expand(1, 3, 4, 16, 24), 1, **options).heatmap
    assert found.amax() > found.amin()
    # float32 sums over four times as many places; iterated methods (opti_cam) add to that
    torch.testing.assert_close(found, expected[:, None].expand(1, 4, 16, 24), rtol=0, atol=1e-5)


def test_rise_finds_the_half_of_a_volume_that_is_all_the_score() -> None:
    """NEEDS part 1, 4. Masks that did not vary with the depth would leave both halves equally hot."""

    class SecondHalf(nn.Module):
        def forward(self, volume: Tensor) -> Tensor:
            late = volume[:, :, volume.shape[2] // 2 :].mean((1, 2, 3, 4))
            return torch.stack([late, -late], 1)

    volume = torch.ones(1, 1, 8, 8, 8)
    heat = seewhy.explain(SecondHalf().eval(), volume, 0, method="rise", masks=400, cells=4).heatmap
    assert heat[0, 4:].mean() > 1.5 * heat[0, :4].mean()  # of 400 masks; 1.0 is what no difference would give
