"""Which word of the prompt meets which region: second derivatives by autograd, sums by the towers' own cosines."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy import Text
from seewhy.errors import MapWarning, TargetError
from seewhy.evidence import shares
from seewhy.methods.attribution.path import gauss_legendre

pytestmark = pytest.mark.filterwarnings("ignore:.*nothing positive:seewhy.errors.MapWarning")

WORDS = ("<start>", "<end>", "red", "ring", "left", "cat")
PROMPT = "red ring left"


class Towers(nn.Module):
    """Two small smooth towers; the text side reads <start> words <end>, with positions."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(len(WORDS), 5), nn.Embedding(8, 5)
        self.mixed, self.read = nn.Linear(5, 6), nn.Linear(6, 4)
        self.layer, self.seen = nn.Conv2d(3, 7, 3, stride=2), nn.Linear(7, 4)

    def encode(self, prompts) -> Tensor:
        ids = torch.tensor([[0, *map(WORDS.index, prompt.split()), 1] for prompt in prompts])
        vectors = self.words(ids) + self.places(torch.arange(ids.shape[1])[None])
        return self.read((self.mixed(vectors).tanh() ** 2).cumsum(1)[:, -1])

    def forward(self, image: Tensor) -> Tensor:
        return self.seen(self.layer(image).tanh().square().mean((-2, -1)))


@pytest.fixture
def towers() -> Towers:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Towers().double()


IMAGES = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(1)).double()


def test_it_is_the_mixed_second_derivative(towers):
    """a_i d2f / da_i db_j (b_j - q_j), summed over a token and the layer's channels, meaned over the text's way."""
    found = seewhy.explain(
        towers,
        IMAGES,
        Text(PROMPT, encode=towers.encode, interaction=True, steps=3),
        method="hires_cam",
        layers="layer",
    )
    a = towers.layer(IMAGES).detach()
    b = towers.words(torch.tensor([0, 2, 3, 4, 1])).detach()
    q = b.clone()
    q[1:4] = 0

    def score(activation: Tensor, vectors: Tensor) -> Tensor:
        image = towers.seen(activation.tanh().square().mean((-2, -1)))
        text = towers.read((towers.mixed(vectors + towers.places.weight[:5]).tanh() ** 2).sum(0))
        return F.cosine_similarity(image, text, dim=0)

    expected = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    for image in range(2):
        for node, weight in zip(*gauss_legendre(3), strict=True):
            way, seen = (q + node * (b - q)).requires_grad_(), a[image].clone().requires_grad_()
            (slope,) = torch.autograd.grad(score(seen, way), way, create_graph=True)
            for token in range(3):
                (mixed,) = torch.autograd.grad((slope * (b - q))[1 + token].sum(), seen, retain_graph=True)
                expected[image, token] += weight * (seen * mixed).detach().sum(0)
    assert expected.abs().amax() > 1e-3
    torch.testing.assert_close(found.maps["layer"], expected.float().to(found.maps["layer"]), rtol=1e-5, atol=1e-9)
    assert found.name(0, 1) == "3"  # an encoder that cannot tell what the token says


def test_tokens_and_pixels_add_up_to_what_both_sides_changed(towers):
    """f(a, b) - f(r, b) - f(a, q) + f(r, q), on the input: to 1e-6 with 50 and 16 points."""
    target = Text(PROMPT, encode=towers.encode, interaction=True)
    found = seewhy.explain(towers, IMAGES, target, method="integrated_gradients")
    words = towers.encode([PROMPT])
    with torch.no_grad():
        towers.words.weight[2:5] = 0
        nothing = towers.encode([PROMPT])
    black = torch.zeros_like(IMAGES)
    against = {
        (image, text): F.cosine_similarity(towers(pixels), vectors)
        for image, pixels in (("a", IMAGES), ("r", black))
        for text, vectors in (("b", words), ("q", nothing))
    }
    torch.testing.assert_close(found.scores.sum(1), against["a", "b"] - against["a", "q"], rtol=1e-6, atol=1e-7)
    both = against["a", "b"] - against["r", "b"] - against["a", "q"] + against["r", "q"]
    total = found.maps["input"].flatten(2).sum((1, 2))
    torch.testing.assert_close(total.double(), both, rtol=1e-5, atol=1e-6)
    assert float(found.gap.max()) < 1e-4


def test_the_maps_add_up_to_that_of_the_whole_prompt(towers):
    """For every method that is linear in the gradient; and another word is met elsewhere."""
    options = {"method": ["grad_cam", "hires_cam", "input_x_gradient"], "layers": None}
    found = seewhy.explain(towers, IMAGES, Text(PROMPT, encode=towers.encode, interaction=True), **options)
    whole = towers.encode([PROMPT]).detach()
    with torch.no_grad():
        towers.words.weight[2:5] = 0
    moved = F.normalize(whole) - F.normalize(towers.encode([PROMPT]).detach())
    both = seewhy.explain(towers, IMAGES, lambda outputs: (F.normalize(outputs) * moved).sum(1), **options)
    for name, explanation in found.items():
        ((_, maps),) = explanation.maps.items()
        ((_, expected),) = both[name].maps.items()
        torch.testing.assert_close(maps.sum(1), expected, rtol=1e-5, atol=1e-8)
        assert float(F.cosine_similarity(maps[:, 0].flatten(1), maps[:, 1].flatten(1)).min()) < 0.9


def test_it_takes_more_steps_where_it_misses_much(towers):
    towers.mixed.weight.data *= 20
    gaps = [shares(towers, 4, towers.encode, PROMPT, steps).gap for steps in (1, 64)]
    assert gaps[0] > 0.05 > 1e-3 > gaps[1]
    with pytest.warns(MapWarning, match=r"miss \d+% of what they add to its embedding: more steps than 1"):
        seewhy.explain(towers, IMAGES, Text(PROMPT, encode=towers.encode, interaction=True, steps=1), layers="layer")


def test_the_model_stays_as_it_was(towers):
    towers.requires_grad_(False)
    towers.train()
    before = {name: value.clone() for name, value in towers.state_dict().items()}
    with torch.inference_mode():
        found = seewhy.explain(towers, IMAGES, Text(PROMPT, encode=towers.encode, interaction=True), layers="layer")
    assert found.maps["layer"].shape == (2, 3, 4, 5)
    assert all(torch.equal(value, before[name]) for name, value in towers.state_dict().items())
    assert towers.training
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in towers.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in towers.modules())


@pytest.mark.parametrize("chunk", [1, 7])
def test_the_number_that_run_at_once_does_not_matter(towers, chunk):
    torch.testing.assert_close(
        shares(towers, chunk, towers.encode, PROMPT, 5).vectors, shares(towers, 99, towers.encode, PROMPT, 5).vectors
    )


def test_what_is_no_text_tower_is_refused(towers):
    table = {PROMPT: torch.rand(4).double()}
    with pytest.raises(TargetError, match=r"no module of this model reads the prompt(.|\n)*got: Towers(.|\n)*Token"):
        seewhy.explain(
            towers,
            IMAGES,
            Text(PROMPT, encode=lambda prompts: torch.stack([table[p] for p in prompts]), interaction=True),
        )
    with pytest.raises(TargetError, match="a prompt needs a text encoder"):
        seewhy.explain(towers, IMAGES, Text(PROMPT, interaction=True))
    for target in (
        Text([PROMPT, "cat"], encode=towers.encode, interaction=True),
        Text(PROMPT, against="cat", encode=towers.encode, interaction=True),
    ):
        with pytest.raises(TargetError, match="interaction is of the tokens of one prompt"):
            seewhy.explain(towers, IMAGES, target)
    with pytest.raises(TargetError, match="no tokens of its own"):
        seewhy.explain(towers, IMAGES, Text("<end>", encode=towers.encode, interaction=True))


def check(loaded, images, prompt, tokens, words, first, **options):
    """A map for each token by its name; the scores are the model's own cosine less that of the prompt without words."""
    found = seewhy.explain(loaded, images, Text(prompt, interaction=True), method="hires_cam", **options)
    assert tuple(found.name(0, number) for number in range(len(tokens))) == tokens
    ((_, maps),) = found.maps.items()
    assert maps.shape[:2] == (2, len(tokens))
    assert float(maps.flatten(2).std(2).min()) > 0
    whole = seewhy.explain(loaded, images, Text(prompt), method="hires_cam", **options).scores
    with seewhy.capture(loaded.module, words, what="inputs") as seen, torch.no_grad():
        loaded.embed_text([prompt])
    ((call,),) = seen.values()
    with torch.no_grad():
        loaded.module.get_submodule(words).weight[call.inputs[0][0, first : first + len(tokens)]] = 0
    nothing = seewhy.explain(loaded, images, Text(prompt), method="hires_cam", **options).scores
    torch.testing.assert_close(found.scores.sum(1), whole - nothing, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_transformers_clip_and_siglip(text_image_folder):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    grid = lambda tokens: tokens[:, -16:].mT.unflatten(2, (4, 4))  # noqa: E731
    loaded = seewhy.load(f"transformers:{text_image_folder}")
    options = {"layers": "model.vision_model.encoder.layers.0", "grid": grid}
    words = "model.text_model.embeddings.token_embedding"
    check(loaded, images, "a red square", ("a", "red", "square"), words, 0, **options)


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_open_clip(open_clip_names):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loaded = seewhy.load(f"open_clip:{open_clip_names[0]}", weights=None)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    check(loaded, images, "a red ring", ("a", "red", "ring"), "token_embedding", 1, layers="visual.layer4")
