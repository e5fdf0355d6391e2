"""Starts Ray on this machine or joins a cluster, and fits workers to its processors."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from captioning.errors import UserError, one_line

# For the tasks that list, read, filter, divide and write rows. If the workers of a cluster ask for
# its last CPUs, they wait for these tasks forever: https://github.com/ray-project/ray/issues/44687
OTHER_CPUS = 4

_OBJECT_STORE_BYTES = 500_000_000  # on this machine; the blocks of all workers take a tenth of it


def fit_workers(workers: int | None, threads: int, cpus: Sequence[float], reserved: int = 0) -> int:
    """Returns the number of workers, each with `threads` threads, for machines with these numbers
    of `cpus`: `workers` or, if it is None, as many as fit while `reserved` CPUs stay free. Raises
    UserError if they do not fit."""
    fitting = sum(int(count) // threads for count in cpus)
    fitting = max(0, min(fitting, int(sum(cpus) - reserved) // threads))
    if not 1 <= (workers or 1) <= fitting:
        needs = f", of which Ray needs {reserved} for itself" if reserved else ""
        raise UserError(
            f"Expected at most {fitting} workers with {threads} threads each on {sum(cpus):g} "
            f"processors{needs}, got {workers or 1}. Name fewer --workers or --threads, or add "
            "machines."
        )
    return workers or fitting


@contextmanager
def start_ray(address: str | None, workers: int | None, threads: int) -> Iterator[int]:
    """Connects the block to Ray: to one that runs on this machine until the end of the block, and
    that no other machine can reach, or to the cluster at `address`. Yields the number of workers:
    see `fit_workers`. Raises ConnectionError or UserError if there is no such cluster, UserError if
    the workers do not fit."""
    if address is None:
        workers = fit_workers(workers, threads, [count_cpus()])
        options = {
            "num_cpus": workers * threads + OTHER_CPUS,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
        # They must be set before Ray is imported. The first makes Ray listen on loopback only, the
        # last two make it start a process only when a task needs one.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
        os.environ.setdefault("RAY_enable_worker_prestart", "0")
    else:
        options = {}
        _require_answer(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **options)
    except OSError:  # no cluster at the address: its message says so
        raise
    except Exception as error:  # the class that Ray raises if its start takes too long
        raise UserError(
            f"Expected Ray to start on this machine, or to run at the --address, got another "
            f"result ({one_line(error)}). Check the address, the versions of Python and Ray, and "
            "whether other programs take all processors."
        ) from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has set one that prints the stack
        if address is not None:
            cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
            workers = fit_workers(workers, threads, cpus, OTHER_CPUS)
        yield workers
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Raises ConnectionError if nothing answers at the address: Ray would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"Expected a Ray cluster at {address}, got no answer ({one_line(error)}). Start one, "
            "or name HOST:PORT as `ray start` printed it."
        ) from error


def count_cpus() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
