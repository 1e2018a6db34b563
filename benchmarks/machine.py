"""The machine in words, for every table that tells times, and times that are taken in turns."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path


def processor() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def hardware(device: str = "cpu") -> str:
    """The accelerator, or the processor with its instructions and the threads that torch takes."""
    import torch

    from seewhy._torch import computes_bf16

    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    bf16 = "-BF16" if computes_bf16(torch.device("cpu")) else ""
    return f"{processor()} ({torch.backends.cpu.get_cpu_capability()}{bf16}), {torch.get_num_threads()} threads"


def load() -> str:
    """What else runs on the machine, in words; "" where it does not say."""
    return f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""


def in_turn(
    table: dict[str, Callable[[], object]], rounds: int, now: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """The seconds of each way in each of interleaved rounds; two rounds before them warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in table}
    names = list(table)
    for number in range(-2, rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:  # none always after the same one
            start = now()
            table[name]()
            if number >= 0:
                seconds[name].append(now() - start)
    return seconds
