"""A need is one provider: entered from outside here, with no edit of the library."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import MethodError
from seewhy.evidence import Forward, Request, provides
from seewhy.evidence import _provider as registry
from seewhy.methods.registry import Method


class Small(nn.Module):
    """Two convolutions, one linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        self.head = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.second(self.first(images).relu()).relu().mean((2, 3)))


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    """The providers that a test enters are gone after it."""
    registry.provider("activations")
    before = dict(registry._providers)
    yield
    registry._providers.clear()
    registry._providers.update(before)


def drawn(name: str, function, *needs: str) -> Method:
    return Method(name, "cam", function, needs, "a test", "1 forward")


def test_a_need_from_outside_is_given_to_a_method(small: Small) -> None:
    """What a layer returns for the mirrored image: another forward of the session, at the same layer."""

    @provides("mirrored", layered=True)
    def mirrored(request: Request) -> Tensor:
        again = request.forward.again(request.forward.call.seen_as(lambda image: image.flip(-1)))
        return again.fold(request.label)(again.tape.activations[request.label].detach())

    def asymmetry(activations: Tensor, mirrored: Tensor) -> Tensor:
        return (activations - mirrored.flip(-1)).sum(1)

    images = torch.randn(2, 3, 8, 8)
    method = drawn("asymmetry", asymmetry, "activations", "mirrored")
    found = seewhy.explain(small, images, 0, method=method, layers="first").maps["first"]
    expected = (small.first(images) - small.first(images.flip(-1)).flip(-1)).sum(1).detach()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_providers_that_name_the_same_pass_share_it(small: Small) -> None:
    def twice(forward: Forward) -> Tensor:
        return forward.run.run(forward.call).detach() * 2

    @provides("doubled")
    def doubled(request: Request) -> Tensor:
        return request.forward.once(twice)

    @provides("halved")
    def halved(request: Request) -> Tensor:
        return request.forward.once(twice) / 4

    def scale(activations: Tensor, doubled: Tensor, halved: Tensor) -> Tensor:
        return activations.sum(1) * (doubled / halved).mean()

    ran: list[int] = []
    small.head.register_forward_hook(lambda _, __, output: ran.append(len(output)))
    method = drawn("scale", scale, "activations", "doubled", "halved")
    images = torch.randn(2, 3, 8, 8)
    classes = torch.tensor([[0, 1], [1, 2]])
    found = seewhy.explain(small, images, classes, method=method, layers="first").maps["first"]
    ran.clear()
    seewhy.explain(small, images, classes, method=method, layers="first")
    assert ran == [2, 2]  # the recorded forward, and one for both needs, both targets
    torch.testing.assert_close(found[:, 0], 4 * small.first(images).sum(1).detach(), rtol=1e-5, atol=1e-5)


def test_leaves_of_all_providers_come_from_one_backward_pass(small: Small) -> None:
    """The gradient at a layer beside the one that is looked at, recorded and asked for by a provider of its own."""
    passes = []

    @provides(
        "slope_of_first",
        layers=lambda model: {"first": model.get_submodule("first")},
        leaves=lambda forward: [kept for label, kept in forward.tape.activations.items() if label.name == "first"],
    )
    def slope_of_first(request: Request) -> Tensor:
        (leaf,) = (kept for label, kept in request.forward.tape.activations.items() if label.name == "first")
        return request.slope(leaf)

    def product(activations: Tensor, gradients: Tensor, slope_of_first: Tensor) -> Tensor:
        return (activations * gradients).sum(1) * 0 + slope_of_first.sum(1)

    class Counted(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if images.requires_grad:
                images.register_hook(lambda _: passes.append(1))
            return images * 1.0

    small.second = nn.Sequential(small.second, Counted())
    method = drawn("product", product, "activations", "gradients", "slope_of_first")
    images = torch.randn(1, 3, 8, 8)
    found = seewhy.explain(small, images, 1, method=method, layers="second").maps["second"]
    assert len(passes) == 1
    kept = small.first(images).detach().requires_grad_()
    small.head(small.second(kept.relu()).relu().mean((2, 3)))[0, 1].backward()
    torch.testing.assert_close(found, kept.grad.sum(1), rtol=1e-5, atol=1e-7)


def test_what_nobody_provides_is_an_error_that_names_what_is_near(small: Small) -> None:
    with pytest.raises(MethodError, match=r"nothing provides 'gradient'(.|\n)*gradients"):
        seewhy.explain(small, torch.randn(1, 3, 8, 8), method=drawn("odd", lambda gradient: gradient, "gradient"))
