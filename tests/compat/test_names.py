"""The audit: all that the modules of grad-cam 1.5.7 define, found by walking the installed package."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.compat.models import OURS, UPSTREAM

# What is not offered, and why.
ABSENT = {
    # a second Ablation-CAM, which fails when called: it does not take the arguments that BaseCAM passes
    "ablation_cam_multilayer.AblationLayer",
    "ablation_cam_multilayer.AblationCAM.set_ablation_layers",
    "ablation_cam_multilayer.AblationCAM.unset_ablation_layers",
    "ablation_cam_multilayer.AblationCAM.set_ablation_layer_batch_indices",
    "ablation_cam_multilayer.AblationCAM.trim_ablation_layer_batch_indices",
    # what hooks left in the model call: there are none
    "ablation_cam.AblationCAM.save_activation",
    "activations_and_gradients.ActivationsAndGradients.save_activation",
    "activations_and_gradients.ActivationsAndGradients.save_gradient",
    # what exchanges modules of the model: it is left as it is
    "guided_backprop.GuidedBackpropReLUModel.recursive_replace_relu_with_guidedrelu",
    "guided_backprop.GuidedBackpropReLUModel.recursive_replace_guidedrelu_with_relu",
    # puts together the scores of rows in the order that they were asked for: the engine's replay does
    "ablation_cam.AblationCAM.assemble_ablation_scores",
    # steps of a computation that goes another way here
    "sess.SESS.forward_single_image",
    "sess.SESS.get_scales",
    "sess.SESS.collect_patches",
    "sess.SESS.get_target",
    "sess.SESS.get_scores",
    "sess.SESS.paste_cam",
    # a system of scipy's sparse matrices, which is not a dependency: the imputer solves the equations on the grid
    "metrics.road.NoisyLinearImputer.setup_sparse_system",
    "metrics.road.NoisyLinearImputer.add_offset_to_indices",
}
# grad-cam's own classes do not agree on these arguments of get_cam_*, which are passed by position
SYNONYMS = {"target_layer": "target_layers", "target_category": "targets"}
OWN_ARGUMENTS = {
    # see above: four instead of five
    "ablation_cam_multilayer.AblationCAM.get_cam_weights",
}

Defined = tuple[str, str, Any]  # (module, dotted name in it, what grad-cam has there)


def defined() -> Iterator[Defined]:
    """Every public class with its public methods, every function and every constant, where its source is."""
    for found in pkgutil.walk_packages(UPSTREAM.__path__, f"{UPSTREAM.__name__}."):
        module = importlib.import_module(found.name)
        short = found.name.removeprefix(f"{UPSTREAM.__name__}.")
        for node in ast.parse(source(module)).body:
            for name in names(node):
                yield short, name, getattr(module, name)
                if f"{short}.{name}" in ABSENT or not isinstance(node, ast.ClassDef):
                    continue
                for method in node.body:
                    for called in names(method, dunder="__call__"):
                        yield short, f"{name}.{called}", getattr(getattr(module, name), called)


def source(module: Any) -> str:
    return Path(module.__file__).read_text()


def names(node: ast.stmt, dunder: str = "") -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node]
    found = [getattr(target, "name", getattr(target, "id", "_")) for target in targets]
    return [name for name in found if not name.startswith("_") or name == dunder]


def ours(module: str, name: str) -> Any:
    found = importlib.import_module(f"{OURS.__name__}.{module}")
    for part in name.split("."):
        owner, found = found, getattr(found, part)
    return owner.forward if found is nn.Module.__call__ else found  # which does nothing but call that


def positional(function: Any) -> list[inspect.Parameter]:
    """What can be passed by position, but for the object itself."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = [one for one in inspect.signature(function).parameters.values() if one.kind in kinds]
    return found[1:] if found and found[0].name in ("self", "ctx") else found


def test_every_name_is_where_grad_cam_has_it_but_those_with_a_reason():
    found = list(defined())
    absent = set()
    for module, name, _ in found:
        try:
            ours(module, name)
        except (AttributeError, ImportError):
            absent.add(f"{module}.{name}")
    assert absent == ABSENT
    assert len(found) > 150
    kinds = {type(what).__name__ for _, name, what in found if "." not in name}
    assert {"type", "function", "list", "tuple"} <= kinds, "classes, functions and constants"


@pytest.mark.parametrize(
    ("module", "name", "theirs"),
    [
        pytest.param(*one, id=f"{one[0]}.{one[1]}")
        for one in defined()
        if callable(one[2]) and f"{one[0]}.{one[1]}" not in ABSENT | OWN_ARGUMENTS
    ],
)
def test_arguments_have_grad_cams_names_positions_and_defaults(module, name, theirs):
    """What is ours comes after them, or by keyword only. (A default that is a list or a layer is another object.)"""
    expected, given = positional(theirs), positional(ours(module, name))
    assert [SYNONYMS.get(one.name, one.name) for one in given[: len(expected)]] == [
        SYNONYMS.get(one.name, one.name) for one in expected
    ]
    for one, other in zip(expected, given, strict=False):
        if isinstance(one.default, int | float | str | None):
            assert other.default == one.default, one.name


def test_constants():
    road, finer = ours("metrics.road", "neighbors_weights"), ours("finer_cam", "DEFAULT_COMPARISON_CATEGORIES")
    assert dict(road) == dict(UPSTREAM.metrics.road.neighbors_weights)
    assert finer == UPSTREAM.finer_cam.DEFAULT_COMPARISON_CATEGORIES


def test_importing_the_package_alone_gives_the_same_names_and_modules():
    """`import pytorch_grad_cam`, and then `pytorch_grad_cam.utils.model_targets.ClassifierOutputTarget`, say."""
    wanted = []
    for package in ("", ".utils", ".metrics", ".feature_factorization"):
        text = source(importlib.import_module(UPSTREAM.__name__ + package))
        for node in ast.parse(text).body:
            if isinstance(node, ast.ImportFrom):
                wanted += [f"{package}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                wanted += [alias.name.removeprefix(UPSTREAM.__name__) for alias in node.names]
    assert ".GradCAM" in wanted
    assert ".metrics.road" in wanted
    assert ".utils.deprocess_image" in wanted
    script = f"import {OURS.__name__} as found\n" + "\n".join(f"found{name}" for name in wanted)
    subprocess.run([sys.executable, "-c", script], check=True)
