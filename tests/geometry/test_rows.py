"""Which image, and which frame, each row of a layer answers to; models that take no batch, or mix it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from seewhy.geometry.judge import NoPlaces
from seewhy.geometry.placement import Placement
from seewhy.geometry.proof import Proof, prove
from tests.geometry.planted import Companions, Frames, Single, Two, Views, convolutions, picture

LAYER = "trunk.5"


def calls(
    model: nn.Module, *layers: str, frames: int | None = None
) -> Callable[[Sequence[Tensor]], Mapping[str, Tensor]]:
    """What runs `model` and returns what each call of the layers made; frames: the axis that a model has those on."""
    model.eval()

    def run(images: Sequence[Tensor]) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}

        def keep(layer: str, output: Tensor) -> None:
            made[f"{layer}#{sum(label.startswith(layer) for label in made)}"] = output.clone()

        handles = [
            model.get_submodule(layer).register_forward_hook(lambda _m, _a, output, layer=layer: keep(layer, output))
            for layer in layers
        ]
        try:
            with torch.no_grad():
                model(*images)
        finally:
            for handle in handles:
                handle.remove()
        return made

    return run


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def video(frames: int = 4) -> Tensor:
    return torch.stack([picture(48, 64, seed=seed)[0] for seed in range(frames)], 1)[None]


@pytest.mark.parametrize("time_first", [False, True])
def test_frames_in_the_batch_are_told_from_images(time_first: bool) -> None:
    proof = prove(calls(Frames(time_first), LAYER), [video(4)]).verdicts[f"{LAYER}#0"]
    assert isinstance(proof, Proof)
    assert proof.images_first is not time_first
    assert [row and (row.inputs, row.frame) for row in proof.rows] == [((0,), 0), ((0,), 1), ((0,), 2), ((0,), 3)]
    assert proof.placement == Placement.upright((4, 48, 64))


def test_rows_are_the_frames_that_were_taken() -> None:
    """Every other of eight, 0, 2, 4 and 6: the middle of each pair is said, to within a frame."""
    proof = prove(calls(Frames(every=2), LAYER), [video(8)]).verdicts[f"{LAYER}#0"]
    assert isinstance(proof, Proof)
    frames = [row.frame for row in proof.rows if row is not None]
    assert all(abs(found - taken) <= 1 for found, taken in zip(frames, [0, 2, 4, 6], strict=True))


def test_channels_taken_for_frames_are_refused() -> None:
    """Three crops (B, 3 crops, 3, H, W), handed over as if the crops were the channels of a volume of three slices."""
    crops = torch.stack([picture(48, 64, seed=seed)[0] for seed in range(3)], 1)[None]
    run = calls(Frames(), LAYER)
    right = prove(run, [crops]).verdicts[f"{LAYER}#0"]
    assert isinstance(right, Proof)
    assert [row and row.frame for row in right.rows] == [0, 1, 2]
    wrong = prove(lambda images: run([images[0].transpose(1, 2)]), [crops.transpose(1, 2)]).verdicts[f"{LAYER}#0"]
    assert isinstance(wrong, NoPlaces)
    assert "no frames" in wrong.reason


@pytest.mark.parametrize(("how", "images_first"), [("concatenated", False), ("interleaved", True)])
def test_two_images_in_one_batch_have_a_row_each(how: str, images_first: bool) -> None:
    proof = prove(calls(Two(how), LAYER), [picture(48, 64), picture(48, 64, seed=2)]).verdicts[f"{LAYER}#0"]
    assert isinstance(proof, Proof)
    assert proof.images_first is images_first
    assert [row and row.inputs for row in proof.rows] == [(0,), (1,)]
    assert proof.placement == Placement.upright((48, 64))


def test_the_second_call_of_a_siamese_tower_answers_to_the_second_image() -> None:
    proofs = prove(calls(Two("apart"), LAYER), [picture(48, 64), picture(48, 64, seed=2)]).verdicts
    found = {label: [row and row.inputs for row in proof.rows] for label, proof in proofs.items()}
    assert found == {f"{LAYER}#0": [(0,)], f"{LAYER}#1": [(1,)]}


def test_a_layer_of_both_images_says_so() -> None:
    proof = prove(calls(Two("added"), LAYER), [picture(48, 64), picture(48, 64, seed=2)]).verdicts[f"{LAYER}#0"]
    assert isinstance(proof, Proof)
    assert [row and row.inputs for row in proof.rows] == [(0, 1)]


def test_a_call_on_a_constant_image_is_refused() -> None:
    """The second image is one that a wrapper holds: what its call shows is not the caller's image."""
    model, constant = Two("apart"), picture(48, 64, seed=2)
    run = calls(model, LAYER)
    proofs = prove(lambda images: run([images[0], constant.expand(len(images[0]), -1, -1, -1)]), [picture(48, 64)])
    assert isinstance(proofs.verdicts[f"{LAYER}#0"], Proof)
    refused = proofs.verdicts[f"{LAYER}#1"]
    assert isinstance(refused, NoPlaces)
    assert "another input" in refused.reason


def test_views_of_one_image_lie_each_in_its_own_way() -> None:
    proof = prove(calls(Views(), LAYER, "trunk.0"), [picture(48, 64)]).verdicts[f"{LAYER}#0"]
    assert isinstance(proof, Proof)
    assert not proof.images_first
    flips = [[side.flipped for side in row.placement.sides] for row in proof.rows if row is not None]
    assert flips == [[False, False], [False, True]]


def test_images_that_see_each_other_are_run_one_by_one() -> None:
    proofs = prove(calls(Companions(), "trunk.3"), [picture(48, 64)])
    assert proofs.mixed
    assert isinstance(proofs.verdicts["trunk.3#0"], Proof)


def test_a_model_of_one_image_at_a_time_is_proven_one_by_one() -> None:
    model = Single()
    proofs = prove(calls(model, LAYER), [picture(64, 96)])
    assert proofs.mixed
    assert proofs.forwards == model.calls == 23
    assert isinstance(proofs.verdicts[f"{LAYER}#0"], Proof)


def test_a_models_own_error_comes_through() -> None:
    with pytest.raises(ValueError, match="one image at a time"):
        prove(calls(Single(), LAYER), [picture(64, 64)])


def test_one_round_costs_23_forwards_and_copies_may_come_in_parts() -> None:
    sizes: list[int] = []
    run = calls(convolutions(3, 16, 24, 32), "5")

    def counting(images: Sequence[Tensor]) -> Mapping[str, Tensor]:
        sizes.append(len(images[0]))
        return run(images)

    proofs = prove(counting, [picture(64, 96)], at_once=8)
    assert sizes == [1, 8, 8, 6]
    assert proofs.forwards == 23


@pytest.mark.parametrize("size", [(64, 32), (64, 64)])
def test_two_places_are_proven_by_a_larger_image(size: tuple[int, int]) -> None:
    """Five strides of two, wide kernels: 2 x 1 or 2 x 2 places that each see all of the image."""
    model = convolutions(3, 8, 16, 32, 64, 64, kernel=7, padding=3)
    proofs = prove(calls(model, "8"), [picture(*size)])
    proof = proofs.verdicts["8#0"]
    assert isinstance(proof, Proof)
    assert proof.placement == Placement.upright(size)
    assert isinstance(prove(calls(model, "8"), [picture(*size)], larger=False).verdicts["8#0"], NoPlaces)


def test_as_many_entries_for_any_image_are_no_places() -> None:
    """Pooled channels read as 2 x 1 places."""
    run = calls(convolutions(3, 16, 2), "2")

    def pooled(images: Sequence[Tensor]) -> dict[str, Tensor]:
        return {label: made.mean((2, 3))[:, None, :, None] for label, made in run(images).items()}

    verdict = prove(pooled, [picture(64, 32)]).verdicts["2#0"]
    assert isinstance(verdict, NoPlaces)
    assert "whatever the size" in verdict.reason
