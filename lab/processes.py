"""Jobs that processes share, on one machine, without a socket."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import torch

from lab.store import Store

Do = Callable[[Store, object], object]  # a function of a module, and its job: both are sent to another process
RunJobs = Callable[[Do, Sequence], list]

_store: Store  # of a worker


def _start(store: type[Store], *args: object) -> None:
    """A worker begins. It leaves Ctrl-C to the main process, and ends with it, however that ends."""
    global _store
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()
    _store = store(*args)


def _do(do: Do, job: object) -> object:
    return do(_store, job)


def in_turn(run_jobs: RunJobs) -> RunJobs:
    """If torchrun starts several machines, each begins at another place in the list of jobs. What another has made is not made again."""
    rank, machines = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))

    def run(do: Do, jobs: Sequence) -> list:
        begin = rank * len(jobs) // machines
        results = run_jobs(do, [*jobs[begin:], *jobs[:begin]])
        return [*results[len(jobs) - begin :], *results[: len(jobs) - begin]]

    return run


@contextmanager
def spawn_workers(store: Store, processes: int) -> Iterator[RunJobs]:
    """Yields run_jobs(do, jobs): do(store, job) of every job, in order of the jobs, each in the first process that is free, of which
    this is one. Raises ValueError if another one stops before its time."""
    if processes < 2:
        yield in_turn(lambda do, jobs: [do(store, job) for job in jobs])
        return

    def run_jobs(do: Do, jobs: Sequence) -> list:
        futures = [pool.submit(_do, do, job) for job in jobs]
        # What no worker has begun is done here.
        results = [do(store, job) if future.cancel() else future for job, future in zip(jobs, futures, strict=True)]
        return [result.result() if isinstance(result, Future) else result for result in results]

    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes - 1, context, _start, (type(store), store.folder, store.device, store.shipped))
    signal.signal(signal.SIGTERM, lambda *_: exit(143))
    try:
        yield in_turn(run_jobs)
    except BrokenProcessPool:
        raise ValueError("another of the processes that share the work has stopped; run again to go on") from None
    finally:
        for child in multiprocessing.active_children():
            child.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
