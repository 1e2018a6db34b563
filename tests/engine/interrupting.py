"""Ctrl-C inside entering and leaving the guard and `capture`: what is left over.

    python -m tests.engine.interrupting         # at every place where Python looks for signals
    python -m tests.engine.interrupting 3000    # by as many signals at random instants, of `explain` too

Prints JSON: the number of interruptions, and by place or number what was not as before.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable

import torch
import torch._dynamo  # without it nothing can be compiled, and the guard does not touch the stance
from torch import nn

import seewhy
from seewhy.engine import turns
from seewhy.engine.guard import guard


def fingerprint(model: nn.Module) -> dict[str, object]:
    tensors = [*model.parameters(), *model.buffers()]
    return {
        "values": [tensor.detach().numpy().tobytes() for tensor in tensors],
        "places": [tensor.data_ptr() for tensor in tensors],
        "objects": [id(tensor) for tensor in tensors],
        "flags": [tensor.requires_grad for tensor in tensors],
        "grads": [None if tensor.grad is None else (id(tensor.grad), tensor.grad.tolist()) for tensor in tensors],
        "modes": [module.training for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
    }


def stance() -> str:
    return torch._dynamo.eval_frame._stance.stance


def left_over(model: nn.Module, before: dict[str, object]) -> list[str]:
    now = fingerprint(model)
    found = [name for name in before if now[name] != before[name]]
    found += ["stance"] * (stance() != "default")
    found += ["turn"] * bool(turns._turns or turns._waits)
    found += ["grad mode"] * (not torch.is_grad_enabled() or torch.is_inference_mode_enabled())
    found += ["function mode"] * torch._C._len_torch_function_stack()
    found += ["autocast"] * (not torch.is_autocast_cache_enabled())
    found += ["list"] * (model.seen != [1])
    return found


def small() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    model.seen = [1]
    return model


def block(model: nn.Module) -> None:
    with guard(model), seewhy.capture(model, "0"):
        model.seen.append(2)


def interrupted_at(number: int, work: Callable[[], None]) -> bool:
    """Run `work`, and raise KeyboardInterrupt at the `number`-th place where Python looks for signals.

    These are the start of every function in Python, and the return from every function in C. False if there are fewer.
    """
    places = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal places
        if event in ("call", "c_return"):
            places += 1
            if places == number:
                raise KeyboardInterrupt

    try:
        sys.setprofile(count)
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return places >= number


def everywhere() -> tuple[int, dict[str, list[str]]]:
    model, found, count = small(), {}, 0
    with guard(model):
        model(torch.ones(1, 1, 8, 8))
    for watched in (False, True):
        number = 0
        while True:
            number += 1
            if watched:  # as after every change of the weights
                with torch.no_grad():
                    model[0].bias.add_(1)
            before = fingerprint(model)
            if not interrupted_at(number, lambda: block(model)):
                break
            if kinds := left_over(model, before):
                found[f"watched {number}" if watched else str(number)] = kinds
        count += number - 1
    return count, found


def at_random(times: int) -> tuple[int, dict[str, list[str]]]:
    model, image, found, count = small(), torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8), {}, 0
    explainer = seewhy.Explainer(model, "grad_cam", layers="0", grid=None)
    works = (lambda: block(model), lambda: explainer(image, 1))
    lengths = []
    for work in works:
        work()
        start = time.perf_counter()
        work()
        lengths.append(time.perf_counter() - start)
    drawn = random.Random(0)
    while count < times:
        number = drawn.randrange(2)
        if drawn.random() < 0.2:
            with torch.no_grad():
                model[0].bias.add_(1e-3)
        before = fingerprint(model)
        try:
            signal.setitimer(signal.ITIMER_REAL, drawn.uniform(1e-6, lengths[number]))
            works[number]()
            while True:  # until the signal arrives
                pass
        except KeyboardInterrupt:
            pass
        count += 1
        if kinds := left_over(model, before):
            found[str(count)] = kinds
            model = small()
            explainer = seewhy.Explainer(model, "grad_cam", layers="0")
    return count, found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    interruptions, kinds_left = at_random(int(sys.argv[1])) if len(sys.argv) > 1 else everywhere()
    print(json.dumps({"interruptions": interruptions, "left_over": kinds_left}))
