"""Embeddings and prompts: cosines by hand, and whole text-image models against their own two towers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import seewhy
from seewhy import Similarity, Text, targets
from seewhy.errors import OutputError, TargetError, TargetTypeError

GIVEN = torch.tensor([[3.0, 4.0], [0.0, -2.0]])
X, Y, DIAGONAL = [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]
HALF = math.sqrt(0.5)


def scores(target, outputs=GIVEN, **context):
    resolved = targets.resolve(target, outputs, targets.Context(2, **context))
    assert isinstance(resolved, Similarity)
    return resolved(outputs).tolist()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(Similarity(X), [0.6, 0], id="one for all"),
        pytest.param(Similarity(torch.tensor([X, Y])), [0.6, -1], id="one per image"),
        pytest.param(Similarity([[X, Y], [DIAGONAL, Y]]), [[0.6, 0.8], [-HALF, -1]], id="T per image"),
        pytest.param(Similarity(Y, X), [0.8 - 0.6, -1], id="against one"),
        pytest.param(Similarity(Y, [X, DIAGONAL]), [0.8 - (0.6 + 1.4 * HALF) / 2, -1 + HALF / 2], id="against two"),
        pytest.param(Similarity([[X, Y]] * 2, X), [[0, 0.2], [0, -1]], id="T against one"),
    ],
)
def test_similarity_is_the_cosine(target, expected):
    """Need 21: similarity between embeddings."""
    assert scores(target) == [pytest.approx(row, abs=1e-6) for row in expected]
    if torch.as_tensor(target.embedding).ndim != 1:
        assert target(GIVEN).tolist() == [pytest.approx(row, abs=1e-6) for row in expected]


@pytest.mark.parametrize(
    "outputs",
    [
        (GIVEN, None, torch.tensor(100.0)),
        {"image_features": GIVEN, "text_features": -GIVEN, "logit_scale": torch.tensor(1.0)},
        {"image_embeds": GIVEN, "last_hidden_state": torch.zeros(2, 5, 2)},
        {"last_hidden_state": torch.zeros(2, 5, 2), "pooler_output": GIVEN},
        GIVEN[:, :, None, None],
    ],
    ids=["open_clip", "open_clip's dict", "with projection", "pooled", "not flattened"],
)
def test_the_embedding_is_found(outputs):
    assert scores(Similarity(X), outputs) == pytest.approx([0.6, 0])


def test_what_does_not_fit_is_told():
    with pytest.raises(OutputError, match=r"got: a tensor of shape \(2, 2\)\n  expected: one of shape \(B, 3\)"):
        scores(Similarity([1.0, 2, 3]))
    with pytest.raises(TargetError, match=r"got: shape \(3, 2\) for 2 images"):
        scores(Similarity([X] * 3))
    with pytest.raises(TargetError, match=r"brings none.\n  got: 'a cat'\n  expected: .*\n  do: pass Text\(prompt"):
        scores(Text("a cat"))
    with pytest.raises(TargetTypeError, match="a prompt is a text"):
        scores(Text([]), encode=lambda prompts: GIVEN)


class Encoder:
    """Prompts by their length; it counts what it is asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, prompts):
        self.asked.append(list(prompts))
        return torch.tensor([[float(len(prompt)), 1.0] for prompt in prompts])


def test_prompts_become_embeddings_and_each_is_encoded_once():
    encode, features = Encoder(), {}
    expected = F.cosine_similarity(GIVEN, torch.tensor([[2.0, 1.0]])).tolist()
    assert scores(Text("ab"), encode=encode, features=features) == pytest.approx(expected)
    per_image = F.cosine_similarity(GIVEN, torch.tensor([[2.0, 1.0], [3.0, 1.0]]))
    contrast = per_image - F.cosine_similarity(GIVEN, torch.tensor([[4.0, 1.0]]))
    found = scores(Text(["ab", "abc"], against="abcd"), encode=encode, features=features)
    assert found == pytest.approx(contrast.tolist())
    assert encode.asked == [["ab"], ["abc"], ["abcd"]]
    own = Encoder()
    assert scores(Text("ab", encode=own), encode=encode, features=features) == pytest.approx(expected)
    assert own.asked == [["ab"]]
    assert Text("ab", encode=own).resolved(GIVEN, targets.Context(2)).prompt == "ab"


# without a target


class Embedder(nn.Module):
    def __init__(self, end):
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3, stride=2)
        self.end = end

    def forward(self, image):
        return self.end(self.features(image).mean((-2, -1)))


@pytest.mark.parametrize(
    "end",
    [
        lambda x: F.normalize(x),
        lambda x: {"image_embeds": x},
        lambda x: {"pooler_output": x, "last_hidden_state": x[:, None]},
    ],
    ids=["of length 1", "named", "a model without a head"],
)
def test_an_embedding_without_a_target_is_refused(end):
    """Wrong elsewhere (part 2, 3): the dimension of the highest value is explained, say, which means nothing."""
    images = torch.rand(2, 3, 16, 16)
    with pytest.raises(OutputError, match=r"do: pass Similarity\(embedding\) as target"):
        seewhy.explain(Embedder(end), images, method="grad_cam")


def test_timm_without_a_head_is_refused():
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", num_classes=0)
    with pytest.raises(OutputError, match=r"got: a tensor of shape \(1, 512\)\n  do: pass Similarity"):
        seewhy.explain(model, torch.rand(1, 3, 32, 32), method="grad_cam")


def test_class_scores_of_length_1_by_chance_are_no_embedding():
    """Probabilities of a certain model are (0, 1, 0): of length 1 too."""
    found = seewhy.explain(Embedder(lambda x: (1e4 * x).softmax(1)), torch.rand(2, 3, 16, 16), layers="features")
    assert found.scores.tolist() == [1, 1]


def test_a_length_is_1_to_within_four_roundings():
    """(-x, 0, 0) has the length x, and its class 1 the highest score."""

    def predicted(roundings):
        length = 1 + roundings * torch.finfo(torch.float32).eps
        return targets.resolve(None, torch.tensor([[-length, 0.0, 0.0]]), targets.Context(1)).index.tolist()

    assert predicted(5) == predicted(-5) == [1]
    for roundings in (0, 4, -4):
        with pytest.raises(OutputError, match="gives an embedding"):
            predicted(roundings)


def test_pytorch_grad_cam_explains_a_dimension_of_an_embedding():
    """NEEDS part 2, 3. Both values: the peer's map without a target is of dimension argmax; here one has to ask."""
    from pytorch_grad_cam import GradCAM

    model, images = Embedder(lambda x: F.normalize(x)).eval(), torch.rand(1, 3, 16, 16)
    highest = int(model(images).argmax())
    with GradCAM(model, [model.features]) as cam:
        theirs = torch.from_numpy(cam(images, None))
    dimension = seewhy.explain(model, images, highest, layers="features").heatmap
    torch.testing.assert_close(theirs, dimension, atol=1e-3, rtol=0)  # they resize by OpenCV, in 1/32 of a pixel
    with pytest.raises(OutputError, match="Similarity"):
        seewhy.explain(model, images, layers="features")


# whole models

PROMPTS = ["a photo of a cat", "a red square"]


def image_tokens(tensor):
    """(B, 1 + 16, C), the class token first, as (B, C, 4, 4)."""
    tokens = tensor[:, -16:]
    return tokens.mT.unflatten(2, (4, 4))


def check_two_prompts(loaded, layer, grid, expected):
    """Scores are the cosines of the model's own towers, the maps of two prompts differ, text is encoded once."""
    calls = []
    embed_text = loaded.embed_text
    counted = seewhy.models.Loaded(
        loaded.module,
        loaded.preprocess,
        loaded.labels,
        loaded.name,
        lambda prompts: calls.append(list(prompts)) or embed_text(prompts),
    )
    side = loaded.preprocess.size[0]
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    wanted = expected(images)
    explainer = seewhy.Explainer(counted, "hires_cam", layers=layer, grid=grid)
    found = [explainer(images, Text(prompt)) for prompt in PROMPTS]
    for number, explanation in enumerate(found):
        torch.testing.assert_close(explanation.scores, wanted[:, number])
        assert explanation.heatmap.shape == (2, side, side)
    first, second = (next(iter(explanation.maps.values())).flatten(1) for explanation in found)
    assert float(F.cosine_similarity(first, second).max()) < 0.99
    both = explainer(images, Text(PROMPTS[0], against=PROMPTS[1]))
    torch.testing.assert_close(both.scores, wanted[:, 0] - wanted[:, 1])
    torch.testing.assert_close(next(iter(both.maps.values())).flatten(1), first - second, atol=1e-6, rtol=1e-4)
    assert calls == [[prompt] for prompt in PROMPTS]


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_transformers_clip_and_siglip(text_image_folder):
    """Need 6: CLIP and SigLIP of transformers, two prompts and two maps."""
    loaded = seewhy.load(f"transformers:{text_image_folder}")
    model = loaded.module.model
    tokens = tokens_of(text_image_folder)

    def expected(images):
        with torch.no_grad():
            output = model(pixel_values=images, **tokens)
        return output.image_embeds @ output.text_embeds.T

    layer = "model.vision_model.encoder.layers.0"
    check_two_prompts(loaded, layer, image_tokens, expected)
    with pytest.raises(OutputError, match=r'do: pass Similarity\(embedding\) as target, or Text\("..."\)'):
        seewhy.explain(loaded, torch.rand(1, 3, 32, 32), method="grad_cam")


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_clip_surgery_of_two_prompts_against_each_other(text_image_folder):
    """Without what they share one is the other's opposite: of w f - (w f + v g) / 2 and v g - (w f + v g) / 2."""
    loaded = seewhy.load(f"transformers:{text_image_folder}")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    explainer = seewhy.Explainer(loaded, "clip_surgery")
    first, second = (explainer(images, Text(own, against=other)) for own, other in (PROMPTS, PROMPTS[::-1]))
    found = first.maps["attention"]
    assert found.shape == (2, 4, 4)
    assert found.flatten(1).std(1).min() > 1e-4
    torch.testing.assert_close(found, -second.maps["attention"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(first.scores, -second.scores)


def tokens_of(folder):
    from transformers import AutoTokenizer

    padding = "max_length" if "siglip" in str(folder) else True
    return AutoTokenizer.from_pretrained(folder)(
        PROMPTS, padding=padding, max_length=8, truncation=True, return_tensors="pt"
    )


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_the_processors_keywords_give_a_score_per_prompt(text_image_folder):
    """Pictures and texts together: prompt 1 is class 1 of `logits_per_image`, and its map that of the prompt."""
    loaded = seewhy.load(f"transformers:{text_image_folder}")
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    options = {"method": "hires_cam", "grid": image_tokens}
    layer = "vision_model.encoder.layers.0"
    inputs = {**tokens_of(text_image_folder), "pixel_values": images}
    found = seewhy.explain(loaded.module.model, inputs, 1, layers=layer, **options)
    prompted = seewhy.explain(loaded, images, Text(PROMPTS[1]), layers=f"model.{layer}", **options)
    scale = float(loaded.module.model.logit_scale.detach().exp())
    torch.testing.assert_close(found.maps[layer], scale * prompted.maps[f"model.{layer}"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("number", [0, 1], ids=["resnet", "vit"])
@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_open_clip(open_clip_names, number):
    """Need 6: stock open_clip, a ResNet with its attention pool and a ViT, two prompts and two maps."""
    import open_clip

    with torch.random.fork_rng():
        torch.manual_seed(0)
        loaded = seewhy.load(f"open_clip:{open_clip_names[number]}", weights=None)
    model = loaded.module
    tokens = open_clip.get_tokenizer(open_clip_names[number])(PROMPTS)

    def expected(images):
        with torch.no_grad():
            image, text, _ = model(images, tokens)
        return image @ text.T

    if number == 0:
        check_two_prompts(loaded, "visual.layer4", None, expected)  # the attention pool comes after it
    else:
        check_two_prompts(loaded, "visual.transformer.resblocks.0", image_tokens, expected)


def test_a_bare_open_clip_takes_an_encoder(open_clip_names):
    import open_clip

    model = open_clip.create_model(open_clip_names[0])
    tokenizer = open_clip.get_tokenizer(open_clip_names[0])
    images = torch.rand(1, 3, 64, 64)
    target = Text(PROMPTS[0], encode=lambda prompts: model.encode_text(tokenizer(prompts)))
    found = seewhy.explain(model, images, target, layers="visual.layer4")
    with torch.no_grad():
        image, text, _ = model.eval()(images, tokenizer(PROMPTS[:1]))
    torch.testing.assert_close(found.scores, (image @ text.T)[:, 0])
    assert found.maps["visual.layer4"].abs().max() > 0
    with pytest.raises(OutputError, match=r"got: tuple with 0: \(1, 16\), 1: NoneType, 2: \(\)"):
        seewhy.explain(model, images, layers="visual.layer4")
