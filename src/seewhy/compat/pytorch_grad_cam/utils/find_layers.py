"""Find modules by type, and replace them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import nn


def replace_layer_recursive(model: nn.Module, old_layer: nn.Module, new_layer: nn.Module) -> bool:
    """Put `new_layer` where `old_layer` first stands below `model`; whether it was found."""
    for name, child in model.named_children():
        if child is old_layer:
            setattr(model, name, new_layer)
            return True
        if replace_layer_recursive(child, old_layer, new_layer):
            return True
    return False


def replace_all_layer_type_recursive(model: nn.Module, old_layer_type: type[nn.Module], new_layer: nn.Module) -> None:
    """Put the one `new_layer` wherever an instance of `old_layer_type` stands below `model`."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():  # named_children gives a shared module's first name only
            if isinstance(child, old_layer_type):
                parent._modules[name] = new_layer


def find_layer_types_recursive(model: nn.Module, layer_types: Collection[type[nn.Module]]) -> list[nn.Module]:
    """The modules below `model` whose type is one of these, and no subclass of it."""
    return find_layer_predicate_recursive(model, lambda layer: type(layer) in layer_types)


def find_layer_predicate_recursive(model: nn.Module, predicate: Callable[[nn.Module], bool]) -> list[nn.Module]:
    """The modules below `model` for which `predicate` is true, each once, parents before children."""
    return [layer for layer in model.modules() if layer is not model and predicate(layer)]
