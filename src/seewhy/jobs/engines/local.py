"""On this machine: data workers decode while the devices compute."""

from __future__ import annotations

import copy
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from seewhy.images.preprocess import Preprocess
from seewhy.jobs.explaining import Explained, Job, Worker
from seewhy.jobs.plan import Plan
from seewhy.jobs.reading import Batch, read
from seewhy.jobs.sources.base import Sample, Source
from seewhy.jobs.sources.datasets import Stream
from seewhy.models.loaded import Loaded


def explained(
    job: Job, source: Source, done: Container[int], model: Loaded, *, workers: int, devices: Sequence[torch.device]
) -> Generator[Explained, None, None]:
    """The rows of all batches that are not in finished parts, in order.

    Args:
        job: what is done.
        source: the samples.
        done: the parts that are finished.
        model: on the first device.
        workers: processes that read and decode; 0 reads in this one.
        devices: where to explain; every further one has a copy of the model.

    Yields:
        Each batch, explained.
    """
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for number, device in enumerate(devices):
        idle.put(Worker(job, copy.deepcopy(model) if number else model, device))

    def work(batch: Batch) -> Explained:
        worker = idle.get()
        try:
            return worker(batch)
        finally:
            idle.put(worker)

    plan = job.plan
    batches = _streamed(plan, source, done) if isinstance(source, Stream) else _loaded(plan, source, done, workers)
    waiting: deque[Future[Explained]] = deque()
    with closing(batches), _threads(len(devices)) as submit:
        for batch in batches:
            waiting.append(submit(work, batch))
            if len(waiting) > len(devices):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _threads(count: int) -> Iterator[Callable[..., Future[Any]]]:
    """Threads that are not waited for where the block is left early."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool.submit
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Batches(Dataset[Batch]):
    """The batches of a source, by their number in a list."""

    def __init__(self, plan: Plan, source: Source, numbers: Sequence[int]) -> None:
        self._plan, self._source, self._numbers = plan, source, numbers
        self._preprocess = plan.seen_through

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Batch:
        return batch_of(self._plan, self._source, self._numbers[index], self._preprocess)


def batch_of(plan: Plan, source: Source, number: int, preprocess: Preprocess) -> Batch:
    """One batch, read and decoded."""
    return read(number, source.samples(plan.positions(number)), preprocess)


def _loaded(plan: Plan, source: Source, done: Container[int], workers: int) -> Generator[Batch, None, None]:
    batches = _Batches(plan, source, plan.missing(done))
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_ignore_ctrl_c,
        generator=torch.Generator(),  # a loader draws a seed for its workers: not from the caller's random state
    )
    yield from loader


def _ignore_ctrl_c(_: int) -> None:
    """A terminal sends Ctrl-C to the workers too, which are still needed for the part in hand."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _streamed(plan: Plan, source: Stream, done: Container[int]) -> Generator[Batch, None, None]:
    """The batches of a stream, read from its beginning by a thread; parts that are there are passed over."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=2)
    stop = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def run() -> None:
        try:
            for number, samples in enumerate(_cut(source.stream(), plan.batch_size)):
                if stop.is_set():
                    return
                if plan.part(number) not in done:
                    put(read(number, samples, plan.seen_through))
            put(None)
        except BaseException as error:  # what the dataset raises is raised where it is waited for
            put(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _cut(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
