"""The methods for words against slow oracles, and what the library promises of them."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch

import seewhy
from seewhy.errors import MethodError, TargetError
from seewhy.evidence.words import Readout
from seewhy.methods.language.eagle import eagle
from seewhy.methods.language.tam import tam

pytest.importorskip("transformers")

from tests.language.families import FAMILIES, photo

ANSWER = [20, 21, 22, 20]


def tam_oracle(own, earlier, likeness, window):
    """The three steps of arXiv:2506.23270, place by place; the least squares by a search over the share."""
    rows, columns = len(own), len(own[0])
    places = list(itertools.product(range(rows), range(columns)))
    positive = {at: max(own[at[0]][at[1]], 0.0) for at in places}
    weights = [max(one, 0.0) for one in likeness]
    total = sum(weights) + 1e-8
    between = {
        (r, c): sum(w / total * max(one[r][c], 0.0) for w, one in zip(weights, earlier, strict=True)) for r, c in places
    }

    def miss(share):
        return sum((positive[at] - share * between[at]) ** 2 for at in places)

    low, high = -100.0, 100.0
    for _ in range(300):  # a parabola: thirds narrow down on its lowest point
        first, second = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, second) if miss(first) < miss(second) else (first, high)
    left = {at: max(positive[at] - (low + high) / 2 * between[at], 0.0) for at in places}

    def mirrored(at, count):
        return -at if at < 0 else 2 * (count - 1) - at if at >= count else at

    half, found = window // 2, []
    for r in range(rows):
        found.append([])
        for c in range(columns):
            around = sorted(
                left[mirrored(r + dr, rows), mirrored(c + dc, columns)]
                for dr in range(-half, half + 1)
                for dc in range(-half, half + 1)
            )
            mean = sum(around) / len(around)
            if mean <= 0:
                found[-1].append(0.0)
                continue
            spread = math.sqrt(sum((one - mean) ** 2 for one in around) / len(around)) / mean
            kernel = [math.exp(-((n - len(around) // 2) ** 2) / (2 * spread**2)) for n in range(len(around))]
            found[-1].append(sum(k * one for k, one in zip(kernel, around, strict=True)) / sum(kernel))
    return found


def test_tam_is_its_equations():
    generator = torch.Generator().manual_seed(0)
    own, earlier = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((5, 6), (4, 5, 6)))
    likeness = torch.randn(4, generator=generator, dtype=torch.float64)
    found = tam([[Readout(own, earlier, likeness)]])[0]
    expected = torch.tensor(tam_oracle(own.tolist(), earlier.tolist(), likeness.tolist(), 3), dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert found.max() > 0.1


def test_what_earlier_words_explain_is_taken_off():
    heat, other = torch.zeros(4, 4), torch.zeros(4, 4)
    heat[0, 0], other[3, 3] = 1.0, 1.0
    readout = Readout(heat + 2 * other, torch.stack([other]), torch.tensor([0.7]))
    torch.testing.assert_close(tam([[readout]], window=1)[0], heat)
    assert not tam([[Readout(other, torch.stack([other]), torch.tensor([0.7]))]], window=1).any()


def test_eagle_is_a_greedy_search_by_hand():
    """Four regions; the score of a set is written down, and the regions are added one by one by hand."""
    worth = {frozenset(): 0.1, frozenset({3}): 0.5, frozenset({1, 3}): 0.9}
    image = torch.ones(1, 1, 4, 4)

    def p(shown):
        return worth.get(frozenset(shown), 0.1 + 0.1 * len(shown) + 0.01 * sum(shown))

    def score(images, make):
        rows = make(torch.arange(len(images)))
        corners = rows[:, 0, ::2, ::2].flatten(1)
        return torch.tensor([p(corner.nonzero()[:, 0].tolist()) for corner in corners])

    order, values, present = [], [], []
    while len(present) < 4:
        gains = {
            one: p([*present, one]) + 1 - p([other for other in range(4) if other not in (*present, one)])
            for one in range(4)
            if one not in present
        }
        best = max(gains, key=gains.__getitem__)
        values.append(gains[best])
        order.append(best)
        present.append(best)
    drop = list(itertools.accumulate([0.0, *(abs(b - a) for a, b in itertools.pairwise(values))]))
    expected = torch.zeros(4)
    for one, fallen in zip(order, drop, strict=True):
        expected[one] = drop[-1] - fallen
    assert order[0] == 3
    found = eagle(image, score, regions=2)[0, ::2, ::2].flatten()
    torch.testing.assert_close(found, expected)


@pytest.fixture(scope="module")
def llava():
    model, call, (size,), _ = FAMILIES["llava"]()
    inputs = call([photo(*size)])
    model(**inputs, output_hidden_states=True)  # transformers attaches hooks of its own the first time
    return model, inputs


def test_readouts_are_the_heads_own_logits(llava):
    """Against transformers' hidden states: the map of the first token, filter and interference left out."""
    model, inputs = llava
    ids = torch.cat([inputs["input_ids"], torch.tensor([ANSWER])], 1)
    with torch.no_grad():
        whole = model(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}, output_hidden_states=True)
    logits = model.lm_head(whole.hidden_states[-1])[0]
    text = [at for at in range(19, 23) if int(ids[0, at]) != ANSWER[0]]  # 16 tokens of the picture from 3 on
    readout = Readout(
        logits[3:19, ANSWER[0]].reshape(4, 4),
        torch.stack([logits[3:19, int(ids[0, at])].reshape(4, 4) for at in text]),
        logits[text, ANSWER[0]],
    )
    found = seewhy.explain(model, inputs, seewhy.Token(0, of=ANSWER), method="tam").maps["words"]
    torch.testing.assert_close(found, tam([[readout]]).detach(), atol=1e-5, rtol=1e-4)


def test_the_score_is_the_logit_and_the_map_a_gradient_of_transformers(llava):
    model, inputs = llava
    ids = torch.cat([inputs["input_ids"], torch.tensor([ANSWER])], 1)
    kept = []
    hook = model.model.language_model.layers[1].register_forward_hook(
        lambda _, __, output: kept.append(output if torch.is_tensor(output) else output[0]) or kept[0].retain_grad()
    )
    logits = model(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}).logits
    hook.remove()
    logits[0, 24, ANSWER[2]].backward()  # the token at 25 is predicted at 24
    model.zero_grad()
    slope, values = kept[0].grad[0, 3:19].reshape(4, 4, -1), kept[0].detach()[0, 3:19].reshape(4, 4, -1)
    explanation = seewhy.explain(model, inputs, seewhy.Token(2, of=ANSWER), method="hires_cam")
    torch.testing.assert_close(explanation.scores, logits[:, 24, ANSWER[2]].detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(next(iter(explanation.maps.values()))[0], (slope * values).sum(-1), atol=1e-6, rtol=1e-4)


def test_attention_relevance_of_the_layers_that_are_looked_at(llava):
    """Equations 5 and 6 of arXiv:2103.15679 over the attention that transformers itself reports, eagerly."""
    model, inputs = llava
    ids = torch.cat([inputs["input_ids"], torch.tensor([ANSWER])], 1)
    model.set_attn_implementation("eager")
    out = model(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}, output_attentions=True)
    slopes = torch.autograd.grad(out.logits[0, 23, ANSWER[1]], out.attentions)
    model.set_attn_implementation("sdpa")
    relevance = torch.eye(ids.shape[1])
    for attention, slope in zip(out.attentions, slopes, strict=True):
        relevance = relevance + (attention * slope).clamp(min=0).mean(1)[0] @ relevance
    expected = relevance[23, 3:19].reshape(4, 4)
    found = seewhy.explain(model, inputs, seewhy.Token(1, of=ANSWER), method="attention_relevance").maps["attention"]
    torch.testing.assert_close(found[0], expected.detach(), atol=1e-6, rtol=1e-3)


def test_what_is_generated_is_what_is_explained(llava):
    model, inputs = llava
    answer = model.generate(**inputs, max_new_tokens=5, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    with torch.no_grad():
        ids = torch.cat([inputs["input_ids"], answer[None]], 1)
        logits = model(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}).logits[0, 22:-1]
    explanation = seewhy.explain(model, inputs, seewhy.Token(length=5))
    assert [explanation.name(0, n) for n in range(5)] == [str(int(token)) for token in answer]
    torch.testing.assert_close(explanation.scores[0], logits.gather(1, answer[:, None])[:, 0], atol=1e-5, rtol=1e-5)
    chances = logits.softmax(-1).gather(1, answer[:, None])[:, 0]
    torch.testing.assert_close(explanation.probabilities[0], chances, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["grad_cam", "tam", "attention_relevance", "occlusion"])
def test_the_model_and_the_inputs_are_as_they_were(llava, method):
    model, inputs = llava
    before = {name: value.clone() for name, value in {**model.state_dict(), **inputs}.items()}
    hooks = [(list(module._forward_hooks), list(module._forward_pre_hooks)) for module in model.modules()]
    model.train()
    torch.manual_seed(3)
    random.seed(3)
    options = {"window": 16, "stride": 16} if method == "occlusion" else {}
    explanation = seewhy.explain(model, inputs, seewhy.Token([0, 2], of=ANSWER), method=method, **options)
    assert all(module.training for module in model.modules())
    after = [(list(module._forward_hooks), list(module._forward_pre_hooks)) for module in model.modules()]
    assert after == hooks
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(3)))
    model.eval()
    for name, value in {**model.state_dict(), **inputs}.items():
        assert torch.equal(value, before[name]), name
    again = seewhy.explain(model, inputs, seewhy.Token([0, 2], of=ANSWER), method=method, **options)
    assert torch.equal(explanation.heatmap, again.heatmap)
    assert not explanation.heatmap.requires_grad


PIECES = {20: " red", 21: " ring", 22: "s", 23: ","}


class Words:
    """A tokenizer whose tokens are words and their endings."""

    def decode(self, ids, **_):
        return "".join(PIECES[one] for one in ids)

    def __call__(self, text, **_):
        by_text = {piece.strip(): token for token, piece in PIECES.items()}
        return {"input_ids": [by_text[word] for word in text.split()]}


def test_a_word_is_its_tokens(llava):
    model, inputs = llava
    ids = [20, 21, 22, 23]
    each = seewhy.explain(model, inputs, seewhy.Token(of=ids, tokenizer=Words()), method="hires_cam")
    assert [each.name(0, n) for n in range(4)] == ["red", "ring", "s", ","]
    words = seewhy.explain(model, inputs, seewhy.Token(of=ids, tokenizer=Words(), per="word"), method="hires_cam")
    assert [words.name(0, n) for n in range(2)] == ["red", "rings,"]
    one = seewhy.explain(model, inputs, seewhy.Token("rings", of=ids, tokenizer=Words()), method="hires_cam")
    assert one.name() == "rings"
    torch.testing.assert_close(one.scores, each.scores[:, 1:3].mean(1))
    (maps,), (several,) = one.maps.values(), each.maps.values()
    torch.testing.assert_close(maps, several[:, 1:3].mean(1), atol=1e-6, rtol=1e-4)
    said = seewhy.explain(model, inputs, seewhy.Token(-1, of="red ring", tokenizer=Words()), method="hires_cam")
    assert said.name() == "ring"


def test_what_cannot_be_asked_is_told(llava):
    model, inputs = llava
    with pytest.raises(TargetError, match="tokenizer"):
        seewhy.explain(model, inputs, seewhy.Token("ring", of=ANSWER))
    with pytest.raises(TargetError, match="no such token"):
        seewhy.explain(model, inputs, seewhy.Token(4, of=ANSWER))
    with pytest.raises(TargetError, match="does not have the text 'blue'"):
        seewhy.explain(model, inputs, seewhy.Token("blue", of=[20, 21], tokenizer=Words()))
    with pytest.raises(MethodError, match=r"seewhy\.Token"):
        seewhy.explain(torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8), lambda out: out.mean((1, 2, 3)), method="tam")
