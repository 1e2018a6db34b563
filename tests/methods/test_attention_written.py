"""Attention written otherwise gives the map of the same model by scaled_dot_product_attention, or is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import seewhy
from seewhy.errors import MethodError

METHODS = ["attention_rollout", "attention_relevance", "agcam", "le_grad", "grad_eclip"]


def sdpa(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def einsum(q, k, v):
    weights = (torch.einsum("bhid,bhjd->bhij", q, k) / 2).softmax(-1)
    return torch.einsum("bhij,bhjd->bhid", weights, v)


def dots(q, k, v):
    return torch.einsum("...ij, ...jd -> ...id", (torch.einsum("...id,...jd", q / 2, k)).softmax(-1), v)


def keys_first(q, k, v):
    return torch.einsum("bhji,bhjd->bhid", (torch.einsum("bhid,bhjd->bhji", q, k) / 2).softmax(2), v)


def heads_last(q, k, v):
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    weights = (torch.einsum("bqhd,bkhd->bqhk", q, k) / 2).softmax(-1)
    return torch.einsum("bqhk,bkhd->bqhd", weights, v).transpose(1, 2)


def heads_first(q, k, v):
    q, k, v = (tensor.transpose(0, 1) for tensor in (q, k, v))
    return ((q @ k.mT / 2).softmax(-1) @ v).transpose(0, 1)


def heads_by_images(q, k, v):
    batch, heads = q.shape[:2]
    q, k, v = (tensor.transpose(0, 1).flatten(0, 1) for tensor in (q, k, v))
    return ((q @ k.mT / 2).softmax(-1) @ v).unflatten(0, (heads, batch)).transpose(0, 1)


def images_by_heads(q, k, v):
    flat = (tensor.flatten(0, 1) for tensor in (q / 2, k.mT, v))
    queries, keys, values = flat
    return torch.bmm(torch.bmm(queries, keys).softmax(dim=-1), values).unflatten(0, q.shape[:2])


def fused_heads_by_images(q, k, v):
    flat = (tensor.transpose(0, 1).flatten(0, 1) for tensor in (q, k, v))
    return F.scaled_dot_product_attention(*flat).unflatten(0, (q.shape[1], q.shape[0])).transpose(0, 1)


def values_first(q, k, v):
    return (v.mT @ (q @ k.mT / 2).softmax(-1).mT).mT


def head_by_head(q, k, v):
    return torch.stack([(q[:, n] @ k[:, n].mT / 2).softmax(-1) @ v[:, n] for n in range(q.shape[1])], 1)


def fused_head_by_head(q, k, v):
    return torch.stack([F.scaled_dot_product_attention(q[:, n], k[:, n], v[:, n]) for n in range(q.shape[1])], 1)


def by_hand(q, k, v):
    weights = (q @ k.mT / 2).exp()
    return (weights / weights.sum(-1, keepdim=True)) @ v


def summed(q, k, v):
    weights = ((q.unsqueeze(-2) * k.unsqueeze(-3)).sum(-1) / 2).softmax(-1)
    return (weights.unsqueeze(-1) * v.unsqueeze(-3)).sum(-2)


WAYS = [
    einsum, dots, keys_first, heads_last, heads_first, heads_by_images, images_by_heads, fused_heads_by_images,
    values_first, head_by_head, fused_head_by_head,
]  # fmt: skip


class Block(nn.Module):
    def __init__(self, way, layout):
        super().__init__()
        self.way, self.layout = way, layout
        self.norm, self.qkv, self.proj = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x):
        shape = x.shape
        if self.layout != "tokens":
            x = x.flatten(1, 2) if self.layout == "channels last" else x.flatten(2).mT
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        x = x + self.proj(self.way(q, k, v).transpose(1, 2).flatten(2))
        x = x + self.mlp(x)
        return x if self.layout == "tokens" else (x if self.layout == "channels last" else x.mT).reshape(shape)


class Transformer(nn.Module):
    def __init__(self, *ways, layout="tokens"):
        super().__init__()
        torch.manual_seed(0)
        self.layout = layout
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.places = nn.Parameter(torch.randn(1, 16, 4, 4) * 0.3)
        self.blocks = nn.ModuleList([Block(way, layout) for way in ways])
        self.head = nn.Linear(16, 5)
        for block in self.blocks:
            nn.init.normal_(block.qkv.weight, std=0.5)
        self.eval()

    def forward(self, images):
        x = self.patches(images) + self.places
        x = {"tokens": x.flatten(2).mT, "channels last": x.movedim(1, -1), "channels first": x}[self.layout]
        for block in self.blocks:
            x = block(x)
        return self.head(x.flatten(2).mean(2) if self.layout == "channels first" else x.flatten(1, -2).mean(1))


def images(batch=4):
    return torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def maps(model, inputs, methods=METHODS):
    return {name: found.maps["attention"] for name, found in seewhy.explain(model, inputs, 1, method=methods).items()}


def assert_alike(found, expected, tolerance=1e-5):
    for name, right in expected.items():
        difference = (found[name] - right).abs().max() / right.abs().max()
        assert difference < tolerance, (name, difference)


@pytest.fixture(scope="module")
def expected():
    return maps(Transformer(*[sdpa] * 3), images())


@pytest.mark.few(6)
@pytest.mark.parametrize("ways", [[way] * 3 for way in WAYS] + [[sdpa, einsum, head_by_head]])
def test_maps_are_those_of_the_fused_kernel_and_an_image_has_its_own(ways, expected):
    """Four heads, four images: what is taken for the other mixes them."""
    model = Transformer(*ways)
    assert_alike(maps(model, images()), expected)
    assert_alike(maps(model, images()[2:3]), {name: found[2:3] for name, found in expected.items()})


@pytest.mark.few(1)
@pytest.mark.parametrize("way", [by_hand, summed])
def test_some_blocks_that_cannot_be_read_are_refused(way):
    for method in METHODS:
        with pytest.raises(MethodError, match=r"made by a softmax|no attention was seen in blocks\.1, blocks like"):
            seewhy.explain(Transformer(sdpa, way, sdpa), images(), 1, method=method)


@pytest.mark.parametrize("layout", ["channels last", "channels first"])
def test_blocks_that_return_maps_are_read_image_by_image(layout, expected):
    found = maps(Transformer(*[einsum] * 3, layout=layout), images(), ["le_grad", "agcam"])
    assert_alike(found, {name: expected[name] for name in found})


@pytest.mark.parametrize("way", [sdpa, einsum, head_by_head])
def test_double_precision(way, expected):
    found = maps(Transformer(*[way] * 3).double(), images().double())
    assert {one.dtype for one in found.values()} == {torch.float64}
    assert_alike(found, expected)


def test_bfloat16_with_a_mask_of_float32(expected):
    def masked(q, k, v):
        logits = q @ k.mT / 2 + torch.zeros(16, 16)
        return logits.softmax(-1).to(v.dtype) @ v

    found = maps(Transformer(*[masked] * 3).bfloat16(), images().bfloat16())
    assert_alike(found, expected, 0.3)  # eight bits, through three blocks


_PEAK = """
import resource, sys, torch, timm, seewhy
model = timm.create_model("vit_tiny_patch16_224", img_size=384, num_classes=5).eval()
x = torch.randn(2, 3, 384, 384)
seewhy.explain(model, x[:, :, :384], 1, method="grad_cam")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
seewhy.explain(model, x, 1, method=sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["attention_rollout", "attention_relevance"])
def test_memory_is_less_than_that_of_the_attention(method):
    """12 layers, 3 heads, 577 tokens, 2 images: 91 MiB of probabilities, of which there is one layer at a time."""
    run = subprocess.run([sys.executable, "-c", _PEAK, method], check=True, capture_output=True, text=True)
    assert float(run.stdout.split()[-1]) < 91 + 60  # and the graph of the blocks
