"""The weights that methods give to channels, for classes of one's own that ask for them by `super()`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from seewhy.methods import gradient, perturbation

# called by name with all that the method of that name needs, gives (B, C)
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "grad_cam": lambda gradients, **_: gradient.grad_cam_weights(gradients),
    "grad_cam_plus_plus": gradient.grad_cam_plus_plus_weights,
    "x_grad_cam": gradient.x_grad_cam_weights,
    "shapley_cam": lambda gradients, curvatures, **_: gradient.shapley_cam_weights(gradients, curvatures),
    "random_cam": gradient.random_cam_weights,
    "score_cam": perturbation.score_cam_weights,
    "ablation_cam": perturbation.ablation_cam_weights,
}
