"""The Trainer of transformers trains as it would without the callback."""

import importlib
import random
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.modeling_outputs import ImageClassifierOutput

from seewhy.errors import MissingExtra
from seewhy.integrations.transformers import MonitorCallback
from tests.integrations.small import IMAGES, Augmented, assert_identical, fingerprint, monitor, network


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, pixel_values, labels=None):
        logits = self.network(pixel_values)
        return ImageClassifierOutput(None if labels is None else F.cross_entropy(logits, labels), logits)


class Columns(Dataset):
    def __len__(self):
        return len(Augmented())

    def __getitem__(self, index):
        image, label = Augmented()[index]
        return {"pixel_values": image, "labels": label}


def fit(folder, model, callbacks=(), epochs=2, **options):
    """Three batches an epoch."""
    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=8, learning_rate=0.01, seed=1,
        use_cpu=True, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, **options,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=Columns(), callbacks=list(callbacks))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    trainer.train()
    return model


def test_training_is_bit_identical(tmp_path):
    expected = fingerprint(fit(tmp_path, Classifier()))
    model = Classifier()
    watch = monitor(model, {"pixel_values": IMAGES}, every=1)
    assert_identical(fingerprint(fit(tmp_path, model, [MonitorCallback(watch)])), expected)
    assert watch.log.steps == [0, 1, 2, 3, 4, 5, 6]
    assert all(look.explanation is not None for look in watch.log)


def test_epochs(tmp_path):
    model = Classifier()
    watch = monitor(model, {"pixel_values": IMAGES}, every=2)
    fit(tmp_path, model, [MonitorCallback(watch, by_epoch=True)], epochs=4)
    assert watch.log.steps == [0, 2, 4]


def test_accumulated_gradients_are_one_step(tmp_path):
    model = Classifier()
    watch = monitor(model, {"pixel_values": IMAGES}, every=1)
    fit(tmp_path, model, [MonitorCallback(watch)], gradient_accumulation_steps=2)
    assert watch.log.steps == [0, 1, 2, 3, 4]


def test_only_the_first_process_looks(tmp_path):
    watch = monitor(Classifier(), {"pixel_values": IMAGES})
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    trainer = Trainer(Classifier(), arguments, callbacks=[MonitorCallback(watch)])
    trainer.state.is_world_process_zero = False
    trainer.callback_handler.on_train_begin(arguments, trainer.state, trainer.control)
    assert watch.log.steps == []


def test_without_transformers(monkeypatch):
    monkeypatch.delitem(sys.modules, "seewhy.integrations.transformers")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"seewhy\[zoo\]"):
        importlib.import_module("seewhy.integrations.transformers")
