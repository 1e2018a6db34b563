"""What may be passed as a model, what to pass instead of anything else, and what some models cannot do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seewhy.errors import InputTypeError
from seewhy.hooks.nested import described
from seewhy.hooks.wrappers import unwrap
from seewhy.models import yolo
from seewhy.models.loaded import Loaded


def as_module(model: object) -> nn.Module:
    """The module that a caller means by `model`.

    Args:
        model: a module, or what `seewhy.load` returned.

    Returns:
        The module; compilation and data parallelism still stand around it. Of ultralytics' objects that predict it is
        the network inside.

    Raises:
        InputTypeError: for anything else: a function that builds models, a name, a state dict, a pipeline. The message
            says what to do.
    """
    model = with_preprocessing(model)
    if isinstance(model, Loaded):
        return model.module
    if not isinstance(model, nn.Module):
        got, do = next(found for kind in _KINDS if (found := kind(model)))
        raise InputTypeError(
            "the model is not an nn.Module.", got=got, expected="a torch.nn.Module, or what seewhy.load returns", do=do
        )
    if _predicts(model):
        network = getattr(model, "model", None)
        raise InputTypeError(
            "this object predicts from pictures; it is not the network itself.",
            got=type(model).__name__,
            do="pass the network inside it, .model, and tensors"
            if isinstance(network, nn.Module)
            else "make it from weights of PyTorch: an exported file has no layers and no gradients",
        )
    return model


def with_preprocessing(model: object) -> object:
    """`model` as it is; ultralytics' with how they prepare photographs and name classes.

    These may be the objects that predict or the networks in them.
    """
    if yolo.is_network(model):
        return yolo.loaded(model, {})
    if isinstance(model, nn.Module) and _predicts(model) and yolo.is_network(getattr(model, "model", None)):
        return yolo.loaded(model.model, getattr(model, "overrides", {}))
    return model


class Limits(NamedTuple):
    """Why a model cannot do what some methods need; "" where it can.

    Attributes:
        layers: why what its layers return cannot be seen or changed.
        gradients: why no gradient leads from its output to its layers.
    """

    layers: str = ""
    gradients: str = ""


def limits_of(module: nn.Module) -> Limits:
    """What a model cannot do because of how it was made.

    Scripted, traced and exported models run as one graph: methods that look at the input (rise, occlusion, gradients of
    the input) explain them, methods of a layer cannot. Quantised operations have no gradient: methods that only run the
    model explain them.

    Args:
        module: any model.

    Returns:
        The reasons, as texts; "" for what it can do.
    """
    parts = list(unwrap(module).modules())
    layers = gradients = ""
    if graph := next((part for part in parts if _is_closed(part)), None):
        kind = "scripted or traced" if isinstance(graph, torch.jit.ScriptModule) else "exported"
        layers = f"the model, or a part of it, is {kind}: its layers run inside one graph, where nothing can see them"
    if quantised := next((part for part in parts if _is_quantised(part)), None):
        gradients = f"the model is quantised: operations such as {type(quantised).__name__} have no gradient"
    return Limits(layers, gradients)


def is_closed(module: nn.Module) -> bool:
    """Whether all of a model is one graph, in which no layer can be named."""
    return _is_closed(unwrap(module))


def _is_closed(module: nn.Module) -> bool:
    """Whether a module runs as one graph of operations that calls no other module."""
    if isinstance(module, torch.fx.GraphModule):
        called = {node.target for node in module.graph.nodes if node.op == "call_module"}
        return called <= {"_guards_fn"}  # which checks the inputs of an exported program
    return isinstance(module, torch.jit.ScriptModule)


def _is_quantised(module: nn.Module) -> bool:
    """Whether it is one of torch's quantised layers, dynamic ones included, or has torchao quantise what it is given.

    torchao's weights of 8 bits alone let gradients through. Neither package need be imported.
    """
    rounds = (getattr(weight, "act_quant_kwargs", None) is not None for weight in module.parameters(recurse=False))
    return "quantized" in type(module).__module__.split(".") or any(rounds)


def _predicts(module: nn.Module) -> bool:
    """Whether a module's call is a prediction from pictures, as that of ultralytics' `YOLO` is, and not a forward."""
    called = type(module).__call__ is not nn.Module.__call__
    return called and "model" in {*vars(module), *module._modules} and callable(getattr(type(module), "predict", None))


# each of these tells what an object is and what to do with it, or None for another kind of object


def _class(model: object) -> tuple[str, str] | None:
    if not (isinstance(model, type) and issubclass(model, nn.Module)):
        return None
    return f"the class {model.__name__}", f"make a model of it: {model.__name__}(...)"


def _name(model: object) -> tuple[str, str] | None:
    if not isinstance(model, str | Path):
        return None
    got = f"{type(model).__name__} {str(model)!r}"
    if Path(model).suffix in (".pt", ".pth", ".ckpt", ".bin", ".safetensors"):
        return got, f"a file of weights needs its model: seewhy.load('path/to/file.py:build', weights={str(model)!r})"
    if ":" in str(model):
        return got, f"seewhy.load({str(model)!r})"
    return got, f"seewhy.load({f'{model}:build' if str(model).endswith('.py') else f'timm:{model}'!r})"


def _weights(model: object) -> tuple[str, str] | None:
    if not isinstance(model, Mapping):
        return None
    inside = next((key for key, value in model.items() if isinstance(value, nn.Module)), None)
    if inside is not None:
        return "a dict that holds a model", f"pass the model in it: [{inside!r}]"
    nested = next((key for key, value in model.items() if _is_state_dict(value)), None)
    if nested is None and not _is_state_dict(model):
        return None
    got, part = ("a state dict", "") if nested is None else ("a checkpoint", f"[{nested!r}]")
    return got, f"build the model and fill it: model.load_state_dict(weights{part}); then explain(model, ...)"


def _is_state_dict(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(entry, Tensor) for entry in value.values())


def _method(model: object) -> tuple[str, str] | None:
    if not isinstance(getattr(model, "__self__", None), nn.Module):
        return None
    return f"the method {getattr(model, '__name__', '?')} of a model", "pass the model itself"


def _program(model: object) -> tuple[str, str] | None:
    export = sys.modules.get("torch.export")  # no exported program exists before this is imported
    return (
        ("an exported program", "pass its module: program.module()")
        if _is_a(model, export, "ExportedProgram")
        else None
    )


def _is_a(model: object, library: Any, name: str) -> bool:
    return library is not None and isinstance(model, getattr(library, name))


def _holder(model: object) -> tuple[str, str] | None:
    """Pipelines of transformers, trainers, learners: objects with a module inside."""
    held = {name: value for name, value in getattr(model, "__dict__", {}).items() if isinstance(value, nn.Module)}
    if not held:
        return None
    name = "model" if "model" in held else next(iter(held))
    return f"{type(model).__name__}, which holds a model", f"pass the model in it: .{name}"


def _function(model: object) -> tuple[str, str] | None:
    if not callable(model):
        return None
    name = getattr(model, "__name__", "")
    call = f": {name}()" if name.isidentifier() else ""
    return f"a function {name}".strip(), f"if it builds a model, call it{call}; if it calls a model, pass that model"


def _inputs(model: object) -> tuple[str, str] | None:
    return (described(model), "pass the model first: explain(model, inputs)") if isinstance(model, Tensor) else None


def _anything(model: object) -> tuple[str, str]:
    return type(model).__name__, 'load a model by name: seewhy.load("timm:resnet50")'


_KINDS: tuple[Callable[[object], tuple[str, str] | None], ...] = (
    _class, _name, _weights, _method, _program, _inputs, _holder, _function, _anything,
)  # fmt: skip
