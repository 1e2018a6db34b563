"""The studio's page: controls, pictures, and which of them belong together."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seewhy import methods
from seewhy.apps.studio import _desk as desks
from seewhy.apps.studio._desk import AUTO, Desk, Wish
from seewhy.errors import InputError, MissingExtra, SeewhyError
from seewhy.images.photo import read_photo
from seewhy.models import Loaded

try:
    import gradio as gr
except ImportError as error:
    raise MissingExtra.of("gradio", "studio") from error

MAX_FILE, MAX_PIXELS = "20mb", 50_000_000
_QUEUE = 32  # people who wait
_KEPT = 600  # seconds that files of a session stay
_NAMED = "ember", "inferno", "viridis", "magma", "cividis", "jet", "gray"
_COLORMAPS = [("as fits", ""), *((name, name) for name in _NAMED)]  # one for maps of one sign, one for signed maps
_FIRST = ("grad_cam", "layer_cam")


def page(models: Sequence[Loaded]) -> Any:
    """The page as a gradio application, to be launched or mounted.

    Args:
        models: what can be chosen from; the first one is chosen.

    """
    at = {loaded.name: Desk(loaded) for loaded in models}
    first = next(iter(at.values()))

    with gr.Blocks(title="seewhy studio", analytics_enabled=False, delete_cache=(_KEPT, _KEPT)) as built:
        gr.Markdown("# Why did the model say that?")
        kept = gr.State(None, time_to_live=_KEPT)  # the explanations of this session
        place = gr.State(None)  # a click
        with gr.Row():
            with gr.Column(scale=1):
                model = gr.Dropdown(
                    list(at), value=first.loaded.name, label="Model", visible=len(at) > 1, elem_id="model"
                )
                photo = gr.Image(type="filepath", sources=["upload", "clipboard"], label="Photograph", elem_id="photo")
                photo.preprocess = _file_of  # gradio's own opens the file, and fails on what is no picture
                gr.Examples([[str(path)] for path in _samples()], inputs=[photo], label="or one of these")
                likely = gr.Label(label="What the model sees", num_top_classes=5, elem_id="likely")
                target = gr.Dropdown(
                    first.labels, value=None, label="Explain (empty: the predicted class)", allow_custom_value=True,
                    elem_id="target",
                )  # fmt: skip
                box = gr.Dropdown([], value=None, label="Detected box (empty: the best)", elem_id="box", visible=False)
                clicked = gr.Markdown(elem_id="clicked")
            with gr.Column(scale=2):
                chosen = gr.Dropdown(
                    list(methods.available()), value=list(_FIRST), multiselect=True, label="Methods", elem_id="methods"
                )
                layer = gr.Dropdown(first.layers, value=AUTO, label="Layer", elem_id="layer")
                run = gr.Button("Explain", variant="primary", elem_id="run")
                gallery = gr.Gallery(label="Maps", columns=2, object_fit="contain", height=420, elem_id="gallery")
                with gr.Row():
                    signed = gr.Checkbox(False, label="Show what spoke against it, too", elem_id="signed")
                    alpha = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity", elem_id="alpha")
                    colormap = gr.Dropdown(_COLORMAPS, value="", label="Colours", elem_id="colormap")
                notes = gr.Markdown(elem_id="notes")
                with gr.Row():
                    check = gr.Button("Can these maps be told from chance?", elem_id="check")
                    make = gr.Button("Make files: PNG, SVG, NPZ, HTML", elem_id="make")
                verdicts = gr.Markdown(elem_id="verdicts")
                with gr.Column(visible=False) as shelf:
                    downloads = gr.File(label="Files", file_count="multiple", interactive=False, elem_id="downloads")
                with gr.Accordion("Cover a part and see the score move", open=False):
                    brush = gr.ImageEditor(
                        type="pil", label="Brush over a part", brush=gr.Brush(colors=["#ffffff"]), layers=False,
                        sources=(), elem_id="brush",
                    )  # fmt: skip
                    cover = gr.Button("Score without it", elem_id="cover")
                    moved = gr.Markdown(elem_id="moved")

        drawing = [signed, colormap, alpha]

        def look(name: str, path: str | None) -> Any:
            cleared: tuple[Any, ...] = None, [], None, "", "", "", "", *_no_files()
            if not path:
                return None, gr.Dropdown([], value=None, visible=False), None, *cleared
            with _told():
                opened = _opened(path)
                seen = at[name].seen(opened)
                boxes = gr.Dropdown(seen.boxes, value=None, visible=bool(seen.boxes))
                return seen.likely or None, boxes, opened, *cleared

        def switch(name: str) -> Any:
            desk = at[name]
            return gr.Dropdown(desk.labels, value=None), gr.Dropdown(desk.layers, value=AUTO)

        def explain(
            name: str, path: str | None, what: str | None, names: list[str], where: str, pixel: Any, number: Any,
            *options: Any,
        ) -> Any:  # fmt: skip
            with _told(), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                wish = Wish(tuple(names), str(what or ""), where, pixel, _number(number))
                found = at[name].explain(_opened(path), wish)
                texts = [f"*{explanation.note}*" for explanation in found.values() if explanation.note]
                texts += [f"**{warning.message}**" for warning in caught]
                return found, draw(found, *options), "\n\n".join(dict.fromkeys(texts)), "", *_no_files()

        def draw(found: Any, against: bool, colours: str, share: float) -> Any:
            return [] if not found else desks.pictures(found, signed=against, colormap=colours or None, alpha=share)

        def judge(name: str, found: Any) -> str:
            with _told():
                rows = desks.checked(at[name].loaded, _there(found))
                heads = ("method", "check", "insertion (higher is better)", "deletion (lower is better)")
                return "\n".join("| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows))

        def write(found: Any, against: bool, colours: str, share: float) -> Any:
            with _told():
                folder = Path(tempfile.mkdtemp(prefix="seewhy-", dir=_cache()))
                options = {"scaling": "none" if against else "per_image", "colormap": colours or None, "alpha": share}
                written = desks.files(_there(found), folder, **options)
                return [str(path) for path in written], gr.Column(visible=True)

        def covered(name: str, path: str | None, found: Any, edited: Any) -> str:
            with _told():
                original = _opened(path)
                mask = _brushed(edited, original.size)
                explanation = next(iter(_there(found).values()))
                before, after = at[name].without(original, mask, explanation)
                return f"{explanation.name() or 'score'}: **{before:.3f}** with it, **{after:.3f}** without it"

        def pick(event: gr.SelectData) -> Any:
            return event.value

        def point(name: str, path: str | None, event: gr.SelectData) -> Any:
            x, y = (int(number) for number in event.index)
            with _told():
                found = at[name].at(_opened(path), (x, y))
            if not found:
                return None, "This model gives no class to a place: choose one above, or brush over a part below.", None
            return (x, y), f"At {x}, {y} the model sees: {found}", found

        fresh = [likely, box, brush, kept, gallery, place, clicked, notes, verdicts, moved, downloads, shelf]
        photo.change(look, [model, photo], fresh)
        photo.select(point, [model, photo], [place, clicked, target])
        likely.select(pick, None, target)
        model.change(switch, model, [target, layer]).then(look, [model, photo], fresh)
        run.click(
            explain,
            [model, photo, target, chosen, layer, place, box, *drawing],
            [kept, gallery, notes, verdicts, downloads, shelf],
        )
        for control in drawing:
            control.change(draw, [kept, *drawing], gallery, show_progress="hidden")
        check.click(judge, [model, kept], verdicts)
        make.click(write, [kept, *drawing], [downloads, shelf])
        cover.click(covered, [model, photo, kept, brush], moved)
    return built.queue(max_size=_QUEUE, default_concurrency_limit=1)


def check_address(host: str, port: int) -> None:
    """Raise `InputError` if the port is in use, or the address is none of this machine."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise InputError(
                f"{host}:{port} cannot be listened on.", got=error.strerror, do="choose another --host or --port"
            ) from error


def serve(models: Sequence[Loaded], *, host: str = "127.0.0.1", port: int = 7860, wait: bool = True) -> Any:
    """Serve the page until Ctrl-C.

    Args:
        models: what can be chosen from.
        host: the address to listen on; other machines reach only what is not loopback.
        port: the port to listen on.
        wait: whether to return only when the server has stopped.

    Returns:
        The running application; `close()` ends it.

    Raises:
        InputError: if the port is in use, or the address is none of this machine.
    """
    check_address(host, port)
    application = page(models)
    application.launch(
        server_name=host, server_port=port, max_file_size=MAX_FILE, share=False, quiet=True, inbrowser=False,
        prevent_thread_lock=not wait, ssr_mode=False, footer_links=[], state_session_capacity=_QUEUE,
    )  # fmt: skip
    return application


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What is wrong with a wish is shown to who made it; other errors are the server's."""
    try:
        yield
    except SeewhyError as error:
        raise gr.Error(str(error), print_exception=False) from error


def _no_files() -> tuple[Any, Any]:
    """No files, and their shelf out of sight: those of other maps are not these."""
    return None, gr.Column(visible=False)


def _number(chosen: str | None) -> int | None:
    """The number of a box out of its words."""
    return int(chosen.partition(":")[0]) if chosen else None


def _file_of(uploaded: Any) -> str | None:
    """Where an upload lies; nothing is read yet."""
    return None if uploaded is None else str(uploaded.path)


def _opened(path: str | None) -> Image.Image:
    if not path:
        raise InputError("there is no photograph.", do="drop one, or choose one of the examples")
    with Path(path).open("rb") as file:
        photo = read_photo(file, Path(path).name)
    if photo.width * photo.height > MAX_PIXELS:
        raise InputError(
            "the photograph is too large.", got=f"{photo.width} x {photo.height}", expected="50 megapixels"
        )
    return photo


def _there(found: Any) -> Any:
    if not found:
        raise InputError("there is no map yet.", do="press Explain first")
    return found


def _brushed(edited: Any, size: tuple[int, int]) -> Image.Image:
    """Where the brush was, white, as large as the photograph."""
    layers = [] if not edited else edited["layers"]
    strokes = [np.asarray(layer.convert("RGBA"))[..., 3] > 0 for layer in layers]
    if not any(stroke.any() for stroke in strokes):
        raise InputError("nothing is covered.", do="brush over a part of the photograph first")
    return Image.fromarray(np.logical_or.reduce(strokes)).convert("L").resize(size)


def _samples() -> list[Path]:
    from seewhy import samples

    return [samples.path(name) for name in ("chelsea.png", "coffee.png")]


def _cache() -> str:
    """Where gradio keeps, serves and removes the files of a session."""
    from gradio.utils import get_upload_folder

    folder = get_upload_folder()
    Path(folder).mkdir(parents=True, exist_ok=True)
    return str(folder)
