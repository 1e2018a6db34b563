"""Lightning trains as it would without the callback."""

import importlib
import random
import sys
from types import SimpleNamespace

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from seewhy.errors import MissingExtra
from seewhy.integrations.lightning import MonitorCallback
from tests.integrations.small import Augmented, assert_identical, fingerprint, monitor, network


def module(framework):
    class Classifier(framework.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network()

        def forward(self, images):
            return self.network(images)

        def training_step(self, batch, _):
            images, labels = batch
            return F.cross_entropy(self(images), labels)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    return Classifier()


def fit(model, callbacks=(), framework=lightning.pytorch, epochs=2, **options):
    """Three batches an epoch."""
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    trainer = framework.Trainer(
        max_epochs=epochs, callbacks=list(callbacks), accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(model, DataLoader(Augmented(), batch_size=8, shuffle=True))
    return model


@pytest.mark.parametrize("framework", [lightning.pytorch, pytorch_lightning])
def test_training_is_bit_identical(framework):
    """Under both of its names, whichever the callback was made from."""
    expected = fingerprint(fit(module(framework), framework=framework))
    model = module(framework)
    watch = monitor(model, every=1)
    assert_identical(fingerprint(fit(model, [MonitorCallback(watch)], framework)), expected)
    assert watch.log.steps == [0, 1, 2, 3, 4, 5, 6]
    assert all(look.explanation is not None for look in watch.log)


def test_epochs():
    model = module(lightning.pytorch)
    watch = monitor(model, every=2)
    fit(model, [MonitorCallback(watch, by_epoch=True)], epochs=4)
    assert watch.log.steps == [0, 2, 4]


def test_accumulated_gradients_are_one_step():
    """Three batches an epoch, two to a step, the last of an epoch by itself: two steps an epoch."""
    model = module(lightning.pytorch)
    watch = monitor(model, every=1)
    fit(model, [MonitorCallback(watch)], accumulate_grad_batches=2)
    assert watch.log.steps == [0, 1, 2, 3, 4]


def test_only_the_first_process_looks():
    model = module(lightning.pytorch)
    watch = monitor(model)
    for process in (1, 0):
        trainer = SimpleNamespace(is_global_zero=process == 0, global_step=process)
        MonitorCallback(watch).on_train_start(trainer, model)
    assert watch.log.steps == [0]


def test_one_name_of_lightning_is_enough(monkeypatch):
    monkeypatch.delitem(sys.modules, "seewhy.integrations.lightning")
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    found = importlib.import_module("seewhy.integrations.lightning")
    assert issubclass(found.MonitorCallback, pytorch_lightning.Callback)


def test_without_lightning(monkeypatch):
    monkeypatch.delitem(sys.modules, "seewhy.integrations.lightning")
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    with pytest.raises(MissingExtra, match=r"seewhy\[lightning\]"):
        importlib.import_module("seewhy.integrations.lightning")
