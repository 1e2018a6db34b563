"""Networks whose weights are set by hand, so that what each pixel does for the score is known exactly.

After AttributionLab (arXiv:2310.06514): a map is right if it equals what the network was built to do. Pictures are
black, with squares of pure red, green and blue. Inputs are in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = 16
SQUARES = {
    "red": (slice(1, 5), slice(2, 6)),
    "green": (slice(9, 15), slice(1, 7)),
    "blue": (slice(4, 12), slice(9, 15)),
}


def pictures() -> Tensor:
    """(2, 3, 16, 16): all three squares; in the second picture mirrored, and at 0.9 of their strength."""
    picture = torch.zeros(3, SIZE, SIZE)
    for channel, (rows, columns) in enumerate(SQUARES.values()):
        picture[channel, rows, columns] = 1
    return torch.stack([picture, 0.9 * picture.flip(-1)])


class Colours(nn.Module):
    """How much of each colour there is: features are max(colour - 1/2, 0), class scores weighted sums of their means.

    Class 0 sees red alone. Class 1 sees green, and blue speaks against it. Class 2 sees red and, half as much, green.
    """

    weights = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, -0.75], [1.0, 0.5, 0.0]])

    def __init__(self) -> None:
        super().__init__()
        self.features = _bright()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(self.weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.features(images)).flatten(1))

    def truth(self, images: Tensor, target: int) -> Tensor:
        """(B, H, W): what each pixel adds to the score; the sum over pixels is the score."""
        bright = (images - 0.5).clamp(min=0)
        return torch.einsum("bchw,c->bhw", bright, self.weights[target]) / SIZE**2


class Placed(nn.Module):
    """Red counts in the left half alone, green in the lower half alone: the head knows each place by itself.

    Class 0 sees red, class 1 green, class 2 both.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = _bright()
        self.head = nn.Linear(3 * SIZE**2, 3, bias=False)
        weights = torch.zeros(3, 3, SIZE, SIZE)
        weights[0, 0, :, : SIZE // 2] = weights[2, 0, :, : SIZE // 2] = 1
        weights[1, 1, SIZE // 2 :] = weights[2, 1, SIZE // 2 :] = 1
        with torch.no_grad():
            self.head.weight.copy_(weights.flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).flatten(1))

    def truth(self, images: Tensor, target: int) -> Tensor:
        bright = (images - 0.5).clamp(min=0)
        weights = self.head.weight.detach()[target].reshape(3, SIZE, SIZE)
        return torch.einsum("bchw,chw->bhw", bright, weights)


class Saturated(nn.Module):
    """Is there red? min(the sum of red, 1): more red than one pixel's changes nothing, and the gradient is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.features = _bright()

    def forward(self, images: Tensor) -> Tensor:
        return (2 * self.features(images)[:, :1].sum((2, 3))).clamp(max=1).expand(-1, 2) * torch.tensor([1.0, -1.0])


def _bright() -> nn.Sequential:
    """max(colour - 1/2, 0) of each colour by itself."""
    convolution = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(3)[..., None, None])
        convolution.bias.fill_(-0.5)
    return nn.Sequential(convolution, nn.ReLU())
