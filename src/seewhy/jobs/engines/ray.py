"""On a Ray cluster: tasks read and decode, a pool of actors explains."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pyarrow as pa
import torch

from seewhy.errors import InputError, MissingExtra, ModelError
from seewhy.jobs.engines.local import batch_of
from seewhy.jobs.explaining import Explained, Job, Worker
from seewhy.jobs.plan import Plan
from seewhy.jobs.sources.base import Source
from seewhy.jobs.sources.datasets import Stream
from seewhy.models.fingerprint import weights_hash
from seewhy.models.loaded import Loaded


def explained(
    job: Job, source: Source, done: Container[int], model: Callable[[], Loaded], *, workers: int, address: str | None
) -> Generator[Explained, None, None]:
    """The rows of all batches that are not in finished parts, in the order in which they are done.

    Args:
        job: what is done.
        source: the samples.
        done: the parts that are finished.
        model: makes the model, in each actor.
        workers: how many actors.
        address: of a cluster, as "ray://host:10001"; None is the one that is connected, or one on this machine.

    Yields:
        Each batch, explained.

    Raises:
        MissingExtra: if Ray is not installed.
        InputError: for a stream, whose samples cannot be looked up.
    """
    if isinstance(source, Stream):
        raise InputError(
            "Ray's tasks look samples up, and a stream can only be read from its beginning.",
            got="an iterable dataset, or a loader",
            do='engine="local", or a map-style dataset',
        )
    numbers = job.plan.missing(done)
    if not numbers:
        return
    with _connected(address, workers) as ray:
        pipeline = ray.remote(num_cpus=0)(_Pipeline).remote(numbers, job, source, model, workers)
        try:
            while (found := ray.get(pipeline.next.remote())) is not None:
                number, samples, rows = found
                yield Explained(number, samples, pa.ipc.open_stream(rows).read_all())
        finally:
            ray.kill(pipeline)


class _Pipeline:
    """Ray Data at work, in an actor: it cannot be driven from outside of a cluster, as "ray://" does."""

    def __init__(
        self, numbers: Sequence[int], job: Job, source: Source, model: Callable[[], Loaded], workers: int
    ) -> None:
        ray: Any = import_module("ray")
        import_module("ray.data")
        ray.data.DataContext.get_current().enable_progress_bars = False
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        found = (
            ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
            .map(
                _Read,
                fn_constructor_args=(job.plan, source),
                compute=ray.data.ActorPoolStrategy(size=workers),
                num_cpus=0,
            )
            .map_batches(
                _Explain,
                fn_constructor_args=(job, model, "cuda" if gpus else "cpu"),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=workers),
                num_cpus=1,
                num_gpus=gpus,
            )
        )
        self._rows = iter(found.iter_rows())

    def next(self) -> tuple[int, int, bytes] | None:
        """Number, samples and rows of the next batch; None after the last."""
        row = next(self._rows, None)
        return None if row is None else (row["number"], row["samples"], row["rows"])


class _Read:
    """Reads batches: their number becomes a pickle."""

    def __init__(self, plan: Plan, source: Source) -> None:
        self._plan, self._source, self._preprocess = plan, source, plan.seen_through

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        batch = batch_of(self._plan, self._source, int(row["number"]), self._preprocess)
        return {"batch": pickle.dumps(batch, protocol=5)}


class _Explain:
    """Explains batches, each the pickle of one: the rows become a stream of Arrow."""

    def __init__(self, job: Job, model: Callable[[], Loaded], device: str) -> None:
        loaded = model()
        if weights_hash(loaded.module) != job.plan.weights:
            raise ModelError(
                "the model on this worker has other weights than the plan's.",
                got=job.plan.model,
                do="pass a model whose weights every worker can read",
            )
        self._worker = Worker(job, loaded, torch.device(device))

    def __call__(self, batches: dict[str, Any]) -> dict[str, Any]:
        found = [self._worker(pickle.loads(content)) for content in batches["batch"]]
        return {
            "number": [batch.number for batch in found],
            "samples": [batch.samples for batch in found],
            "rows": [_stream_of(batch.rows) for batch in found],
        }


def _stream_of(table: pa.Table) -> bytes:
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    content: bytes = stream.getvalue().to_pybytes()
    return content


@contextmanager
def _connected(address: str | None, workers: int) -> Iterator[Any]:
    """Ray, connected; shut down again if it was not before."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra.of("ray", "ray") from error
    ours = not ray.is_initialized()
    if ours and address is not None:
        ray.init(address=address)
    elif ours:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
