"""Deep feature factorization: what a layer sees in images, in a few concepts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from seewhy.compat.pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from seewhy.compat.pytorch_grad_cam.utils.image import (
    create_labels_legend,
    scale_cam_image,
    show_factorization_on_image,
)
from seewhy.methods.cam.decomposition import factorize

Array = NDArray[np.float32]


def dff(activations: NDArray[Any], n_components: int = 5) -> tuple[Array, Array]:
    """Concepts (C, K) and where they are, (B, K, H, W), of activations (B, C, H, W), by the engine's `factorize`.

    Each channel's smallest value is taken off before and added to the concepts, as in grad-cam. A concept is as strong
    as at its strongest place, where its map is 1; grad-cam leaves that to the random numbers it starts from.
    """
    layer = torch.from_numpy(activations).nan_to_num(0.0)
    offset = layer.movedim(1, 0).flatten(1).amin(1)
    maps, vectors = factorize(layer - offset[:, None, None], n_components)
    strongest = maps.movedim(1, 0).flatten(1).amax(1)
    strongest = torch.where(strongest > 0, strongest, 1)
    concepts = vectors * strongest[:, None] + offset
    return concepts.T.numpy(), (maps / strongest[:, None, None]).numpy()


class DeepFeatureFactorization:
    """Factorizes a layer's activations (Collins et al. 2018). The arguments are grad-cam's.

    computation_on_concepts: a function of concepts (K, C), such as the model's classifier.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module,
        reshape_transform: Callable[[Any], Tensor] | None = None,
        computation_on_concepts: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model = model
        self.computation_on_concepts = computation_on_concepts
        self.activations_and_grads = ActivationsAndGradients(model, [target_layer], reshape_transform)

    def __call__(self, input_tensor: Tensor, n_components: int = 16) -> Any:
        """Concepts (C, K), and for each image their maps (K, H, W) in [0, 1], of the input's size.

        With `computation_on_concepts` also what that makes of the concepts.
        """
        seen = self.activations_and_grads
        seen(input_tensor)
        concepts, explanations = dff(seen.activations[0].float().numpy(), n_components)
        seen.clear()
        size = (input_tensor.shape[-1], input_tensor.shape[-2])
        maps = [scale_cam_image(image, size) for image in explanations]
        if self.computation_on_concepts is None:
            return concepts, maps
        with torch.no_grad():
            outputs = self.computation_on_concepts(torch.from_numpy(concepts.T).to(input_tensor.device))
        return concepts, maps, outputs.cpu().numpy()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.activations_and_grads.release()


def run_dff_on_image(
    model: nn.Module,
    target_layer: nn.Module,
    classifier: Callable[[Tensor], Tensor],
    img_pil: Image.Image,
    img_tensor: Tensor,
    reshape_transform: Callable[[Any], Tensor] | None = None,
    n_components: int = 5,
    top_k: int = 2,
) -> NDArray[np.uint8]:
    """The photograph, its concepts in colours and a legend of what `classifier` calls them, side by side: (H, W, 3).

    The names are those of `model.config.id2label`.
    """
    factorization = DeepFeatureFactorization(model, target_layer, reshape_transform, classifier)
    _, maps, scores = factorization(img_tensor[None], n_components)
    config: Any = model.config
    legend = create_labels_legend(torch.from_numpy(scores).softmax(-1).numpy(), labels=config.id2label, top_k=top_k)
    photo = np.asarray(img_pil)
    shown = show_factorization_on_image(photo / 255, maps[0], image_weight=0.3, concept_labels=legend)
    return np.hstack((photo, shown))
