"""Walk the convolutions of AlexNet: its first kernels, and what each layer sees in a photograph.

    python examples/alexnet_layers.py runs/alexnet
    tensorboard --logdir runs

The weights are random unless a checkpoint is given as the second argument (torchvision's
`alexnet-owt-7be5be79.pth` is a good one), so that the example needs no download: random kernels are noise, and yet
the first layers show the photograph.
"""

from __future__ import annotations

import sys

import torch
from PIL import Image
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from torchvision.models import AlexNet_Weights, alexnet

from seewhy import samples
from seewhy.integrations import tensorboard


def main(folder: str, checkpoint: str | None = None) -> None:
    torch.manual_seed(0)
    model = alexnet()
    if checkpoint is not None:
        model.load_state_dict(torch.load(checkpoint, weights_only=True))

    photo = Image.open(samples.path("chelsea.png"))
    inputs = AlexNet_Weights.DEFAULT.transforms()(photo)[None]
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]

    with SummaryWriter(folder) as writer:
        tensorboard.kernels(writer, model)
        tensorboard.feature_maps(writer, model, inputs, layers=convolutions)
        tensorboard.histograms(writer, model, inputs, layers=convolutions)


if __name__ == "__main__":
    main(*sys.argv[1:])
