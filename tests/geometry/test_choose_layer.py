"""Which layer is chosen and how it lies over the input: proven by blanking a part of it, and where others go wrong."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import timm
import torch
import torchcam.methods._utils
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import seewhy
from seewhy.errors import LayerError
from tests.contracts.zoo import CASES, CLASSES, Case
from tests.looking import seen_in

BY_NAME = {case.name: case for case in CASES}
# deep ones see all of their small inputs from everywhere, and take larger ones
LARGER = dict.fromkeys(("resnet", "densenet", "mobilenet"), (3, 160, 224))


def activations(case: Case, model: nn.Module, images: Tensor) -> Tensor:
    """What the chosen layer returned, (B, C, *grid)."""
    (seen,) = [seen for seen in seen_in(model, images) if str(seen.label) == case.layer]
    kept = []
    handle = model.get_submodule(seen.label.name).register_forward_hook(
        lambda _m, _a, output: kept.append(output.detach())
    )
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


@pytest.mark.few(10)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("place", [(0, 1), (1, 0)], ids=["upper right", "lower left"])
def test_blanking_a_quadrant_shows_in_that_quadrant(case: Case, place: tuple[int, int]) -> None:
    """NEEDS part 1, 3 and 14. Off the diagonal, so that rows taken for columns would show.

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
    """NEEDS part 2, 17: grad-cam draws a blank at the layer its documentation names for others' use, `blocks[-1]`."""
    case = BY_NAME["class_token"]
    model, images = case.model(), case.inputs()

    def to_grid(tensor: Tensor) -> Tensor:
        return tensor[:, 1:].mT.unflatten(2, (4, 6))

    with GradCAM(model, [model.blocks[-1]], reshape_transform=to_grid) as cam:
        theirs = cam(images, targets=[ClassifierOutputTarget(1)] * 2)
    assert abs(theirs).max() == 0
    ours = seewhy.explain(model, images, 1, method="grad_cam")
    assert ours.layers == ("blocks.2.norm1",)
    assert ours.maps["blocks.2.norm1"].shape == (2, 4, 6)
    assert (ours.maps["blocks.2.norm1"].flatten(1).std(1) > 0).all()
    assert "from token 1 on" in ours.note
    assert "of the 3 later ones none is reached" in ours.note


def test_a_vits_layer_is_not_its_patch_embedding() -> None:
    """NEEDS part 2, 19: torchcam looks for a 4-D output, and finds only the patch embedding's convolution."""
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=CLASSES).eval()
    nn.init.normal_(model.heads.head.weight)  # zero at birth
    assert torchcam.methods._utils.locate_candidate_layer(model, (3, 32, 32)) == "conv_proj"
    assert seewhy.explain(model, torch.randn(2, 3, 32, 32), method="grad_cam").layers == (
        "encoder.layers.encoder_layer_2.ln_1",
    )


def test_channels_last_maps_are_not_taken_for_channels_first() -> None:
    """NEEDS part 2, 11: at a Swin layer grad-cam averages the columns and channels of each row; its map is w x C."""
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
    """NEEDS part 2, 24: on (B, N, C) captum's LayerGradCam averages channels and sums tokens; a map of C values."""
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
    """NEEDS part 2, 12: grad-cam keeps the first activation of a layer called twice, the last gradient first."""
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
    """NEEDS part 2, 13: a volume whose slices are all alike becomes the image's slices, half-pixel and linear."""
    from seewhy.images.arrays import resize

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
    assert seewhy.explain(model, images, 1, method="grad_cam").layers == ("encoder.layers.2.norm1",)
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
    found = seewhy.explain(
        model, torch.randn(1, 3, 32, 48), lambda output: output[:, 2].mean((-2, -1)), method="grad_cam"
    )
    assert found.layers == ("1",)


AROUND = ("class_token",)  # the layer is a block's first norm
APART = ("class_token", "registers")  # not all of a sequence's tokens are places
MAY_MOVE = ("class_token", "registers", "swin", "tokens_first")  # reshape before the layer


@pytest.mark.few(5)
@pytest.mark.parametrize("method", ["grad_cam", "layer_cam"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_choice_costs_one_forward_and_later_calls_one(case: Case, method: str) -> None:
    """One to look, one to explain, of a batch one of an image alone; then one each.

    Where places might have moved, two more that prove they did not; where a sequence has tokens that are no places, the
    beginning of four shows which; where a residual connection leads around the layer,
    two that measure how much goes that way.

    Behind a class token's last block there is no gradient at the patches: of the four candidates that are recorded at
    first, the fourth is the one.
    """
    model, images = case.model(), case.inputs()
    forwards = []
    handle = model.register_forward_pre_hook(lambda *_: forwards.append(1))
    explainer = seewhy.Explainer(model, method)
    counts = []
    for _ in range(3):
        explainer(images, 1)
        counts.append(len(forwards))
    handle.remove()
    proof = 2 if case.name in MAY_MOVE else 0  # the image alone, and its changed copies in one batch
    twice = case.name == "convnext"  # among the candidates is one that returns what it is given, which is added to
    around = 2 if case.name in AROUND else 0
    begun = 4 if case.name in APART else 0  # as far as the first block
    assert counts == [first := 2 + begun + proof + around + (len(images) > 1) + twice, first + 1, first + 2]


class Encoder(nn.Module):
    """Patches of `side` pixels cut without a convolution, after tokens that are no parameter: no map is ever seen."""

    def __init__(self, side: int, before: int) -> None:
        super().__init__()
        self.side, self.before = side, before
        self.embed = nn.Parameter(torch.randn(3 * side * side, 50) / side)
        self.mix = nn.Linear(50, 50)
        self.head = nn.Linear(50, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        patches = nn.functional.unfold(image.float(), self.side, stride=self.side).mT @ self.embed
        tokens = torch.cat([patches.mean(1, keepdim=True).expand(-1, self.before, -1), patches], 1)
        return self.head(torch.tanh(self.mix(tokens)).mean(1))


DECLARED = {
    "patch_size": (48, 5, {"patch_size": 48, "num_prefix_tokens": 5}),
    "patch_size of two sides": (32, 0, {"patch_size": (32, 32)}),
    "config": (32, 0, {"config": SimpleNamespace(patch_size=32)}),
    "feature_info": (32, 0, {"feature_info": [{"num_chs": 50, "reduction": 32, "module": "mix"}]}),
}


@pytest.mark.parametrize("declared", DECLARED)
def test_what_the_model_declares_decides_where_the_shape_does_not(declared: str) -> None:
    """NEEDS part 1, 3. Nine tokens of 96 x 96 pixels are 3 x 3 patches of 32 pixels, or 2 x 2 of 48 and five before.

    Images of real numbers are changed, which shows it; those of integers are not.
    """
    side, before, attributes = DECLARED[declared]
    torch.manual_seed(0)
    model, shown = Encoder(side, before).eval(), 3 * torch.randn(2, 3, 96, 96)
    images = (10 * shown + 128).clamp(0, 255).byte()
    cells = 96 // side
    seen = seewhy.explain(Encoder(side, before).eval(), shown, 1, method="grad_cam")
    assert seen.maps["mix"].shape == (2, cells, cells)
    with pytest.raises(
        LayerError, match=r"several ways(.|\n)*: 3 x 3, channels last; 2 x 2, channels last, from token 5 on"
    ):
        seewhy.explain(model, images, 1, method="grad_cam")
    for name, value in attributes.items():
        setattr(model, name, value)
    found = seewhy.explain(model, images, 1, method="grad_cam")
    by_hand = seewhy.explain(
        model, images, 1, layers="mix", grid=lambda tokens: tokens[:, before:].mT.unflatten(2, (cells, cells))
    )
    assert found.maps["mix"].shape == (2, cells, cells)
    assert torch.equal(found.maps["mix"], by_hand.maps["mix"])


def test_without_a_declaration_the_inputs_size_and_aspect_ratio_decide() -> None:
    """NEEDS part 1, 3. Of 96 x 160 pixels 15 tokens are 3 x 5 and not 5 x 3; the model that says nothing runs."""
    torch.manual_seed(0)
    model, images = Encoder(32, 0).eval(), torch.randn(2, 3, 96, 160)
    found = seewhy.explain(model, images, 1, method="grad_cam")
    by_hand = seewhy.explain(model, images, 1, layers="mix", grid=lambda tokens: tokens.mT.unflatten(2, (3, 5)))
    assert torch.equal(found.maps["mix"], by_hand.maps["mix"])


def test_a_declared_prefix_is_left_out_with_registers_that_are_no_parameter() -> None:
    """NEEDS part 1, 3. Three tokens that only `num_prefix_tokens` tells of: 4 x 6 patches of 16 pixels follow."""
    torch.manual_seed(0)
    model, images = Encoder(16, 3).eval(), torch.randn(2, 3, 64, 96)
    model.patch_size, model.num_prefix_tokens = 16, 3
    found = seewhy.explain(model, images, 1, method="grad_cam")
    by_hand = seewhy.explain(model, images, 1, layers="mix", grid=lambda tokens: tokens[:, 3:].mT.unflatten(2, (4, 6)))
    assert torch.equal(found.maps["mix"], by_hand.maps["mix"])
    assert "from token 3 on" in found.note


def test_detection_tokens_after_the_patches_are_left_out() -> None:
    """NEEDS part 1, 3. YOLOS: a class token, 4 x 6 patches, and seven detection tokens that its config declares."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.YolosConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=4,
        image_size=[64, 96], patch_size=16, num_detection_tokens=7, use_mid_position_embeddings=False,
    )  # fmt: skip
    model = transformers.YolosForObjectDetection(config).eval()
    images = {"pixel_values": torch.randn(2, 3, 64, 96)}

    def target(outputs) -> Tensor:
        return outputs.logits[:, :, 1].sum(1)

    (label,) = (found := seewhy.explain(model, images, target, method="grad_cam")).layers
    by_hand = seewhy.explain(
        model, images, target, layers=label, grid=lambda tokens: tokens[:, 1:25].mT.unflatten(2, (4, 6))
    )
    assert found.maps[label].shape == (2, 4, 6)
    assert found.maps[label].flatten(1).std(1).min() > 0
    assert torch.equal(found.maps[label], by_hand.maps[label])


def test_a_hybrids_tokens_have_the_grid_of_the_last_map_before_them() -> None:
    """NEEDS part 1, 3. A convolution's 8 x 12 cells, merged by another one, are 4 x 6 tokens after a class token."""

    class Hybrid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 7, stride=4, padding=3)
            self.patches = nn.Conv2d(8, 16, 2, stride=2)
            self.first = nn.Parameter(torch.randn(1, 1, 16))
            self.norm = nn.LayerNorm(16)
            self.head = nn.Linear(16, CLASSES)

        def forward(self, image: Tensor) -> Tensor:
            patches = self.patches(self.stem(image).relu()).flatten(2).mT
            return self.head(self.norm(torch.cat([self.first.expand(len(image), -1, -1), patches], 1)).tanh().mean(1))

    torch.manual_seed(0)
    model, images = Hybrid().eval(), torch.randn(2, 3, 32, 48)
    found = seewhy.explain(model, images, 1, method="grad_cam")
    by_hand = seewhy.explain(model, images, 1, layers="norm", grid=lambda tokens: tokens[:, 1:].mT.unflatten(2, (4, 6)))
    assert torch.equal(found.maps["norm"], by_hand.maps["norm"])


def test_windowed_tokens_are_undone() -> None:
    """NEEDS part 1, 3. The attention of a Swin sees 2 x 3 windows of 2 x 2 cells; by hand, put in rows again."""
    case = BY_NAME["swin"]
    model, images = case.model(), case.inputs()
    name = "layers.1.blocks.0.attn"
    found = seewhy.explain(model, images, 1, layers=name).maps[name]
    recorded = []
    handle = model.get_submodule(name).register_forward_hook(
        lambda _m, _a, output: recorded.append(output.detach().requires_grad_()) or recorded[-1]
    )
    model(images)[:, 1].sum().backward()
    handle.remove()
    (windows,) = recorded  # (images x rows of windows x columns of windows, cells, C)
    weights = windows.grad.view(2, 24, -1).mean(1)
    for image in range(2):
        for row in range(4):
            for column in range(6):
                cell = windows[image * 6 + (row // 2) * 3 + column // 2, (row % 2) * 2 + column % 2]
                torch.testing.assert_close(
                    found[image, row, column], cell.detach() @ weights[image], rtol=1e-4, atol=1e-6
                )


def timm_swin() -> nn.Module:
    return timm.models.SwinTransformer(
        (64, 96), 4, num_classes=CLASSES, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4
    )


def transformers_swin() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.SwinConfig(
        image_size=(64, 96), patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=4
    )
    return transformers.SwinForImageClassification(config)


def sam() -> nn.Module:
    return timm.models.VisionTransformerSAM(
        (64, 96), 8, num_classes=CLASSES, embed_dim=16, depth=2, num_heads=2, window_size=3, neck_chans=8
    )


WINDOWED = {
    "timm": (timm_swin, [f"layers.{stage}.blocks.{block}" for stage in (0, 1) for block in (0, 1)], "norm1", "attn"),
    "transformers": (
        transformers_swin,
        [f"swin.encoder.layers.{stage}.blocks.{block}" for stage in (0, 1) for block in (0, 1)],
        "layernorm_before",
        "attention",
    ),
    "padded": (sam, ["blocks.0", "blocks.1"], "norm1", "attn"),  # 8 x 12 cells are 9 x 12 in windows of 3 x 3
}


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_joined_again_are_what_was_cut_into_them(name: str) -> None:
    """NEEDS part 1, 3. What a block's attention is given is its norm's output, cut; every second one is shifted."""
    build, blocks, norm, attention = WINDOWED[name]
    torch.manual_seed(0)
    model, images = build().eval(), torch.randn(2, 3, 64, 96)
    grids = {seen.label.name: seen.grid for seen in seen_in(model, images)}
    for block in blocks:
        kept = {}
        parts = [(f"{block}.{part}", model.get_submodule(f"{block}.{part}")) for part in (norm, attention)]
        whole = parts[0][1].register_forward_hook(lambda _m, _a, output, kept=kept: kept.update(whole=output))
        cut = parts[1][1].register_forward_pre_hook(lambda _m, args, kept=kept: kept.update(cut=args[0]))
        with whole, cut, torch.no_grad():
            model(images)
        assert kept["cut"].shape[0] > 2
        assert torch.equal(grids[parts[1][0]].fold(kept["cut"]), grids[parts[0][0]].fold(kept["whole"]))


NAMED = {
    "vit": ("vit_tiny_patch16_224", {"depth": 2, "img_size": (224, 320)}, (14, 20)),
    "dinov2 with registers": ("vit_small_patch14_reg4_dinov2", {"depth": 2, "img_size": (224, 322)}, (16, 23)),
    "swin": ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1), "img_size": (224, 320)}, (7, 10)),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1)}, (7, 10)),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("name", NAMED)
def test_token_grids_of_images_that_are_not_square_need_no_callback(name: str) -> None:
    """NEEDS part 1, 3 and 14: the upper right quadrant alone is shown, and the layer changes there most."""
    model_name, options, grid = NAMED[name]
    torch.manual_seed(0)
    model = timm.create_model(model_name, num_classes=CLASSES, **options).eval()
    for parameter in model.parameters():  # scales and heads that start near zero
        if (parameter.ndim == 1 and 0 < parameter.abs().max() < 0.1) or (not parameter.any() and parameter.ndim > 1):
            nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.1)
    size = options.get("img_size", (224, 320))
    images = torch.randn(1, 3, *size)
    (label,) = (found := seewhy.explain(model, images, 1, method="grad_cam")).layers
    assert found.maps[label].shape == (1, *grid)
    (seen,) = [seen for seen in seen_in(model, images) if str(seen.label) == label]
    assert seen.depth > 0.5
    kept = []
    with (
        model.get_submodule(seen.label.name).register_forward_hook(lambda *args: kept.append(args[2])),
        torch.no_grad(),
    ):
        shown = torch.zeros_like(images)
        corner(shown, 0, 1).copy_(corner(images, 0, 1))
        model(torch.zeros_like(images))
        model(shown)
    blank, changed = (seen.grid.fold(output) for output in kept)
    change = changed - blank
    change = (change - change.mean((2, 3), keepdim=True)).abs().mean((0, 1))
    shares = {(row, column): float(corner(change, row, column).mean()) for row in (0, 1) for column in (0, 1)}
    assert max(shares, key=shares.__getitem__) == (0, 1), shares


def test_a_model_compiled_before_is_explained_all_the_same() -> None:
    """NEEDS part 2, 25: a hook that is added to a compiled model after its first call is skipped."""
    case = BY_NAME["small_cnn"]
    inner, images = case.model(), case.inputs()
    expected = seewhy.explain(inner, images, 1, method="grad_cam")
    compiled = torch.compile(inner, backend="eager")
    compiled(images)
    calls = []
    with inner.conv2.register_forward_hook(lambda *_: calls.append(1)):
        compiled(images)
    assert calls == []
    found = seewhy.explain(compiled, images, 1, method="grad_cam")
    assert torch.equal(found.maps["conv2"], expected.maps["conv2"])
