"""Which layer is chosen and how it lies over the input: proven by blanking a part of it, and where others go wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torchcam.methods._utils
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import seewhy
from seewhy.errors import LayerError
from seewhy.layers import look
from tests.contracts.zoo import CASES, CLASSES, Case

BY_NAME = {case.name: case for case in CASES}
# deep ones see all of their small inputs from everywhere, and take larger ones
LARGER = dict.fromkeys(("resnet", "densenet", "mobilenet"), (3, 160, 224))


def activations(case: Case, model: nn.Module, images: Tensor) -> Tensor:
    """What the chosen layer returned, (B, C, *grid)."""
    (seen,) = [seen for seen in look(model, images) if seen.label == case.layer]
    kept = []
    handle = model.get_submodule(seen.name).register_forward_hook(lambda _m, _a, output: kept.append(output.detach()))
    with torch.no_grad():
        model(images.clone())
    handle.remove()
    return seen.grid.fold(kept[-1])


def corner(tensor: Tensor, row: int, column: int) -> Tensor:
    """One quadrant: the upper (0) or lower (1) half of the rows, the left or right half of the columns."""
    for dim, end in ((-2, row), (-1, column)):
        half = tensor.shape[dim] // 2
        tensor = tensor.narrow(dim, end * (tensor.shape[dim] - half), half)
    return tensor


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("place", [(0, 1), (1, 0)], ids=["upper right", "lower left"])
def test_blanking_a_quadrant_shows_in_that_quadrant(case: Case, place: tuple[int, int]) -> None:
    """Needs 3 and 14: any layout, and the right layer. Off the diagonal, so that rows taken for columns would show.

    Of a volume the first half of its depth is blanked. In float64: some activations of the random models are as small
    as float32's rounding.
    """
    model, images = (
        case.model().eval().double(),
        replace(case, shape=LARGER.get(case.name, case.shape)).inputs(8).double(),
    )
    blanked = images.clone()
    region = blanked if blanked.ndim == 4 else blanked[:, :, : blanked.shape[2] // 2]
    corner(region, *place).zero_()
    change = (activations(case, model, blanked) - activations(case, model, images)).abs().mean((0, 1))
    if change.ndim == 3:
        half = change.shape[0] // 2
        assert corner(change[:half], *place).mean() > corner(change[half:], *place).mean()
        change = change[:half]
    changes = {(row, column): float(corner(change, row, column).mean()) for row in (0, 1) for column in (0, 1)}
    assert max(changes, key=changes.__getitem__) == place, changes


def test_a_class_tokens_last_block_has_no_gradient_at_the_patches_and_its_first_norm_is_chosen() -> None:
    """NEEDS 17: grad-cam draws a blank at the layer its documentation names for others' use, `blocks[-1]`."""
    case = BY_NAME["class_token"]
    model, images = case.model(), case.inputs()

    def to_grid(tensor: Tensor) -> Tensor:
        return tensor[:, 1:].mT.unflatten(2, (4, 6))

    with GradCAM(model, [model.blocks[-1]], reshape_transform=to_grid) as cam:
        theirs = cam(images, targets=[ClassifierOutputTarget(1)] * 2)
    assert abs(theirs).max() == 0
    ours = seewhy.explain(model, images, 1)
    assert ours.layers == ("blocks.2.norm1",)
    assert ours.maps["blocks.2.norm1"].shape == (2, 4, 6)
    assert (ours.maps["blocks.2.norm1"].flatten(1).std(1) > 0).all()
    assert "from token 1 on" in ours.note
    assert "of the 3 later ones none is reached" in ours.note


def test_a_vits_layer_is_not_its_patch_embedding() -> None:
    """NEEDS 19: torchcam looks for a 4-D output, and finds only the patch embedding's convolution."""
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=CLASSES).eval()
    nn.init.normal_(model.heads.head.weight)  # zero at birth
    assert torchcam.methods._utils.locate_candidate_layer(model, (3, 32, 32)) == "conv_proj"
    assert seewhy.explain(model, torch.randn(2, 3, 32, 32)).layers == ("encoder.layers.encoder_layer_2.ln_1",)


def test_channels_last_maps_are_not_taken_for_channels_first() -> None:
    """NEEDS 11: at a Swin layer grad-cam's weights average the columns and channels of each row, its map is w x C."""
    case = BY_NAME["swin"]
    model, images = case.model(), case.inputs()
    layer = model.norm
    recorded = []
    handle = layer.register_forward_hook(
        lambda _m, _a, output: recorded.append(output.detach().requires_grad_()) or recorded[-1]
    )
    model(images)[:, 1].sum().backward()
    handle.remove()
    (features,) = recorded
    right = (features * features.grad.mean((1, 2), keepdim=True)).sum(-1)
    taken_for_rows = (features * features.grad.mean((2, 3), keepdim=True)).sum(1)
    with GradCAM(model, [layer]) as cam:
        cam(images, targets=[ClassifierOutputTarget(1)] * 2)
        seen = cam.activations_and_grads
        theirs = cam.get_cam_image(
            images,
            layer,
            [ClassifierOutputTarget(1)] * 2,
            seen.activations[0].numpy(),
            seen.gradients[0].numpy(),
            False,
        )
    torch.testing.assert_close(torch.from_numpy(theirs), taken_for_rows, rtol=1e-4, atol=1e-6)
    assert theirs.shape == (2, 6, 32)
    ours = seewhy.explain(model, images, 1, layers=layer)
    torch.testing.assert_close(ours.maps["norm"], right, rtol=1e-4, atol=1e-6)


def test_captum_averages_the_wrong_axis_of_tokens() -> None:
    """NEEDS 24: on (B, N, C) captum's LayerGradCam averages over channels and sums the tokens; a map of C values."""
    case = BY_NAME["registers"]
    model, images = case.model(), case.inputs()
    theirs = LayerGradCam(model, model.blocks[1]).attribute(images, target=1)
    assert theirs.shape == (2, 1, 24)
    recorded = []
    handle = model.blocks[1].register_forward_hook(
        lambda _m, _a, output: recorded.append(output.detach().requires_grad_()) or recorded[-1]
    )
    model(images)[:, 1].sum().backward()
    handle.remove()
    (features,) = recorded
    wrong = (features * features.grad.mean(2, keepdim=True)).sum(1, keepdim=True)
    torch.testing.assert_close(theirs.detach(), wrong.detach(), rtol=1e-4, atol=1e-6)
    patches, slopes = features[:, 4:], features.grad[:, 4:]
    right = (patches * slopes.mean(1, keepdim=True)).sum(2).unflatten(1, (4, 6))
    ours = seewhy.explain(model, images, 1, layers="blocks.1").maps["blocks.1"]
    torch.testing.assert_close(ours, right.detach(), rtol=1e-4, atol=1e-6)


def test_both_calls_of_a_layer_keep_their_own_gradients() -> None:
    """NEEDS 12: grad-cam keeps the first activation of a layer called twice, the last gradient first."""
    case = BY_NAME["called_twice"]
    model, images = case.model(), case.inputs()
    first = model.shared(model.stem(images)).detach().requires_grad_()
    second = model.shared(model.relu(first.clone()))
    second.retain_grad()
    model.head(model.relu(second.clone()).mean((-2, -1)))[:, 1].sum().backward()
    maps = seewhy.explain(model, images, 1, layers="shared").maps
    for label, features in (("shared#0", first), ("shared#1", second)):
        expected = (features * features.grad.mean((2, 3), keepdim=True)).sum(1).detach()
        torch.testing.assert_close(maps[label], expected, rtol=1e-4, atol=1e-6)


def test_volumes_are_resized_as_images_are() -> None:
    """NEEDS 13: a volume whose slices are all alike becomes slices that are the image's, half-pixel and linear."""
    from seewhy.arrays import resize

    image = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    volume = image[:, None].expand(1, 2, 3, 5)
    torch.testing.assert_close(resize(volume, (4, 6, 10)), resize(image, (6, 10))[:, None].expand(1, 4, 6, 10))


class SmallVit(nn.Module):
    """Two tokens before the patches, which it cuts itself; nothing is declared but the tokens' parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3 * 8 * 8, 16)
        self.prompt = nn.Parameter(torch.randn(1, 2, 16))
        block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(block, 3, enable_nested_tensor=False)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        patches = nn.functional.unfold(image, 8, stride=8).mT
        tokens = torch.cat([self.prompt.expand(len(image), -1, -1), self.embed(patches)], 1)
        return self.head(self.encoder(tokens)[:, 0])


def test_tokens_of_a_model_that_declares_nothing_are_found_and_a_given_grid_is_obeyed() -> None:
    torch.manual_seed(0)
    model, images = SmallVit().eval(), torch.randn(2, 3, 32, 48)
    assert seewhy.explain(model, images, 1).layers == ("encoder.layers.2.norm1",)
    found = seewhy.explain(model, images, 1, layers="encoder.layers.1")
    given = seewhy.explain(model, images, 1, layers="encoder.layers.1", grid=(4, 6))
    function = seewhy.explain(
        model, images, 1, layers="encoder.layers.1", grid=lambda tensor: tensor[:, 2:].mT.unflatten(2, (4, 6))
    )
    torch.testing.assert_close(found.maps, given.maps)
    assert torch.equal(given.maps["encoder.layers.1"], function.maps["encoder.layers.1"])
    with pytest.raises(LayerError, match="does not lie over the input"):
        seewhy.explain(model, images, 1, layers="encoder.layers.1", grid=(7, 6))


def test_an_ambiguous_layout_is_refused_with_what_it_could_be() -> None:
    """A cube of 8 that comes out of no layer that knows its channels."""

    class Cube(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Identity()
            self.head = nn.Linear(512, CLASSES)

        def forward(self, image: Tensor) -> Tensor:
            return self.head(self.same(image.reshape(len(image), 8, 8, 8)).flatten(1))

    with pytest.raises(LayerError, match=r"in several ways(.|\n)*8 x 8, channels first; 8 x 8, channels last"):
        seewhy.explain(Cube(), torch.randn(1, 2, 16, 16), layers="same")


def test_the_map_an_output_with_space_is_drawn_from_is_no_explanation() -> None:
    """A segmenter's class maps say where it sees what; the features before them say why."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.Upsample((32, 48)))
    found = seewhy.explain(model, torch.randn(1, 3, 32, 48), lambda output: output[:, 2].mean((-2, -1)))
    assert found.layers == ("1",)


def test_the_choice_costs_one_forward_and_later_calls_one() -> None:
    case = BY_NAME["swin"]
    model, images = case.model(), case.inputs()
    forwards = []
    handle = model.patch_embed.register_forward_hook(lambda *_: forwards.append(1))
    explainer = seewhy.Explainer(model)
    counts = []
    for _ in range(3):
        explainer(images)
        counts.append(len(forwards))
    handle.remove()
    assert counts == [2, 3, 4]  # one to look, one to explain; then one each
