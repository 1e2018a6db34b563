"""Models of transformers from a local folder, and of open_clip: preprocessing, labels, and each kind of output."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import seewhy
from seewhy import Box, Pixel, Region, samples
from seewhy.errors import ModelError, OutputError
from seewhy.images.photo import open_photo
from seewhy.models.sources.transformers import _preprocess

transformers = pytest.importorskip("transformers")

NAMES = {0: "cat", 1: "dog", 2: "bird"}
SIDES = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PHOTO = samples.path("chelsea.png")


def saved(folder, kind, config, processor):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval()


def places(tensor):
    """The 4 x 4 patches of a ViT of 32 x 32 pixels, the class token left out."""
    return tensor[:, 1:17].mT.unflatten(2, (4, 4))


@pytest.fixture
def classifier(tmp_path):
    config = transformers.ViTConfig(**SIDES, image_size=32, patch_size=8, id2label=NAMES)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    return tmp_path, saved(tmp_path, transformers.ViTForImageClassification, config, processor), processor


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_a_classifier_from_a_folder(classifier):
    folder, model, processor = classifier
    loaded = seewhy.load(f"transformers:{folder}")
    assert loaded.labels == ("cat", "dog", "bird")
    with torch.no_grad():
        expected = model(loaded.prepare([PHOTO])[0]).logits
    found = seewhy.explain(loaded, PHOTO, "bird", layers="vit.layers.0", grid=places)
    torch.testing.assert_close(found.outputs.logits, expected)
    assert found.scores.tolist() == pytest.approx([float(expected[0, 2])])
    assert found.overlay()[0].size == (451, 300)
    keywords = processor(images=open_photo(PHOTO), return_tensors="pt")
    bare = seewhy.explain(model, keywords, "bird", layers="vit.layers.0", grid=places)
    # their processor resizes on tensors, rounding otherwise than Pillow: a gray value or two in 255, over std 0.5
    torch.testing.assert_close(bare.scores, found.scores, atol=0.02, rtol=0)


def test_random_weights_and_what_is_not_there(classifier, tmp_path_factory):
    folder, model, _ = classifier
    other = seewhy.load(f"transformers:{folder}", weights=None).module
    assert type(other) is type(model)
    assert not torch.equal(other.classifier.weight, model.classifier.weight)
    with pytest.raises(ModelError, match=r"could not be loaded(.|\n)*save_pretrained"):
        seewhy.load(f"transformers:{tmp_path_factory.mktemp('empty')}")
    nowhere = f"{folder}/not/here"
    with pytest.raises(ModelError) as caught:
        seewhy.load(f"transformers:{nowhere}")
    problem, got, expected, do = str(caught.value).splitlines()
    assert (problem, got) == (f"transformers:{nowhere} could not be loaded.", "  got: no such folder")
    assert expected.startswith("  expected: a name on the hub, or a folder with config.json")
    assert do.startswith("  do: ")


def shades(width, height):
    """A photograph without sharp edges, so that ways of resizing differ by rounding alone."""
    row = torch.linspace(0, 255, width)
    column = torch.linspace(255, 0, height)[:, None]
    pixels = torch.stack([row.expand(height, -1), column.expand(-1, width), (row + column) / 2], -1)
    return Image.fromarray(pixels.round().byte().numpy())


PROCESSORS = {
    "squashed": lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 48}),
    "cropped": lambda: transformers.CLIPImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
    ),
    "ConvNeXT small": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875),
    "ConvNeXT large": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 384}),
    "SegFormer": lambda: transformers.SegformerImageProcessor(size={"height": 64, "width": 64}),
    "not normalised": lambda: transformers.RTDetrImageProcessor(size={"height": 64, "width": 64}),
    "DETR": lambda: transformers.DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 1000}),
    "DETR long": lambda: transformers.DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 100}),
}


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", [(90, 60), (60, 150)])
def test_the_input_is_the_processors(name, size):
    """To two gray values: theirs resizes in torchvision, ours in Pillow."""
    processor = PROCESSORS[name]()
    photo = shades(*size)
    expected = processor(images=photo, return_tensors="pt")["pixel_values"][0]
    preprocess = _preprocess(processor, "x")
    found = preprocess(photo)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2.01 / 255 / min(preprocess.std)


def test_preprocessing_that_cannot_be_done_is_refused():
    with pytest.raises(ModelError, match=r"not one that seewhy can do(.|\n)*size_divisor=32"):
        _preprocess(transformers.Mask2FormerImageProcessor(), "transformers:x")


def test_photographs_seen_whole_have_to_be_of_one_shape(tmp_path):
    loaded = seewhy.models.Loaded(torch.nn.Identity(), _preprocess(PROCESSORS["DETR"](), "x"), None, "x")
    with pytest.raises(seewhy.errors.InputError, match=r"64 x 96, 96 x 64(.|\n)*one at a time"):
        loaded.prepare([shades(90, 60), shades(60, 90)])


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_segformer(tmp_path):
    """Logits at a quarter of the input's size; mask and pixel are in pixels of the input."""
    config = transformers.SegformerConfig(
        hidden_sizes=[16] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=16,
        id2label=NAMES,
    )  # fmt: skip
    processor = transformers.SegformerImageProcessor(size={"height": 64, "width": 96})
    model = saved(tmp_path, transformers.SegformerForSemanticSegmentation, config, processor)
    loaded = seewhy.load(f"transformers:{tmp_path}")
    inputs, _, _ = loaded.prepare([PHOTO])
    with torch.no_grad():
        logits = model(inputs).logits
    assert logits.shape == (1, 3, 16, 24)
    options = {"layers": "decode_head.linear_fuse", "method": "hires_cam"}
    found = seewhy.explain(loaded, PHOTO, Pixel("dog", 63, 95), **options)
    assert found.scores.tolist() == pytest.approx([float(logits[0, 1, 15, 23])])
    mask = torch.zeros(64, 96)
    mask[8:16, 4:12] = 1
    found = seewhy.explain(loaded, PHOTO, Region("bird", mask), **options)
    assert found.scores.tolist() == pytest.approx([float(logits[0, 2, 2:4, 1:3].mean())])
    grid = found.maps["decode_head.linear_fuse"]
    inside = grid[:, 2:4, 1:3].abs().sum()
    torch.testing.assert_close(inside, grid.abs().sum())  # what follows the layer sees each place by itself
    with pytest.raises(OutputError, match=r"pass Region\(category\)"):
        seewhy.explain(loaded, PHOTO, method="grad_cam")


@pytest.mark.filterwarnings("ignore::seewhy.errors.MapWarning")
def test_yolos_queries(tmp_path):
    config = transformers.YolosConfig(
        **SIDES, image_size=[64, 96], patch_size=16, num_detection_tokens=5, id2label=NAMES
    )
    processor = transformers.YolosImageProcessor(size={"height": 64, "width": 96})
    model = saved(tmp_path, transformers.YolosForObjectDetection, config, processor)
    loaded = seewhy.load(f"transformers:{tmp_path}")
    inputs, _, _ = loaded.prepare([PHOTO])
    with torch.no_grad():
        output = model(inputs)
    assert output.logits.shape == (1, 5, 4)

    def grid(tensor):
        return tensor[:, 1:25].mT.unflatten(2, (4, 6))

    options = {"layers": "vit.encoder.layer.0", "grid": grid, "method": "hires_cam"}
    explanation = seewhy.explain(loaded, PHOTO, Box(index=[[0, 3]]), **options)
    named = output.logits[0, [0, 3], :3]
    assert explanation.scores[0].tolist() == pytest.approx(named.amax(1).tolist())
    assert explanation.targets.label[0].tolist() == named.argmax(1).tolist()
    x, y, width, height = (output.pred_boxes[0, 3] * torch.tensor([96, 64, 96, 64])).tolist()
    assert explanation.targets.box[0, 1].tolist() == pytest.approx(
        [x - width / 2, y - height / 2, x + width / 2, y + height / 2], rel=1e-5
    )
    first, second = explanation.maps["vit.encoder.layer.0"][0].flatten(1)
    assert float(torch.cosine_similarity(first, second, 0)) < 0.99
    theirs = processor.post_process_object_detection(output, threshold=0, target_sizes=[(64, 96)])[0]
    again = seewhy.explain(loaded, PHOTO, Box(theirs["labels"][3:4], theirs["boxes"][3:4]), **options)
    assert again.scores.tolist() == pytest.approx([float(named[1].max())])


def test_open_clip_preprocessing_and_names():
    open_clip = pytest.importorskip("open_clip")
    from seewhy.models.sources.open_clip import from_open_clip

    with pytest.raises(ModelError, match=r"open_clip has no model 'RN5'.\n  expected: .*RN50"):
        seewhy.load("open_clip:RN5")
    with pytest.raises(ModelError, match=r"got: none named\n  expected: open_clip:RN50/openai, "):
        seewhy.load("open_clip:RN50")
    loaded = from_open_clip("ViT-S-32-alt", False)
    _, _, transform = open_clip.create_model_and_transforms("ViT-S-32-alt")
    photo = open_photo(PHOTO)
    torch.testing.assert_close(loaded.preprocess(photo), transform(photo), atol=1e-6, rtol=0)
