"""What a function from outside is called with."""

from __future__ import annotations

from torch import Tensor

from seewhy import targets
from seewhy.evidence._provider import provides
from seewhy.evidence._request import Request
from seewhy.hooks.nested import rebuild
from seewhy.inputs import Inputs
from seewhy.methods.registry import Call


@provides("call")
def call(request: Request) -> Call:
    """The model, copies of its inputs, and this one target."""
    forward = request.forward
    target = targets.as_target(forward.target)
    asked = target.one_of(request.number) if forward.scores.ndim == 2 else target
    return Call(forward.run.model, _passed(forward.call), asked, forward.call.batch, forward.call.size)


def _passed(inputs: Inputs) -> object:
    """The inputs as a caller writes them: a tensor, a list, a tuple, a dict."""
    args, kwargs = rebuild((inputs.args, inputs.kwargs), Tensor.clone)
    return kwargs or (args[0] if len(args) == 1 else args)
