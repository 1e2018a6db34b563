"""Several methods at once, and methods made of others: the same maps as one by one, from as few passes as can be."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy import Category, methods, targets
from seewhy.errors import MapWarning, MethodError, TargetError
from tests.contracts.zoo import CASES, CHEAP

BY_NAME = {case.name: case for case in CASES}


class Counting(torch.autograd.Function):
    """Passes on what it is given, and counts."""

    forwards = backwards = 0

    @staticmethod
    def forward(ctx, x):
        Counting.forwards += 1
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        Counting.backwards += 1
        return grad.clone()


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(6 * 64, 5)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(Counting.apply(self.body(image)).flatten(1))


def images(batch: int = 2, size: int = 16) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def quietly(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MapWarning)
        return seewhy.explain(*args, **options)


def passes(method, target=None, **options) -> tuple[int, int]:
    """The forward and backward passes of one call, once it is known how the model's layers lie."""
    model = Counted()
    quietly(model, images(), target, method=method, **options)
    Counting.forwards = Counting.backwards = 0
    quietly(model, images(), target, method=method, **options)
    return Counting.forwards, Counting.backwards


SHARED = ["grad_cam", "layer_cam", "hires_cam", "eigen_grad_cam", "odam", "random_cam", "eigen_cam", "lafam"]
TWO = torch.tensor([[0, 1], [2, 3]])


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("grad_cam", None, (1, 1)),
        ("eigen_cam", None, (1, 0)),
        (SHARED, None, (1, 1)),
        (SHARED, TWO, (1, 2)),
        ([*SHARED, "finer_cam"], None, (1, 2)),
        (["finer_cam", methods.finer("layer_cam")], None, (1, 1)),
        (["finer_cam", methods.finer("layer_cam", count=1)], None, (1, 2)),
        (["shapley_cam", "grad_cam"], None, (1, 1)),  # the second pass, for the curvature, ends at a linear head
        ("guided_grad_cam", None, (1, 2)),
        (["smooth_grad_cam_plus_plus"], None, (5, 4)),
        (["smooth_grad_cam_plus_plus", "grad_cam"], TWO, (5, 10)),
    ],
)
def test_passes_are_shared(method, target, expected):
    assert passes(method, target, layers="body") == expected


def test_passes_to_the_input_are_shared_too():
    assert passes(["full_grad", methods.Method("probe", "", lambda input_gradients: input_gradients[:, 0],
                                               ("input_gradients",), "", "")]) == (1, 1)  # fmt: skip
    assert passes(["full_grad", "guided_backprop"]) == (1, 2)


def test_cost_tells_what_is_counted():
    counted = {"1 forward": (1, 0), "1 forward, 1 backward": (1, 1), "1 forward, 2 backwards": (1, 2)}
    counted["1 + n forwards, n backwards, n = 4"] = (5, 4)
    counted["2 forwards, 1 backward"] = (2, 1)
    asking = {"score", "replay", "gradients_at", "libra_gradients_at", "neutral_replay", "references"}
    counted_at = {"shapley_cam": (1, 1)}  # linear in the layer: the pass for the curvature does not happen
    for name, found in methods.available().items():
        if asking & set(found.needs):
            continue  # as many forwards as channels, places, masks or steps, in batches
        if found.attends or "readouts" in found.needs:
            continue  # not of this model: see test_attention and tests/language
        if name == "cam":
            continue  # its weights are read off the classifier; the one pass is through the target alone
        options = {"layers": "body"} if found.layered else {}
        expected = counted_at.get(name, counted[found.cost])
        # finer_cam reports its base's cost: choosing the classes takes no pass
        assert passes(name, 1, **options) == expected, name


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["vgg_like", "volumes", "called_twice"])
@pytest.mark.parametrize("target", [None, "several"])
def test_maps_are_those_of_one_by_one(name, target):
    case = BY_NAME[name]
    model, inputs = case.model(), case.inputs()
    wanted = None if target is None else torch.tensor([[1, 5, 2], [7, 0, 2]])
    absent = {"cam", "d_rise", "tam"}  # no linear classifier in one of the models, no boxes, no words
    names = [name for name, found in methods.available().items() if name not in absent and not found.attends]
    every = [methods.get(name, **CHEAP.get(name, {})) for name in names]
    together = quietly(model, inputs, wanted, method=every)
    assert list(together) == names
    for method in every:
        found, alone = together[method.name], quietly(model, inputs, wanted, method=method)
        assert found.method == method.name
        assert found.fuse == alone.fuse
        assert found.layers == alone.layers
        torch.testing.assert_close(found.maps, alone.maps, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.scores, alone.scores)


def test_maps_of_several_methods_are_smoothed_alike():
    model, methods_ = Counted(), ["grad_cam", "finer_cam", "random_cam"]
    together = quietly(model, images(), [1, 2], method=methods_, layers="body", augment_smooth=True)
    for name in methods_:
        alone = quietly(model, images(), [1, 2], method=name, layers="body", augment_smooth=True)
        torch.testing.assert_close(together[name].maps, alone.maps)


def test_an_explainer_of_several_methods_gives_each():
    explainer = seewhy.Explainer(Counted(), ["grad_cam", "Layer-CAM"])
    assert list(explainer.each(images(), 1)) == ["grad_cam", "layer_cam"]
    with pytest.raises(MethodError, match=r"several methods(.|\n)*grad_cam, layer_cam(.|\n)*each"):
        explainer(images(), 1)
    with pytest.raises(MethodError, match="no method was given"):
        seewhy.Explainer(Counted(), [])
    with pytest.raises(MethodError, match="eigen_cam has no weighted activations"):
        seewhy.Explainer(Counted(), ["grad_cam", "eigen_cam"], eigen_smooth=True)


def test_a_list_of_one_gives_a_dict_of_one():
    found = seewhy.explain(Counted(), images(), 1, method=["grad_cam"])
    assert list(found) == ["grad_cam"]


# Finer-CAM and Refine-CAM


def test_finer_target_by_hand():
    """Scores (5, 1, 4, 3.5, -9): nearest to class 0 are 2, 3 and 1; 5 - (4 + 3.5 + 1) / 3. To class 3: 2, then 0."""
    outputs = torch.tensor([[5.0, 1.0, 4.0, 3.5, -9.0]])
    found = targets.finer(Category(torch.tensor([0])), outputs)
    assert found.against.tolist() == [[2, 3, 1]]
    torch.testing.assert_close(found(outputs), torch.tensor([5 - 8.5 / 3]))
    two = targets.finer(Category(torch.tensor([[0, 3]])), outputs, count=2, strength=0.5)
    assert two.against.tolist() == [[[2, 3], [2, 0]]]
    torch.testing.assert_close(two(outputs), torch.tensor([[5 - 0.5 * 3.75, 3.5 - 0.5 * 4.5]]))
    assert targets.finer(Category(torch.tensor([0])), outputs, count=9).against.shape == (1, 4)


def test_finer_cam_is_its_base_of_the_difference():
    model = Counted()
    logits = model(images()).detach()
    found = quietly(model, images(), method="finer_cam", layers="body")
    chosen = logits.argmax(1)
    others = logits.argsort(1, descending=True)[:, 1:4]

    def difference(outputs: Tensor) -> Tensor:
        return outputs.gather(1, chosen[:, None])[:, 0] - outputs.gather(1, others).mean(1)

    expected = quietly(model, images(), difference, layers="body")
    torch.testing.assert_close(found.maps, expected.maps)
    torch.testing.assert_close(found.scores, expected.scores)
    assert found.targets.index.tolist() == chosen.tolist()
    torch.testing.assert_close(found.probabilities, logits.softmax(1).amax(1))
    assert found[1:].targets.against.tolist() == others[1:].tolist()


def test_any_method_can_be_made_finer_or_refined():
    made = [methods.finer("Layer-CAM", count=1), methods.refine(methods.finer("grad_cam")), methods.refine("lafam")]
    found = quietly(BY_NAME["vgg_like"].model(), BY_NAME["vgg_like"].inputs(), method=made)
    assert list(found) == ["finer_layer_cam", "refine_finer_grad_cam", "refine_lafam"]
    assert [len(explanation.layers) for explanation in found.values()] == [1, 4, 4]
    assert [explanation.fuse for explanation in found.values()] == ["mean", "product", "product"]


def test_finer_cam_of_what_is_no_class_is_refused():
    with pytest.raises(TargetError, match="only a class can be compared"):
        seewhy.explain(Counted(), images(), lambda output: output.sum(1), method="finer_cam")


def test_a_map_does_not_depend_on_what_else_is_drawn():
    """Each starts from the generator's state; and the generator has moved on afterwards."""
    model, generator = Counted(), torch.Generator().manual_seed(3)
    drawing = ["random_cam", "smooth_grad_cam_plus_plus"]
    first = quietly(model, images(), TWO, method=drawing, layers="body", generator=generator)
    for name in drawing:
        alone = quietly(
            model, images(), TWO[:, 1], method=name, layers="body", generator=torch.Generator().manual_seed(3)
        )
        torch.testing.assert_close(first[name].maps["body"][:, 1], alone.maps["body"])
    again = quietly(model, images(), TWO, method="random_cam", layers="body", generator=generator)
    assert not torch.allclose(again.maps["body"], first["random_cam"].maps["body"])
    whole = torch.rand(100, generator=torch.Generator().manual_seed(3)).tolist()
    assert not {*torch.rand(50, generator=generator).tolist()} & {*whole}, "the same numbers again, some places on"
