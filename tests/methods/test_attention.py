"""Methods of attention: by hand, against the slow oracle, and from a model's own report of its attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import seewhy
from seewhy.errors import InputError, MapWarning, MethodError
from seewhy.methods.attention.flow import attention_relevance, attention_rollout
from seewhy.methods.attention.slopes import agcam, grad_eclip, le_grad
from seewhy.methods.perturbation import token_masks
from tests.attention_models import CASES
from tests.oracles import attention as oracle

BY_NAME = {case.name: case for case in CASES}
WHOLE = [case for case in CASES if case.tokens]
NAMES = [name for name, found in seewhy.methods.available().items() if found.attends]


def itself(rows):
    return rows


def test_rollout_by_hand():
    """Two layers, a class token and two patches; the first layer moves half of its class token to the first patch.

    A1's class row is (3/4, 1/4, 0), A2's (1/2, 1/4, 1/4): 1/2 (3/4, 1/4, 0) + 1/4 (0, 1, 0) + 1/4 (0, 0, 1).
    """
    first = torch.eye(3)
    first[0] = torch.tensor([0.5, 0.5, 0.0])
    second = torch.eye(3)
    second[0] = torch.tensor([0.0, 0.5, 0.5])
    layers = [first[None, None], second[None, None]]
    readings = [torch.tensor([[1.0, 0.0, 0.0]])] * 2
    found = attention_rollout(layers, readings, itself)
    torch.testing.assert_close(found, torch.tensor([[0.375, 0.375, 0.25]]))
    bare = attention_rollout(layers, readings, itself, residual=0.0)
    torch.testing.assert_close(bare, torch.tensor([[0.0, 0.5, 0.5]]))


def test_rollout_leaves_out_the_smallest_weights():
    """Of (0.1, 0.6, 0.3) and (0.2, 0.3, 0.5) a third, which are 0.1 and 0.2; the rest is scaled to 1 again."""
    weights = torch.tensor([[0.1, 0.6, 0.3], [0.2, 0.3, 0.5]])[None, None]
    found = attention_rollout([weights], [torch.tensor([[1.0, 0.0]])], itself, discard=1 / 3)
    torch.testing.assert_close(found, torch.tensor([[0.0, 2 / 3, 1 / 3]]))


def test_relevance_by_hand():
    """Of dS/dA * A only what is positive, averaged over heads: 1/2 (0.5 * 4 + 0) for the first patch, 0 for the second.

    The second layer gives the second patch 0.5 * 2 and, through it, 1 * the 0.25 of what that patch had gathered.
    """
    first, second = torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 3, 3)
    slopes, later = torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 3, 3)
    first[0, 0, 0, 1], slopes[0, 0, 0, 1] = 0.5, 4.0
    first[0, 1, 0, 2], slopes[0, 1, 0, 2] = 0.5, -4.0
    first[0, 0, 2, 1], slopes[0, 0, 2, 1] = 0.25, 2.0
    second[0, 0, 0, 2], later[0, 0, 0, 2] = 0.5, 2.0
    readings = [torch.tensor([[1.0, 0.0, 0.0]])] * 2
    found = attention_relevance([first, second], [slopes, later], readings, itself)
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0 + 0.25, 1.0]]))


def drawn(pools):
    """Three layers of two heads for two images of five tokens, the first before the patches; perhaps one that pools."""
    generator = torch.Generator().manual_seed(5)
    shapes = [(2, 2, 5, 5)] * 3 + [(2, 2, 1, 5)] * pools
    logits = [2 * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    gradients = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    readings = [torch.rand(shape[0], shape[2], generator=generator, dtype=torch.float64) for shape in shapes]
    return logits, [layer.softmax(-1) for layer in logits], gradients, readings


def of(image, layers):
    return [layer[image].numpy() for layer in layers]


@pytest.mark.parametrize("pools", [False, True])
def test_methods_are_their_oracles(pools):
    logits, attentions, gradients, readings = drawn(pools)
    for image in range(2):
        Z, A, g, read = (of(image, layers) for layers in (logits, attentions, gradients, readings))
        expected = {
            "attention_rollout": oracle.attention_rollout(A, read),
            "attention_relevance": oracle.attention_relevance(A, g, read),
            "agcam": oracle.agcam(Z, g, read),
            "le_grad": oracle.le_grad(g),
        }
        found = {
            "attention_rollout": attention_rollout(attentions, readings, itself),
            "attention_relevance": attention_relevance(attentions, gradients, readings, itself),
            "agcam": agcam(logits, gradients, readings, itself),
            "le_grad": le_grad(gradients, itself),
        }
        for name, tokens in expected.items():
            np.testing.assert_allclose(found[name][image], tokens, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize(("fusion", "residual"), [("max", 0.5), ("min", 0.3)])
def test_rollout_fuses_heads_as_told(fusion, residual):
    _, attentions, _, readings = drawn(False)
    found = attention_rollout(attentions, readings, itself, fusion=fusion, residual=residual)
    expected = oracle.attention_rollout(of(0, attentions), of(0, readings), residual, getattr(np, fusion))
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("option", "message"), [({"fusion": "sum"}, '"mean", "max" or "min"'), ({"discard": 1.0}, "0 <= discard < 1")]
)
def test_rollout_refuses_what_is_no_option(option, message):
    _, attentions, _, readings = drawn(False)
    with pytest.raises(InputError, match=message):
        attention_rollout(attentions, readings, itself, **option)


@pytest.mark.parametrize("rows", [5, 1])
def test_grad_eclip_is_its_oracle(rows):
    generator = torch.Generator().manual_seed(6)

    def tensor(rows, d):
        return torch.randn(2, 3, rows, d, generator=generator, dtype=torch.float64)

    q, k, v, g = tensor(rows, 4), tensor(5, 4), tensor(5, 6), tensor(rows, 6)
    found = grad_eclip(q, k, v, g, lambda values: values[:, 1:])
    for image in range(2):
        expected = oracle.grad_eclip(*of(image, (q, k, v, g)), patches=range(1, 5))
        np.testing.assert_allclose(found[image], expected, rtol=1e-12)


def reported(case, category):
    """What transformers' eager attention reports of itself, in float64: everything that the oracles take, by image."""
    model = case.model().double()
    last = model.vit.layers[-1].attention
    seen = {}
    for name in ("q_proj", "k_proj", "v_proj"):
        last.get_submodule(name).register_forward_hook(lambda _m, _a, made, name=name: seen.update({name: made}))
    last.o_proj.register_forward_pre_hook(lambda _m, args: seen.update(output=args[0]))
    outputs = model(case.images().double(), output_attentions=True, output_hidden_states=True)
    score = outputs.logits[:, category].sum()
    *slopes, at_output = torch.autograd.grad(score, [*outputs.attentions, seen["output"]], retain_graph=True)
    by_layer = []
    for A, tokens in zip(outputs.attentions, outputs.hidden_states[1:], strict=True):
        logits = model.classifier(model.vit.layernorm(tokens.mean(1)))
        by_layer.append(torch.autograd.grad(logits[:, category].sum(), A, retain_graph=True)[0])

    def heads(tensor):
        return tensor.detach().unflatten(2, (2, -1)).transpose(1, 2)

    qkv = [heads(tensor) for tensor in (seen["q_proj"], seen["k_proj"], seen["v_proj"], at_output)]
    return [layer.detach() for layer in outputs.attentions], slopes, by_layer, qkv


def test_maps_are_those_of_what_the_model_reports_of_itself():
    """The map of a model under SDPA, in float32, from the attention that the same model reports under eager attention.

    Softmax forgets a constant, so AGCAM's scores are not told by the probabilities: they come of queries and keys.
    """
    category, eager = 1, BY_NAME["transformers ViT eager"]
    attentions, slopes, by_layer, qkv = reported(eager, category)
    model, images = BY_NAME["transformers ViT sdpa"].model(), eager.images()
    assert model.config._attn_implementation == "sdpa"
    names = ["attention_rollout", "attention_relevance", "le_grad", "grad_eclip"]
    explanations = seewhy.explain(model, images, category, method=names)
    read = [np.eye(17)[0]] * 2
    for image in range(3):
        A, g, layers = of(image, attentions), of(image, slopes), of(image, by_layer)
        expected = {
            "attention_rollout": oracle.attention_rollout(A, read)[1:],
            "attention_relevance": oracle.attention_relevance(A, g, read)[1:],
            "le_grad": oracle.le_grad(layers)[1:],
            "grad_eclip": oracle.grad_eclip(*of(image, qkv), patches=range(1, 17)),
        }
        for name, patches in expected.items():
            found = explanations[name].maps["attention"][image].flatten()
            scale = np.abs(patches).max()
            np.testing.assert_allclose(found, patches, rtol=1e-4, atol=1e-5 * scale, err_msg=name)  # float32


def test_le_grad_of_a_model_that_pools_by_attention():
    """dS/dA = dS/do v at the pool, o = A v being its output, for the tokens that each block returned."""
    case = BY_NAME["timm siglip"]
    images, double = case.images(), case.model().double()
    tokens, seen = [], {}
    for block in double.blocks:
        block.register_forward_hook(lambda _m, _a, output: tokens.append(output))
    double(images.double())
    pool = double.attn_pool
    pool.kv.register_forward_hook(lambda _m, _a, made: seen.update(v=made.unflatten(2, (2, 2, 8))[:, :, 1]))
    pool.proj.register_forward_pre_hook(lambda _m, args: seen.update(output=args[0]))
    layers = []
    for returned in tokens:
        score = double.forward_head(double.norm(returned))[:, 1].sum()
        slope = torch.autograd.grad(score, seen["output"])[0].unflatten(2, (2, 8))
        layers.append(torch.einsum("brhd,bnhd->bhrn", slope, seen["v"].detach()))
    found = seewhy.explain(case.model(), images, 1, method="le_grad").maps["attention"].flatten(1)
    for image in range(3):
        expected = oracle.le_grad(of(image, layers))
        np.testing.assert_allclose(found[image], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())  # float32


@pytest.mark.few(3)
@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_maps_lie_on_the_grid_without_a_word_of_configuration(case):
    """Each is that of the same image alone, and says something: no two places are alike."""
    model, images = case.model(), case.images()
    grid = tuple(side // 8 for side in case.size)
    together = seewhy.explain(model, images, 1, method=NAMES)
    alone = seewhy.explain(model, images[1:2], 1, method=NAMES)
    for name in NAMES:
        found = together[name].maps["attention"]
        assert found.shape == (3, *grid)
        assert together[name].heatmap.shape == (3, *case.size)
        assert found.flatten(1).std(1).min() > 1e-4 * found.abs().max()
        torch.testing.assert_close(found[1:2], alone[name].maps["attention"], rtol=1e-4, atol=1e-6)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("fused", "open_"),
    [
        ("timm vit", "timm vit unfused"),
        ("timm beit", "timm beit unfused"),
        ("timm siglip", "timm siglip unfused"),
        ("transformers Beit sdpa", "transformers Beit eager"),
        ("transformers SiglipVision sdpa", "transformers SiglipVision eager"),
    ],
)
@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_fused_and_written_out_attention_give_the_same_maps(fused, open_):
    images = BY_NAME[fused].images()
    maps = [
        {name: found.maps["attention"] for name, found in seewhy.explain(model, images, 0, method=NAMES).items()}
        for model in (BY_NAME[fused].model(), BY_NAME[open_].model())
    ]
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-4, atol=1e-6)


@pytest.mark.few(1)
@pytest.mark.parametrize("target", [1, torch.tensor([[1, 0], [2, 2], [0, 4]])])
def test_maps_beside_those_of_layers_are_those_of_one_by_one(target):
    case = BY_NAME["timm vit"]
    model, images = case.model(), case.images()
    together = seewhy.explain(model, images, target, method=["layer_cam", *NAMES, seewhy.methods.finer("agcam")])
    for name in ("layer_cam", "attention_relevance", "le_grad"):
        alone = seewhy.explain(model, images, target, method=name)
        torch.testing.assert_close(together[name].maps, alone.maps, rtol=1e-4, atol=1e-6)
    assert together["finer_agcam"].maps["attention"].shape == together["agcam"].maps["attention"].shape
    assert not torch.allclose(together["finer_agcam"].maps["attention"], together["agcam"].maps["attention"])


def test_cost_tells_how_often_the_model_runs():
    """Where the tokens lie is worked out once: the second call is counted, from the start of the model on."""
    case = BY_NAME["timm vit"]
    model, layers = case.model(), case.layers
    calls = []
    model.patch_embed.proj.register_forward_pre_hook(lambda _m, _a: calls.append(1))
    counted = {
        "1 forward": 1,
        "1 forward, 1 backward": 1,
        "2 forwards, L without the blocks, L backwards": 2 + layers,
        "1 forward, 1 with every block twice, and for each token what follows the last block": 2,
    }
    for name in NAMES:
        explainer = seewhy.Explainer(model, name)
        explainer(case.images(), 1)
        calls.clear()
        explainer(case.images(), 1)
        assert len(calls) == counted[seewhy.methods.get(name).cost], name


@pytest.mark.few(6)
@pytest.mark.parametrize("case", [case for case in CASES if not case.tokens], ids=lambda case: case.name)
@pytest.mark.parametrize("method", NAMES)
def test_attention_in_windows_is_refused(case, method):
    with pytest.raises(MethodError, match=r"attention of shapes \(12, 2(.|\n)*layer_cam"):
        seewhy.explain(case.model(), case.images(), method=method)


def test_a_convolutional_network_is_refused_with_what_would_apply():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(MethodError, match=r"a model without attention(.|\n)*grad_cam"):
        seewhy.explain(model, torch.randn(1, 3, 8, 8), method="attention_rollout")


def test_a_layer_is_refused():
    with pytest.raises(MethodError, match="looks at all attention, not at a layer"):
        seewhy.Explainer(BY_NAME["timm vit"].model(), "agcam", layers="blocks.1")


def test_a_class_tokens_last_block_has_maps_all_the_same():
    """Behind it no gradient reaches a patch: the map of any method of gradients is blank there. Attention has some."""
    case = BY_NAME["timm vit"]
    model, images = case.model(), case.images()
    with pytest.warns(MapWarning, match=r"blocks\.1 is zero everywhere"):
        blank = seewhy.explain(model, images, 1, layers="blocks.1")
    assert not blank.maps["blocks.1"].any()
    found = seewhy.explain(model, images, 1, method="attention_relevance").maps["attention"]
    assert found.abs().amax((1, 2)).min() > 0


def test_a_given_grid_is_used():
    """Tokens of a 4 x 6 grid read as 6 x 4: the same values in the same order."""
    case = BY_NAME["timm vit"]
    model, images = case.model(), case.images()
    found = seewhy.explain(model, images, method="attention_rollout").maps["attention"]
    turned = seewhy.explain(model, images, method="attention_rollout", grid=(6, 4)).maps["attention"]
    assert turned.shape == (3, 6, 4)
    assert torch.equal(turned.flatten(1), found.flatten(1))
    by_hand = seewhy.explain(
        model, images, method="attention_rollout", grid=lambda tokens: tokens[:, 1:].mT.unflatten(2, (4, 6))
    )
    assert torch.equal(by_hand.maps["attention"], found)


@pytest.mark.parametrize("images", [2, 3])
def test_two_prompts_of_clip_give_two_maps_and_the_text_encoder_is_left_out(images):
    """The text has as many tokens as a coarser grid of the image; in one case there are as many prompts as images."""
    small = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 30, "max_position_embeddings": 8, "eos_token_id": 29},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    prompts = torch.tensor([[1, 5, 29, 0], [1, 7, 8, 29]])
    both = {"pixel_values": torch.randn(images, 3, 32, 32), "input_ids": prompts}

    def target(output):
        return output.logits_per_image

    found = seewhy.explain(model, both, target, method="attention_relevance").maps["attention"]
    assert found.shape == (images, 2, 4, 4)
    assert (found[:, 0] - found[:, 1]).abs().amax((1, 2)).min() > 1e-3 * found.abs().max()


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_vit_cx_is_its_oracle():
    """On the tokens before the last block of a class token's ViT: the oracle runs it in float64, mask by mask."""
    case, category = BY_NAME["timm vit"], 1
    model, images = case.model(), case.images(2)
    layer, distance = "blocks.1.norm1", 0.25
    found = seewhy.explain(model, images, category, method="vit_cx", distance=distance)
    assert found.layers == (layer,)
    double = case.model().double()
    tokens = []
    double.get_submodule(layer).register_forward_hook(lambda _m, _a, output: tokens.append(output))

    def run(array):
        with torch.no_grad():
            return double(torch.tensor(array)[None])[0, category].item()

    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(0)))
    noises = [
        0.1 * torch.randn(3, *case.size, generator=torch.Generator().manual_seed(seed + number)).double().numpy()
        for number in range(16)
    ]
    for image in range(2):
        pixels = images[image].double().numpy()
        run(pixels)
        A = tokens[-1][0, 1:].mT.unflatten(1, (4, 6)).numpy()
        expected = oracle.vit_cx(run, pixels, A, noises, distance)
        scale = np.abs(expected).max()
        # float32: a weight is a difference of scores, known to the rounding of a score
        np.testing.assert_allclose(found.maps[layer][image], expected, rtol=1e-3, atol=1e-3 * scale)


def test_groups_of_masks_are_those_of_complete_linkage():
    """a and b are near, b and c are near, a and c are not: one pair joins, and the third stays alone."""
    angles = torch.tensor([0.0, 0.3, 0.65, 1.5], dtype=torch.float64)
    masks = torch.stack([angles.cos(), angles.sin(), torch.zeros(4)], 1)
    for distance in (0.01, 0.06, 0.1, 0.5, 2.0):
        sums = [sum(masks[number] for number in group) for group in oracle.groups(masks.numpy(), distance)]
        expected = torch.stack([(mask - mask.min()) / (mask.max() - mask.min()) for mask in sums])
        torch.testing.assert_close(token_masks._grouped(masks, distance), expected)
    assert [len(oracle.groups(masks.numpy(), distance)) for distance in (0.01, 0.06, 0.1, 0.5, 2.0)] == [4, 3, 3, 2, 1]


def test_le_grad_asks_the_head_alone_about_each_layer():
    """Two forwards, whatever the number of blocks; the head and its backward for each of them."""
    case = BY_NAME["timm siglip"]
    model, calls = case.model(), []
    model.blocks[0].norm1.register_forward_hook(lambda *_: calls.append("block"))
    model.norm.register_forward_hook(lambda *_: calls.append("head"))
    explainer = seewhy.Explainer(model, "le_grad")
    explainer(case.images(), 1)  # the layout is looked at once
    calls.clear()
    explainer(case.images(), 1)
    assert calls.count("block") == 2
    assert calls.count("head") == 2 + len(model.blocks)
