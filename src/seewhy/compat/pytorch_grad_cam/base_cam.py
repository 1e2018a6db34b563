"""grad-cam's `BaseCAM`: its names and numpy arrays outside, an `Explainer` inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from seewhy import methods
from seewhy._types import Fold
from seewhy.compat.pytorch_grad_cam import _upstream, _weights
from seewhy.compat.pytorch_grad_cam._scores import ImageTarget, PerImage, highest, per_image, predicted
from seewhy.compat.pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from seewhy.compat.pytorch_grad_cam.utils.image import scale_cam_image
from seewhy.compat.pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform
from seewhy.engine.session import session
from seewhy.engine.tape import gradients
from seewhy.explainer import Explainer
from seewhy.hooks.nested import rebuild
from seewhy.images import arrays
from seewhy.methods import Method, channels, smooth
from seewhy.targets import Target

Array = NDArray[np.float32]
Ask = Callable[[Any, Any], Target]  # (the target asked for, the model's outputs) -> the target explained


class Transform(NamedTuple):
    """A view of the image for `aug_smooth`, with ttach's names."""

    augment_image: Callable[[Tensor], Tensor]
    deaugment_mask: Callable[[Tensor], Tensor]


class BaseCAM:
    """Maps of where an image spoke for a target. The arguments are grad-cam's, by name and position.

    `activations_and_grads` may be replaced by anything that is called with the images, returns what the targets are
    asked about, and has `activations`, `gradients` and `release`; the maps are made of what that holds.

    A class names the engine's `method`. One that defines `get_cam_weights`, `get_cam_image` or `compute_cam_per_layer`
    itself is called with arrays, as grad-cam calls it, and has the method's own by `super()`. The model is left as it
    was, and nothing is kept of a call but `outputs`, what the model returned.

    target_layers: a list of modules. reshape_transform: from a layer's output to (B, C, *grid); layouts that the engine
    recognises need none. tta_transforms: what `aug_smooth` averages over, with ttach's interface.
    compute_input_gradient, uses_gradients, detach: what a class with its own `get_cam_*` is handed.
    batch_size: an attribute, how many changed images or activations a method runs at once.
    upstream_exact: what grad-cam 1.5.7 computes, also where seewhy has reason to compute something else.
    """

    method: ClassVar[str | None] = None
    batch_size: int = 16
    generator: Generator | None = None

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Any], Tensor] | None = None,
        compute_input_gradient: bool = False,
        uses_gradients: bool = True,
        tta_transforms: Iterable[Any] | None = None,
        detach: bool = True,
        *,
        upstream_exact: bool = False,
    ) -> None:
        self.model = model
        self.target_layers = list(target_layers)
        self.reshape_transform = reshape_transform
        self.compute_input_gradient = compute_input_gradient
        self.uses_gradients = uses_gradients
        self.tta_transforms = tta_transforms or [Transform(view.apply, view.undo) for view in smooth.views()]
        self.detach = detach
        self.upstream_exact = upstream_exact
        self.options: dict[str, Any] = {}  # of the engine's method
        self.outputs: Any = None
        self.activations_and_grads: Any = ActivationsAndGradients(model, target_layers, reshape_transform, detach)
        self._own = self.activations_and_grads

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Sequence[ImageTarget] | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> Array:
        """Maps (B, H, W) or (B, D, H, W) of the input's size in [0, 1].

        targets: a callable for each image, from its part of the model's output to a score; None is the predicted class.
        aug_smooth: the mean over six views, mirrored and of other brightness. eigen_smooth: the first principal
        component of the weighted activations instead of their sum; without effect where there are none.
        """
        smooth = self.forward_augmentation_smoothing if aug_smooth else self.forward
        return smooth(input_tensor, targets, eigen_smooth)

    def forward(
        self, input_tensor: Tensor, targets: Sequence[ImageTarget] | None = None, eigen_smooth: bool = False
    ) -> Array:
        """The maps without `aug_smooth`."""
        return self.aggregate_multi_layers(self.layer_cams(input_tensor, targets, eigen_smooth)[0])

    def forward_augmentation_smoothing(
        self, input_tensor: Tensor, targets: Sequence[ImageTarget] | None = None, eigen_smooth: bool = False
    ) -> Array:
        """The mean of the maps over `tta_transforms`. What the first view is predicted to be is explained in all."""
        cams: list[Tensor] = []
        asked: Any = targets if targets is None else per_image(targets, len(input_tensor))
        for view in self.tta_transforms:
            if isinstance(asked, PerImage) and not self.upstream_exact:
                asked = replace(asked, undo=view.deaugment_mask)
            layers, explained = self.layer_cams(view.augment_image(input_tensor), asked, eigen_smooth)
            asked = asked if self.upstream_exact else explained
            cam = torch.from_numpy(self.aggregate_multi_layers(layers))
            cams.append(view.deaugment_mask(cam[:, None])[:, 0])
        return torch.stack(cams).mean(0).numpy()

    def get_cam_weights(
        self, input_tensor: Tensor, target_layers: Any, targets: Any, activations: Any, grads: Any
    ) -> NDArray[Any]:
        """The weights (B, C) of the activations' channels. For a subclass to define, or to have from its parent.

        target_layers: the layer; grad-cam's name. What the method needs beside the arrays it asks the model for.
        """
        return self._weights(input_tensor, target_layers, targets, activations, grads).cpu().numpy()

    def _weights(self, input_tensor: Tensor, target_layers: Any, targets: Any, activations: Any, grads: Any) -> Tensor:
        def explain(method: Method) -> object:
            target = per_image(targets, len(input_tensor))
            return self._explainer(method, [target_layers])(input_tensor.detach(), target)

        return _weights.weights(self._weighing(), self._given(activations, grads), explain)

    def get_cam_image(
        self,
        input_tensor: Tensor,
        target_layer: Any,
        targets: Any,
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> NDArray[Any]:
        """The map (B, *grid) of one layer, from its activations (B, C, *grid); by `get_cam_weights`, if it has any."""
        given = self._given(activations, grads)
        if self.method is None or self.method in _weights.FUNCTIONS:
            weights = torch.as_tensor(self.get_cam_weights(input_tensor, target_layer, targets, activations, grads))
            cam = self._reduce(eigen_smooth)(channels.spread(weights.to(self.device), given["activations"]))
        else:
            method = self._drawing(eigen_smooth)
            if not given.keys() >= {*method.needs}:
                raise NotImplementedError(f"{method.name} is not made of one layer's activations and gradients.")
            cam = method.function(**{need: given[need] for need in method.needs})
        return cam.cpu().numpy()

    def compute_cam_per_layer(self, input_tensor: Tensor, targets: Any, eigen_smooth: bool) -> list[Array]:
        """A map (B, 1, *size) in [0, 1] for each layer of `activations_and_grads`, by `get_cam_image`."""
        seen = self.activations_and_grads
        handed: list[list[Any]] = [
            [tensor.detach().cpu().numpy() if self.detach else tensor for tensor in tensors]
            for tensors in (seen.activations, seen.gradients)
        ]
        layers = seen.called if seen is self._own else self.target_layers  # grad-cam pairs them by number
        cams = []
        for layer, activations, grads in islice(zip_longest(layers, *handed), len(layers)):  # some may be missing
            cam = self.get_cam_image(input_tensor, layer, targets, activations, grads, eigen_smooth)
            cams.append(self._scaled(cam, input_tensor))
        return cams

    def aggregate_multi_layers(self, cam_per_target_layer: Sequence[Array]) -> Array:
        """The mean of the layers' maps (B, 1, *size), by its own range to [0, 1], however faint it is: (B, *size)."""
        mean = np.concatenate(cam_per_target_layer, axis=1).mean(1)
        if self.upstream_exact:
            return scale_cam_image(mean)
        return arrays.rescale(torch.from_numpy(mean), tuple(range(1, mean.ndim))).float().numpy()

    def get_target_width_height(self, input_tensor: Tensor) -> tuple[int, ...]:
        """The input's (width, height), or (width, height, depth)."""
        return tuple(reversed(input_tensor.shape[2:]))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.activations_and_grads.release()

    def __del__(self) -> None:
        seen: Any = self.__dict__.get("activations_and_grads")
        if seen is not self.__dict__.get("_own"):
            seen.release()  # what it attached to the model itself

    def layer_cams(
        self, input_tensor: Tensor, targets: Any, eigen_smooth: bool, ask: Ask | None = None
    ) -> tuple[list[Array], Target]:
        """Each layer's maps (B, 1, *size), and the target made definite; `ask` says what is explained instead of it."""
        image = input_tensor.to(self.device)
        target = targets if targets is None or callable(targets) else per_image(targets, len(image))
        if self.upstream_exact and target is None:
            ask = ask or (lambda _, outputs: highest(outputs))
        return (self._captured if self._asks else self._explained)(image, target, eigen_smooth, ask)

    @property
    def _asks(self) -> bool:
        """Whether the class itself is asked for its maps, with arrays, and not the engine."""
        replaced = self.activations_and_grads is not self._own
        return replaced or any(getattr(type(self), name) is not getattr(BaseCAM, name) for name in _OWN)

    def _explained(
        self, image: Tensor, target: Target | None, eigen_smooth: bool, ask: Ask | None
    ) -> tuple[list[Array], Target]:
        """The engine's maps."""
        method = self._drawing(eigen_smooth)
        explain = self._explainer(method if ask is None else replace(method, ask=ask), self.target_layers)
        explanation = explain(image, target)
        self.outputs = explanation.outputs
        cams = [self._scaled(cam.cpu().numpy(), image) for cam in explanation.maps.values()]
        return cams, explanation.targets

    def _captured(
        self, image: Tensor, target: Target | None, eigen_smooth: bool, ask: Ask | None
    ) -> tuple[list[Array], Target]:
        """The maps of a class with its own `get_cam_*`: the model runs, is differentiated, and then the class asked."""
        seen = self.activations_and_grads
        ours = isinstance(seen, ActivationsAndGradients)
        try:
            with session(self.model, image) as run:
                leaf = image.detach().clone()
                frozen = not any(parameter.requires_grad for parameter in run.model.parameters())
                leaf.requires_grad_(self.compute_input_gradient or (not ours and frozen))
                outputs = seen.watch(lambda: seen(leaf), leaf) if ours else seen(leaf)
                self.outputs = rebuild(outputs, Tensor.detach)
                definite: Any = ask(target, outputs) if ask else target or predicted(outputs)
                if self.uses_gradients:
                    scores = definite(outputs)[:, None]
                    found = next(gradients(scores, self._leaves(leaf), keep_graph=True, differentiable=not self.detach))
                    leaf.grad = found["input"].detach() if self.compute_input_gradient else None
                return self.compute_cam_per_layer(leaf, definite.targets, eigen_smooth), definite
        finally:
            getattr(seen, "clear", lambda: None)()

    def _leaves(self, image: Tensor) -> dict[str, Tensor]:
        """What is differentiated: the layers and the image; of a replaced object what lies before its own layers."""
        seen = self.activations_and_grads
        if isinstance(seen, ActivationsAndGradients):
            leaves = {f"layer {number}": kept for number, kept in enumerate(seen.kept)}
        else:
            leaves = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        return {**leaves, "input": image} if image.requires_grad else leaves

    @property
    def _fold(self) -> Fold | None:
        """How the engine reads what a layer returned; a feature pyramid level by level."""
        return None if self.reshape_transform is fasterrcnn_reshape_transform else self.reshape_transform

    def _explainer(self, method: Method, layers: Sequence[nn.Module], *, fold: Fold | None = None) -> Explainer:
        return Explainer(
            self.model,
            method,
            layers=layers if method.layered else None,
            grid=fold or self._fold,
            batch_size=self.batch_size,
            generator=self.generator,
        )

    def _given(self, activations: Any, grads: Any) -> dict[str, Any]:
        """What a method may need, by name, of what a class's own `get_cam_*` is handed."""
        device, fold = self.device, self.reshape_transform
        given = _weights.handed(activations, grads, in_graph=not self.detach, fold=fold, device=device)
        return given if self.generator is None else {**given, "generator": self.generator}

    def _drawing(self, eigen_smooth: bool) -> Method:
        """The engine's method with this object's options."""
        found = self._method(_upstream.FUNCTIONS if self.upstream_exact else _upstream.ALWAYS)
        options = {"reduce": self._reduce(eigen_smooth)} if eigen_smooth and found.reduces else {}
        return self._asking(methods.get(found, **options, **self.options))

    def _weighing(self) -> Method:
        """The engine's method, but giving the channels' weights (B, C)."""
        functions = _weights.FUNCTIONS | (_upstream.WEIGHTS if self.upstream_exact else {})
        found = self._method(functions)
        if found.name not in functions:
            raise NotImplementedError(f"{found.name} has no weights of channels: define get_cam_weights yourself.")
        return self._asking(found)

    def _method(self, functions: Mapping[str, Callable[..., Tensor]]) -> Method:
        """The engine's method with its function from `functions`, where there is one."""
        if self.method is None:
            raise NotImplementedError(f"{type(self).__name__} defines neither get_cam_weights nor get_cam_image.")
        found = methods.get(self.method)
        return replace(found, function=functions.get(found.name, found.function))

    def _asking(self, method: Method) -> Method:
        """For a class to change what its method asks of the model."""
        return method

    def _reduce(self, eigen_smooth: bool) -> channels.Reduce:
        if not eigen_smooth:
            return channels.channel_sum
        return _upstream.principal_component if self.upstream_exact else channels.principal_component

    def _scaled(self, cam: NDArray[Any], input_tensor: Tensor) -> Array:
        return scale_cam_image(np.maximum(cam, 0), self.get_target_width_height(input_tensor))[:, None]


_OWN = ("get_cam_weights", "get_cam_image", "compute_cam_per_layer")  # what a class that makes its map itself defines
