"""Maps from windows: those of the whole image where that fits, bounded memory, MONAI's inference and models."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy.errors import InputError, InputTypeError
from seewhy.results.windowed import Windows


class Bright(nn.Module):
    """Two classes: how much of the input is above 0.5, and how much below -0.5. Each place is seen by itself."""

    def __init__(self, dimensions: int = 3) -> None:
        super().__init__()
        convolution = nn.Conv3d if dimensions == 3 else nn.Conv2d
        self.look = convolution(1, 2, 1)
        self.most = 0
        with torch.no_grad():
            self.look.weight.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, *[1] * dimensions))
            self.look.bias.fill_(-0.5)

    def forward(self, volume: Tensor) -> Tensor:
        self.most = max(self.most, volume[0].numel())
        return self.look(volume).relu().flatten(2).mean(2)


def test_windows_cover_the_image_as_monai_lays_them() -> None:
    data = pytest.importorskip("monai.data.utils")
    for space, size, overlap in (
        ((40, 33, 50), (16, 16, 16), 0.5),
        ((20, 64), (32, 32), 0.25),
        ((96, 96), (96, 96), 0.5),
    ):
        steps = [side if side == all_ else int(side * (1 - overlap)) for side, all_ in zip(size, space, strict=True)]
        expected = {
            tuple(part.start for part in place)
            for place in data.dense_patch_slices([max(pair) for pair in zip(space, size, strict=True)], size, steps)
        }
        assert set(Windows(size, overlap).starts(space)) == expected
    importance = data.compute_importance_map((8, 12), mode="gaussian", sigma_scale=0.125)
    torch.testing.assert_close(Windows((8, 12)).weights((40, 40)), importance, rtol=1e-5, atol=1e-6)


@pytest.mark.few(1)
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.7])
def test_a_map_from_windows_is_that_of_the_whole_where_places_are_seen_one_by_one(overlap: float) -> None:
    torch.manual_seed(0)
    volume = torch.randn(2, 1, 20, 26, 17)
    whole = seewhy.explain(Bright(), volume, torch.tensor([0, 1]), method="layer_cam", layers="look")
    found = seewhy.explain(
        Bright(), volume, torch.tensor([0, 1]), method="layer_cam", layers="look", window=(8, 12, 8), overlap=overlap
    )
    assert found.size == (20, 26, 17)
    torch.testing.assert_close(found.heatmap, whole.heatmap, rtol=0, atol=1e-5)
    if not overlap:  # as many voxels in each: 20 x 26 x 17 are no multiples of a window
        assert "of 27 windows of 8 x 12 x 8" in found.note


def test_memory_is_that_of_a_window_and_the_place_is_found() -> None:
    picture = torch.zeros(1, 1, 1000, 1400)
    picture[0, 0, 700:720, 300:330] = 1
    model = Bright(2)
    found = seewhy.explain(model, picture, method="layer_cam", layers="look", window=256, pool="max")
    heat = found.heatmap[0]
    assert found.index.tolist() == [0]
    assert (heat > 0.5).nonzero().amin(0).tolist() == [700, 300]
    assert (heat > 0.5).nonzero().amax(0).tolist() == [719, 329]
    torch.testing.assert_close(found.scores, torch.tensor([0.5 * 600 / 256**2]))
    assert model.most <= 256**2


def test_a_region_of_a_stitched_output_has_the_stitched_score_and_map() -> None:
    """The target is one of MONAI's own blended output, and a linear method's map is the gradient of that, in parts."""
    inferers = pytest.importorskip("monai.inferers")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 1)).eval()
    volume = torch.randn(1, 1, 24, 20, 16)
    inferer = inferers.SlidingWindowInferer((12, 12, 12), overlap=0.5, mode="gaussian")
    mask = torch.zeros(24, 20, 16)
    mask[6:16, 3:12, 4:14] = 1
    found = seewhy.explain(model, volume, seewhy.Region(2, mask), method="hires_cam", layers="1", window=inferer)
    seen = volume.clone().requires_grad_()
    stitched = inferer(seen, model)
    score = (stitched[0, 2] * mask).sum() / mask.sum()
    torch.testing.assert_close(found.scores, score.detach()[None], rtol=1e-5, atol=1e-6)
    # hires_cam at the layer before a 1 x 1 x 1 convolution: each place's part of the score, but for the bias
    parts = found.maps["1"][0]
    torch.testing.assert_close(parts.sum(), score.detach() - model[2].bias[2].detach(), rtol=1e-4, atol=1e-5)
    assert not parts[mask == 0].any()


def test_images_smaller_than_a_window_are_padded() -> None:
    picture = torch.rand(1, 1, 20, 90)
    found = seewhy.explain(Bright(2), picture, 0, method="layer_cam", layers="look", window=(32, 32))
    whole = seewhy.explain(Bright(2), picture, 0, method="layer_cam", layers="look")
    torch.testing.assert_close(found.heatmap, whole.heatmap, rtol=0, atol=1e-5)


def test_what_is_no_window_is_refused() -> None:
    picture = torch.rand(1, 1, 20, 90)
    for window, error in (((0, 4), InputError), ((4, 4, 4), InputError), ("large", InputTypeError)):
        with pytest.raises(error):
            seewhy.explain(Bright(2), picture, 0, window=window)
    with pytest.raises(InputError, match="do not cover"):
        seewhy.explain(Bright(2), picture, 0, window=8, overlap=1.0)
    with pytest.raises(InputTypeError, match="slide over a tensor"):
        seewhy.explain(Bright(2), [picture[0]], 0, window=8)


# MONAI's models: right map, no configuration


def nodule(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A volume of noise with a bright ball in it, and a mask of that."""
    torch.manual_seed(1)
    places = torch.stack(torch.meshgrid(*[torch.arange(side) for side in size], indexing="ij"))
    middle = torch.tensor([side // 4 for side in size]).reshape(-1, 1, 1, 1)
    mask = (places - middle).square().sum(0) < (min(size) // 6) ** 2
    return 0.1 * torch.randn(1, 1, *size) + 3 * mask, mask


def test_the_three_models_of_monai_have_maps_without_configuration() -> None:
    nets = pytest.importorskip("monai.networks.nets")
    volume, mask = nodule((32, 32, 32))
    torch.manual_seed(0)
    unet = nets.UNet(3, 1, 2, channels=(4, 8, 16), strides=(2, 2), num_res_units=1)
    found = seewhy.explain(unet, volume, seewhy.Region(1, mask), method="seg_xres_cam")
    near = F.max_pool3d(mask[None].float(), 13, 1, 6)[0] > 0
    assert (found.heatmap[0] * near).sum() > 0.9 * found.heatmap[0].sum() > 0
    dense = nets.DenseNet(3, 1, 2, init_features=8, growth_rate=4, block_config=(2, 2, 2))
    found = seewhy.explain(dense, volume, 1, method="layer_cam")
    (grid,) = found.maps.values()
    assert found.heatmap.shape == (1, 32, 32, 32)
    assert max(grid.shape[1:]) > 1
    assert not found.placements


@pytest.mark.slow
def test_swin_unetr_has_a_map_without_configuration() -> None:
    nets = pytest.importorskip("monai.networks.nets")
    volume, mask = nodule((64, 64, 64))
    torch.manual_seed(0)
    model = nets.SwinUNETR(in_channels=1, out_channels=2, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
    found = seewhy.explain(model, volume, seewhy.Region(1, mask), method="seg_xres_cam")
    near = F.max_pool3d(mask[None].float(), 13, 1, 6)[0] > 0
    # attention of random weights spreads: half of the heat is near the nodule, in a tenth of the volume
    assert near.float().mean() < 0.1
    assert (found.heatmap[0] * near).sum() > 0.4 * found.heatmap[0].sum() > 0
