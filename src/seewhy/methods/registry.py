"""The methods by name, and what each one needs."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from seewhy._types import Ask
from seewhy.engine.randomness import seeded
from seewhy.errors import InputTypeError, MethodError
from seewhy.hooks.kept import keeping_hooks
from seewhy.methods.fuse import Fuse
from seewhy.targets import BaseTarget, Target

Need = Literal[
    "activations",
    "gradients",
    "weights",
    "generator",
    "scores",
    "score",
    "replay",
    "neutral_replay",
    "references",
    "curvatures",
    "noisy_gradients",
    "inputs",
    "input_gradients",
    "gradients_at",
    "libra_gradients",
    "libra_gradients_at",
    "guided_gradients",
    "bias_gradients",
    "attentions",
    "attention_logits",
    "attention_gradients",
    "layer_attention_gradients",
    "queries",
    "keys",
    "values",
    "attended_gradients",
    "readings",
    "places",
    "block_inputs",
    "value_attention",
    "token_scores",
    "readouts",
    "call",
]
# (model, inputs, target) -> maps (B, *space)
Attribution = Callable[[nn.Module, Any, Any], Tensor]

# the files that hold methods, in the order in which they are listed; a family is a folder
_FILES = (
    "cam.gradient",
    "cam.decomposition",
    "cam.reference",
    "attribution.pixel",
    "attribution.slope",
    "attribution.noisy",
    "attribution.path",
    "attribution.local",
    "perturbation.replayed",
    "perturbation.channel_masks",
    "perturbation.channel_gains",
    "perturbation.optimised",
    "perturbation.input_masks",
    "perturbation.token_masks",
    "perturbation.region_masks",
    "perturbation.sensitivity",
    "attention.flow",
    "attention.slopes",
    "attention.surgery",
    "cam.combined",
    "language.tam",
    "language.eagle",
)
_methods: dict[str, Method] = {}
Function = TypeVar("Function", bound=Callable[..., Any])

# what a method can be given that is the same whatever the score
_UNSCORED = frozenset[str]({"activations", "inputs", "references", "generator"})


class Neutral(NamedTuple):
    """A run on images made absent.

    Attributes:
        activations: what the layer returned.
        scores: of the images made absent.
        replay: what the score becomes for changed activations in this run.
    """

    activations: Float[Tensor, "B C *space"]
    scores: Float[Tensor, " B"]
    replay: Ask


class Accounted(NamedTuple):
    """What a method returns whose map adds up to a change of the score.

    Attributes:
        maps: signed.
        gap: the share of that change which a map does not add up to.
    """

    maps: Float[Tensor, "B *space"]
    gap: Float[Tensor, " B"]


@dataclass(frozen=True)
class Method:
    """One explanation method: a pure function of tensors, and what must be handed to it by name.

    What it can need:

    - activations, gradients: (B, C, *space) of the layer.
    - weights: (B, C), of the linear layer behind a global average.
    - curvatures: (B, C, *space), the Hessian of the score at the layer times the activations.
    - noisy_gradients: a function (samples, noise) -> (N, B, C, *space), the gradients for that many inputs with noise
      of that share of their range.
    - inputs, input_gradients, guided_gradients: (B, C, *size) of the image, the last as guided backpropagation has
      them.
    - bias_gradients: a list of (B, C, *space), each layer's bias times the gradient at its output.
    - attentions, attention_logits, attention_gradients, layer_attention_gradients, readings, places: of all attention
      over the image's tokens.
    - queries, keys, values, attended_gradients: of the last attention over the image's tokens.
    - block_inputs, value_attention, token_scores: of the blocks and what follows them (see `seewhy.methods.attention`).
    - readouts: what a model of language would say at the tokens of its pictures (see `seewhy.evidence.words`).
    - gradients_at: the gradients of the score at changed images (see `AskSlopes`).
    - libra_gradients, libra_gradients_at: as input_gradients and gradients_at, by LibraGrad.
    - scores: (B,), of the unchanged images.
    - score, replay: ask what the score becomes for changed images, or for changed activations (see `Ask`).
    - neutral_replay: a baseline -> the run on images made absent (`Neutral`).
    - references: images -> their activations.
    - call: of a function from outside (see `Call`).
    - generator: a `torch.Generator`.

    Attributes:
        name: what it is called by.
        family: the folder that it is written in, "cam" say.
        function: takes what it needs, and its options, by keyword. It returns (B, *space), signed, or an `Accounted`.
        needs: the names of what is handed to it.
        source: the paper, "arXiv:...", a DOI or a venue.
        cost: forward and backward passes for each target, in words.
        staged: whether it looks at the last layer of every resolution unless told where.
        fuse: how the maps of several layers become one.
        ask: (target, outputs) -> the target that is explained instead of the one that was asked for; None explains the
            latter.
        checked: against what the method was compared (its authors' code, its paper, a peer), and what the differences
            are.
    """

    name: str
    family: str
    function: Callable[..., Any]
    needs: tuple[Need, ...]
    source: str
    cost: str
    staged: bool = False
    fuse: Fuse = "mean"
    ask: Callable[[Target, Any], Target] | None = None
    checked: str = ""

    @property
    def scored(self) -> bool:
        """Whether its map depends on the score; otherwise it is the same for every target, and none has to be given."""
        return self.ask is not None or not _UNSCORED.issuperset(self.needs)

    @property
    def runs_backward(self) -> bool:
        """Whether it asks for a gradient, of the score or of what it changes."""
        return "backward" in self.cost

    @property
    def layered(self) -> bool:
        """Whether it looks at layers; otherwise its map lies on the input."""
        return "activations" in self.needs

    @property
    def attends(self) -> bool:
        """Whether it looks at attention; its map lies on the grid of the tokens."""
        return "places" in self.needs

    @property
    def differentiates(self) -> bool:
        """Whether it takes gradients of the score."""
        return any("gradients" in need for need in self.needs)

    @property
    def reduces(self) -> bool:
        """Whether it takes `reduce`, the way in which weighted channels (B, C, *space) become one map."""
        return "reduce" in self.options

    @property
    def options(self) -> dict[str, Any]:
        """The keyword options of the function, with their defaults; see `get`."""
        parameters = inspect.signature(self.function).parameters.values()
        return {found.name: found.default for found in parameters if found.kind is found.KEYWORD_ONLY}

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        written = self.function.func if isinstance(self.function, partial) else self.function
        return (written.__doc__ or "").strip().splitlines()[0]


def method(
    name: str,
    *,
    needs: tuple[Need, ...],
    source: str,
    cost: str | None = None,
    staged: bool = False,
    fuse: Fuse = "mean",
    ask: Callable[[Target, Any], Target] | None = None,
    checked: str = "",
) -> Callable[[Function], Function]:
    """Enter a function under `name`; see `Method`. `source` is the paper: "arXiv:...", a DOI or a venue."""

    def enter(function: Function) -> Function:
        family = function.__module__.split(".")[-2]
        passes = cost or ("1 forward, 1 backward" if {"gradients", "input_gradients"} & {*needs} else "1 forward")
        add(Method(name, family, function, needs, source, passes, staged, fuse, ask, checked))
        return function

    return enter


def add(entry: Method) -> None:
    """Enter a method that is made of another one."""
    _methods[entry.name] = entry


def available() -> dict[str, Method]:
    """Every method by its name.

    Returns:
        The methods, family by family.
    """
    for file in _FILES:
        import_module(f"seewhy.methods.{file}")
    return dict(_methods)


def get(name: str | Method | Attribution, **options: Any) -> Method:
    """The method called `name`; case, spaces, hyphens and underscores do not count, and "++" is "plus_plus".

    Args:
        name: a name, a method, or a function (model, inputs, target) -> maps (B, *space), which is a method too.
        **options: the method's own, such as get("odam", sigma=2.0).

    Returns:
        The method, with these options.

    Raises:
        MethodError: if there is no such method, or it does not have one of the options.
    """
    found = name if isinstance(name, Method) else outside(name) if callable(name) else _find(name)
    if unknown := options.keys() - found.options.keys():
        raise MethodError(
            f"{found.name} has no option {', '.join(sorted(unknown))}.",
            expected=", ".join(f"{key}={value!r}" for key, value in found.options.items()) or "no options at all",
        )
    return replace(found, function=partial(found.function, **options)) if options else found


class Call(NamedTuple):
    """What a function from outside is called with.

    Attributes:
        model: in eval mode, inside a session: what a function attaches to it is taken off again.
        inputs: copies of what the caller passed.
        target: what is explained, definite: from the model's outputs to scores (B,).
        batch: the number of images.
        size: of the images.
    """

    model: nn.Module
    inputs: Any
    target: BaseTarget
    batch: int
    size: tuple[int, ...]


def outside(function: Attribution) -> Method:
    """The method that a function (model, inputs, target) -> maps (B, *space) is. Its maps lie on the input.

    Args:
        function: gives a signed map for each image, of any resolution. It draws from the process's random numbers,
            which are seeded by `generator` as long. `seewhy.targets.classes_of(target)` are the classes explained.
    """
    name = str(getattr(function, "__name__", type(function).__name__))

    def drawn(call: Call, generator: Generator) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        with seeded(seed), keeping_hooks(call.model):
            maps = function(call.model, call.inputs, call.target)
        if not isinstance(maps, Tensor):
            raise InputTypeError(f"{name} did not return a tensor.", got=type(maps).__name__, expected="maps (B, H, W)")
        if len(maps) != call.batch or maps.ndim != 1 + len(call.size):
            raise MethodError(
                f"{name} did not return a map for each image.",
                got=f"shape {tuple(maps.shape)}",
                expected=f"{(call.batch, *call.size)}, or another resolution",
                do="sum over the channels: maps.sum(1)",
            )
        return maps.detach()

    drawn.__doc__ = f"What {name} returns."
    return Method(name, "outside", drawn, ("call", "generator"), "passed by the caller", "1 forward, and its own")


def _find(name: str) -> Method:
    if not isinstance(name, str):
        raise MethodError("a method is given by its name.", got=repr(name), do='method="grad_cam", or a function')
    by_key = {_key(known): found for known, found in available().items()}
    if found := by_key.get(_key(name)):
        return found
    near = difflib.get_close_matches(_key(name), by_key, n=3)
    raise MethodError(
        f"there is no method {name!r}.",
        expected=", ".join(by_key[key].name for key in near) if near else "one of " + ", ".join(available()),
        do="seewhy.methods.available() and `seewhy methods` list them all",
    )


def _key(name: str) -> str:
    return "".join(letter for letter in name.lower().replace("++", "plusplus") if letter.isalnum())
