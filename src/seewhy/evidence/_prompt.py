"""How a question about the tokens of an answer becomes one about a call: answered, with its layers and its grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from PIL import Image
from torch import Tensor, nn

from seewhy.engine.session import Session, session
from seewhy.errors import LayerError, MethodError
from seewhy.evidence._answer import answered
from seewhy.evidence._recorder import Recorder
from seewhy.evidence._sight import places, sight
from seewhy.images.arrays import rescale
from seewhy.inputs.prompted import Prompted
from seewhy.targets.tokens import Spoken, Token


@dataclass(frozen=True)
class Question:
    """A call that is ready to be explained.

    Attributes:
        call: the prompt with its answer.
        target: the tokens that are asked about.
        recorder: records at the layers that the tokens of the pictures go through; at layers of the vision tower where
            these tokens have no places, or the caller names such layers.
        note: which layer was chosen, and why; "" where that is seen in the forward.
        photos: the pictures as the model sees them, each scaled by its own range; None where a prompt has several.
    """

    call: Prompted
    target: Spoken
    recorder: Recorder
    note: str
    photos: tuple[Image.Image, ...] | None


def logits(outputs: Any) -> Any:
    """What counts of a model of language's output: no caches, and nothing of its vision tower."""
    found = getattr(outputs, "logits", None)
    return found if isinstance(found, Tensor) else outputs


def question(model: nn.Module, inputs: Any, target: Token, recorder: Recorder, tokenizer: Any = None) -> Question:
    """Answer a prompt, and find where in the model and in the pictures to look.

    Args:
        model: generates text about pictures.
        inputs: what its processor returned.
        target: which tokens are explained.
        recorder: made for the methods, with the layers and the grid that the caller gave, if any.
        tokenizer: to be used where the target brings none.

    Raises:
        SeewhyError: where the answer, the layers or the places cannot be found.
    """
    with session(model, Prompted.of(inputs, model), select=logits) as run:
        call, spoken = answered(run, target, tokenizer)
        run = replace(run, call=call)
        call = sight(run)
        run = replace(run, call=call)
        layers, note, settings = recorder.layers, "", recorder.settings
        layered = any(method.layered for method in recorder.methods)
        attends = any(method.attends or "readouts" in method.needs for method in recorder.methods)
        if layered and not attends and settings.grid is None and _looks_at_the_tower(run, call, layers):
            return Question(call, spoken, recorder, "", _photos(call))
        if layers is None:
            # what the last layer makes of a picture's tokens is read by none after it, unless a decoder does
            reached = call.layers if spoken.ahead == 0 or len(call.layers) < 2 else call.layers[:-1]
            layers = reached[-1:] if layered else call.layers[-1:]
            note = f"{layers[0]} is the last layer whose tokens of the picture the answer reads." if layered else ""
        if (layered or attends) and settings.grid is None:
            grid = places(run, call)
            if not grid.shared and any("replay" in need for method in recorder.methods for need in method.needs):
                raise MethodError(
                    "the tokens of the pictures stand at different places of the prompts.",
                    got="several prompts, and a method that changes a layer",
                    do="explain them one at a time",
                )
            settings = replace(settings, grid=grid.fold)
        found = Recorder(recorder.methods, run.modules(layers), settings, recorder.context)
    return Question(call, spoken, found, note, _photos(call))


def _looks_at_the_tower(run: Session, call: Prompted, layers: tuple[str, ...] | None) -> bool:
    """Whether the layers that the caller names are not those of the tokens; of none, whether tokens have no places."""
    if layers is not None:
        return not any(name.startswith(call.layers[0].rsplit(".", 2)[0]) for name in layers)
    try:
        places(run, call)
    except LayerError:
        return True
    return False


def _photos(call: Prompted) -> tuple[Image.Image, ...] | None:
    """The pictures of a call, as far as a photograph can be drawn of each row."""
    if len(call.size) != 2 or call.image.shape[1] not in (1, 3):
        return None
    bright = rescale(call.image.float(), (1, 2, 3)).expand(-1, 3, -1, -1)
    return tuple(Image.fromarray(each) for each in (bright * 255).byte().movedim(1, -1).cpu().numpy())
