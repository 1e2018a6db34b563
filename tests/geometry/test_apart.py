"""Tokens that are no places are left out wherever they stand: at the start, at the end, in the middle, spread."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.geometry.grid import Grid

SIDE, PATCH, WIDTH = 32, 8, 24
PLACES = (SIDE // PATCH) ** 2
STANDS = {
    "start": (0,),
    "end": (16,),
    "middle": (8,),
    "both ends": (0, 17),
    "spread": (2, 7, 12, 17),
    "registers at the end": (0, 17, 18),
}


class Tokens(nn.Module):
    """A transformer that does not see the order of its tokens; `others` say where the learned ones stand."""

    def __init__(self, others: tuple[int, ...], *, mean: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.places = nn.Parameter(torch.randn(1, PLACES, WIDTH))
        self.learned = nn.Parameter(torch.randn(1, 4, WIDTH)[:, : len(others)].clone())
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 48, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.ModuleList([layer, nn.TransformerEncoderLayer(WIDTH, 2, 48, dropout=0.0, batch_first=True)])
        self.head = nn.Linear(WIDTH, 5)
        self.others, self.mean = list(others), mean
        self.patches = [token for token in range(PLACES + len(others)) if token not in others]

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embed(images).flatten(2).mT + self.places
        learned = self.learned.expand(len(images), -1, -1)
        learned = learned + patches.mean(1, keepdim=True) if self.mean else learned
        tokens = torch.cat([patches, learned], 1)[:, torch.tensor([*self.patches, *self.others]).argsort()]
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[:, self.others].mean(1))


IMAGES = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def expected(model: Tokens) -> Tensor:
    """Grad-CAM of class 0 at the first block, by hand."""
    kept = {}

    def keep(_: nn.Module, __: object, output: Tensor) -> None:
        output.retain_grad()
        kept["tokens"] = output

    hook = model.blocks[0].register_forward_hook(keep)
    model(IMAGES)[:, 0].sum().backward()
    hook.remove()
    tokens = kept["tokens"]
    activations, slopes = (tensor[:, model.patches].detach() for tensor in (tokens, tokens.grad))
    return (activations * slopes.mean(1, keepdim=True)).sum(-1).unflatten(1, (4, 4))


@pytest.mark.parametrize("grid", [None, (4, 4)], ids=["seen", "grid given"])
@pytest.mark.parametrize("others", STANDS.values(), ids=STANDS)
def test_a_layer_is_drawn_without_them(others, grid) -> None:
    model = Tokens(others).eval()
    found = seewhy.explain(model, IMAGES, 0, method="grad_cam", layers="blocks.0", grid=grid)
    torch.testing.assert_close(found.maps["blocks.0"], expected(model), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("others", [(0,), (16,), (8,)], ids=["start", "end", "middle"])
def test_a_mean_of_all_patches_is_one_of_them(others) -> None:
    model = Tokens(others, mean=True).eval()
    found = seewhy.explain(model, IMAGES, 0, method="grad_cam", layers="blocks.0")
    torch.testing.assert_close(found.maps["blocks.0"], expected(model), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["attention_relevance", "attention_rollout", "le_grad", "recipro_cam"])
def test_where_they_stand_changes_no_map(method) -> None:
    """One network, its class token first, in the middle and last: the scores are the same, and so are the maps."""
    maps = [
        next(iter(seewhy.explain(Tokens(others).eval(), IMAGES, 0, method=method).maps.values()))
        for others in ((0,), (8,), (16,))
    ]
    assert maps[0].std() > 0
    for other in maps[1:]:
        torch.testing.assert_close(other, maps[0], rtol=1e-4, atol=1e-6 * float(maps[0].abs().max()) + 1e-7)


def test_the_layout_names_them() -> None:
    assert Grid((4, 4), channel_axis=-1, others=(8,)).layout == "4 x 4, channels last, without token 8"
    assert Grid((4, 4), channel_axis=-1, others=(0, 17)).layout == "4 x 4, channels last, without tokens 0, 17"


class Picky(Tokens):
    """Takes what lies between 0 and 1, and nothing else."""

    def forward(self, images: Tensor) -> Tensor:
        if not bool(((images >= 0) & (images <= 1)).all()):
            raise ValueError("these are no photographs")
        return super().forward(images)


def test_images_are_changed_within_their_own_colours() -> None:
    model, images = Picky((16,)).eval(), torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    found = seewhy.explain(model, images, 0, method="grad_cam", layers="blocks.0")
    assert found.maps["blocks.0"].shape == (2, 4, 4)
