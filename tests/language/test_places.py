"""Where the tokens of pictures lie: a region of a photo is changed, and the model itself shows which tokens it moves.

Nothing of the library takes part in the planted answer: the photo is changed before the family's own processor sees
it, and the tower runs as it always does.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

import seewhy
from seewhy.errors import InputError, LayerError
from seewhy.evidence._sight import places, sight
from seewhy.geometry.lattice import laid_out

transformers = pytest.importorskip("transformers")

from seewhy.engine.session import session  # noqa: E402
from seewhy.inputs.prompted import Prompted  # noqa: E402
from tests.language.families import FAMILIES, Family, photo  # noqa: E402

REFUSED = {"blip2": 9, "kosmos2": 9, "florence2": 65}  # how many tokens a picture becomes
PLACED = [name for name in FAMILIES if name not in REFUSED]


@cache
def built(name: str) -> Family:
    return FAMILIES[name]()


def found(model, inputs):
    """The call with its layers, and the grid, as they are found."""
    encoded = getattr(model.config, "is_encoder_decoder", False)
    more = {"decoder_input_ids": torch.tensor([[2]] * len(inputs["input_ids"]))} if encoded else {}
    with session(model, Prompted.of({**inputs, **more}, model)) as run:
        call = sight(run)
        return call, places(replace(run, call=call), call)


def vectors(model, layer, inputs):
    """What the layer is given, by a hook of its own."""
    kept = []
    hook = model.get_submodule(layer).register_forward_pre_hook(
        lambda _, args, kwargs: kept.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    more = {"decoder_input_ids": torch.tensor([[2]])} if getattr(model.config, "is_encoder_decoder", False) else {}
    try:
        with torch.no_grad():
            model(**inputs, **more)
    finally:
        hook.remove()
    return kept[0]


@pytest.mark.few(4)
@pytest.mark.parametrize("name", PLACED)
def test_a_region_moves_the_tokens_that_the_grid_has_there(name):
    model, call, (size,), expected = built(name)
    before = photo(*size)
    inputs = call([before])
    made, grid = found(model, inputs)
    assert grid.space == expected
    start = vectors(model, made.layers[0], inputs)
    rows, columns = expected
    generator = torch.Generator().manual_seed(1)
    for row, column in {(0, 0), (rows - 1, columns - 1), (rows // 2, columns // 3), (rows // 3, columns - 2)}:
        top, bottom = (round(at * size[0] / rows) for at in (row, row + 1))
        left, right = (round(at * size[1] / columns) for at in (column, column + 1))
        after = before.clone()
        patch = after[:, top:bottom, left:right]
        after[:, top:bottom, left:right] = torch.randint(256, patch.shape, generator=generator).byte()
        moved = (vectors(model, made.layers[0], call([after])) - start).square().sum(-1, keepdim=True)
        on_grid = grid.fold(moved)[0, 0]
        assert divmod(int(on_grid.argmax()), columns) == (row, column), on_grid


@pytest.mark.parametrize("name", REFUSED)
def test_where_tokens_have_no_places_the_vision_tower_is_looked_at(name):
    """Grad-CAM by hand at the layer that was chosen: its last 16 or 64 tokens are patches, in rows."""
    model, call, (size,), _ = built(name)
    inputs = call([photo(*size)])
    found = seewhy.explain(model, inputs, seewhy.Token(0, of=[20, 21]), method="grad_cam")
    ((layer, maps),) = found.maps.items()
    assert found.note.startswith(f"{layer} ({maps.shape[-1]} x {maps.shape[-1]}")
    kept = {}

    def keep(_, __, output):
        output.retain_grad()
        kept["tokens"] = output

    more = {"decoder_input_ids": torch.tensor([[2]])} if name == "florence2" else {}
    hook = model.get_submodule(layer).register_forward_hook(keep)
    model(**inputs, **more).logits[0, -1, 20].backward()
    hook.remove()
    model.zero_grad()
    cells = maps.shape[-1]
    patches, slopes = (tensor[:, -(cells**2) :].detach() for tensor in (kept["tokens"], kept["tokens"].grad))
    expected = (patches * slopes.mean(1, keepdim=True)).sum(-1).reshape(1, cells, cells)
    torch.testing.assert_close(
        maps.reshape(expected.shape), expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-3
    )


@pytest.mark.parametrize("name", REFUSED)
def test_methods_of_the_tokens_refuse_tokens_without_places_and_offer_others(name):
    model, call, (size,), _ = built(name)
    inputs = call([photo(*size)])
    for method in ("attention_relevance", "tam"):
        with pytest.raises(
            LayerError, match=f"{REFUSED[name]} tokens for a view of {size[0]} x {size[1]} pixels"
        ) as raised:
            seewhy.explain(model, inputs, seewhy.Token(0, of=[20, 21]), method=method)
        assert 'method="grad_cam"' in str(raised.value)
        assert "grid=" in str(raised.value)
    options = {"window": size[0] // 2, "stride": size[0] // 2}
    explanation = seewhy.explain(model, inputs, seewhy.Token(0, of=[20, 21]), method="occlusion", **options)
    assert explanation.heatmap.shape == (1, *size)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "llava_next"])
def test_the_pictures_of_several_prompts_or_of_one_are_told_apart(name):
    model, call, (size,), _ = built(name)
    first, second = photo(*size, seed=1), photo(*size, seed=2)
    one, other = call([first]), call([second])
    both = {key: torch.cat([one[key], other[key]]) for key in one}
    for method, options in (("grad_cam", {}), ("occlusion", {"window": 16, "stride": 16})):
        together = seewhy.explain(model, both, seewhy.Token(of=[20, 21]), method=method, **options)
        for row, inputs in enumerate((one, other)):
            alone = seewhy.explain(model, inputs, seewhy.Token(of=[20, 21]), method=method, **options)
            for name, maps in alone.maps.items():
                torch.testing.assert_close(together.maps[name][row : row + 1], maps, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_several_pictures_of_a_prompt_lie_one_behind_the_other(name):
    model, call, (size,), expected = built(name)
    photos = [photo(*size, seed=1), photo(*size, seed=2)]
    made, grid = found(model, call(photos))
    assert grid.space == (2, *expected)
    start = vectors(model, made.layers[0], call(photos))
    changed = [photos[0], photos[1].clone()]
    changed[1][:, :8, -8:] = 255 - changed[1][:, :8, -8:]
    moved = (vectors(model, made.layers[0], call(changed)) - start).square().sum(-1, keepdim=True)
    assert torch.unravel_index(grid.fold(moved)[0, 0].argmax(), grid.space) == (1, 0, expected[1] - 1)


def test_the_frames_of_a_video_are_told_apart():
    model, *_ = built("qwen2_vl")
    frames, rows, columns = 3, 4, 6
    patches = torch.randn(frames * rows * columns, 3 * 2 * 8 * 8, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[1, 5, *[92] * 18, 11, 12]])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": 2 * (ids == 92).int(),
        "pixel_values_videos": patches,
        "video_grid_thw": torch.tensor([[frames, rows, columns]]),
    }
    made, grid = found(model, inputs)
    assert grid.space == (3, 2, 3)
    assert made.size == (3, 32, 48)
    start = vectors(model, made.layers[0], inputs)
    changed = patches.clone()
    changed[1 * 24 + 2 * 4] += 1.0  # the third square of four patches of the second frame
    moved = vectors(model, made.layers[0], {**inputs, "pixel_values_videos": changed}) - start
    on_grid = grid.fold(moved.square().sum(-1, keepdim=True))[0, 0]
    assert torch.unravel_index(on_grid.argmax(), grid.space) == (1, 0, 2)


def test_tokens_in_a_grid_are_told_from_queries():
    """Merged patches answer inside their own place; queries answer anywhere, or all of them to the middle."""
    tokens = torch.arange(10, 19)
    row, column = torch.arange(9) // 3, torch.arange(9) % 3
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        jitter = torch.randint(2, (2, 9), generator=generator)
        assert torch.equal(laid_out(tokens, 2 * row + jitter[0], 2 * column + jitter[1], (6, 6)), tokens.reshape(3, 3))
        assert laid_out(tokens, *torch.randint(6, (2, 9), generator=generator), (6, 6)) is None
    assert laid_out(tokens[:4], torch.full((4,), 2), torch.full((4,), 2), (4, 4)) is None
    cut = laid_out(tokens[:6], torch.tensor([3, 3, 3, 2, 2, 2]), torch.tensor([1, 2, 3, 1, 2, 3]), (4, 4))
    expected = torch.full((4, 4), -1)
    expected[3, 1:], expected[2, 1:] = tokens[:3], tokens[3:6]
    assert torch.equal(cut, expected)


def test_what_is_no_prompt_is_refused():
    model, call, (size,), _ = built("llava")
    with pytest.raises(InputError, match="input_ids, pixel_values"):
        seewhy.explain(model, torch.zeros(1, 3, 32, 32), seewhy.Token(0))
    inputs = call([photo(*size)])
    with pytest.raises(InputError, match="no picture"):
        seewhy.explain(model, {"input_ids": inputs["input_ids"]}, seewhy.Token(0))


def test_a_layer_of_the_vision_tower_may_be_named():
    """Its class token is left out: 4 x 4 patches follow."""
    model, call, (size,), _ = built("llava")
    inputs = call([photo(*size)])
    token, layer = seewhy.Token(0, of=[20, 21]), "model.vision_tower.encoder.layers.0"
    found = seewhy.explain(model, inputs, token, method="grad_cam", layers=layer)
    by_hand = seewhy.explain(
        model, inputs, token, method="grad_cam", layers=layer, grid=lambda tokens: tokens[:, 1:].mT.unflatten(2, (4, 4))
    )
    torch.testing.assert_close(found.maps[layer], by_hand.maps[layer])
