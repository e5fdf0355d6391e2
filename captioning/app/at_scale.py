"""Captions the images of a manifest with Ray Data, on the processors of one machine or a cluster.

Ray distributes the rows, restarts what dies, and writes captions with their checkpoints. This
module divides a manifest into jobs, runs them, and counts the captions at the end.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from captioning.app.caption_store import CaptionStore
from captioning.app.console import caption_status, print_error
from captioning.app.manifest import read_manifest
from captioning.app.ray_cluster import count_cpus, fit_workers, start_ray
from captioning.app.row_captioner import RowCaptioner, identify
from captioning.app.storage import open_storage
from captioning.errors import UserError
from captioning.files import only_writer
from captioning.inference.captioner import Captioner
from captioning.settings import SearchSettings

PART_ROWS = 10_000_000  # of a job of Ray, which holds the ids of its checkpoints in memory

_BATCH_ROWS = 64
_BLOCKS_A_WORKER = 4  # at least, so that all workers end at about the same time
_BLOCK_ROWS = 1000  # of a task and of a file: half a minute of work, which a killed worker loses
_LARGE_BLOCK_ROWS = 10_000  # at most, if a worker has many blocks: Ray schedules fewer
_LARGE_BLOCKS_A_WORKER = 100  # at least, so that a killed worker loses a hundredth of its work
_WORKERS_A_READER = 64  # a task reads 2,700 images a second from shards, enough for 90
_WORKERS_A_WRITER = 32  # a file in object storage takes some 0.2 s


def caption_at_scale(
    manifest: str,
    output: str,
    root: Path | None = None,
    workers: int | None = None,
    threads: int = 1,
    address: str | None = None,
    retry_errors: bool = False,
    search: SearchSettings = SearchSettings(),
    load: Callable[[Path | None], Captioner] = Captioner.load,
) -> int:
    """Captions the images of a `manifest` (see `captioning.app.manifest`) into the folder or URI
    `output` (see `captioning.app.caption_store`) with the model that `load` returns for `root`.
    Returns the exit status, as `caption_images` does.

    The captions come from `workers` processes, by default as many as fit, each with `threads`
    threads. They run on this machine or, with an `address` (that of a Ray cluster, or "auto"), on
    the machines of the cluster. Images that have captions are skipped, and those with errors too,
    unless `retry_errors`. Raises OSError or UserError if the job cannot start, or if rows are
    missing at its end.
    """
    if address is None:  # before anything slow
        fit_workers(workers, threads, [count_cpus()])
    ids, columns, fingerprint = read_manifest(manifest)
    store = CaptionStore(output)
    identity = identify(root)
    captioner_arguments = (root, threads, search, identity, load)
    folder = store.local_folder
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    with only_writer(folder) if folder else nullcontext():
        store.bind(identity | {"search": repr(search), "manifest": fingerprint})
        parts = [ids[first : first + PART_ROWS] for first in range(0, len(ids), PART_ROWS)]
        missing = []
        for part, part_ids in enumerate(parts):
            missing.append(len(part_ids) - store.repair(part))
            if retry_errors:
                missing[part] += store.forget_errors(part)
        if any(missing):
            with start_ray(address, workers, threads) as workers:
                job = _Job(manifest, columns, store, workers, threads, captioner_arguments)
                for part, part_ids in enumerate(parts):
                    if missing[part]:
                        id_range = (part_ids[0], part_ids[-1]) if len(parts) > 1 else None
                        job.caption(part, missing[part], id_range)
        return _report(store, parts)


def count_block_rows(missing: int, workers: int, columns: list[str]) -> int:
    """Returns the number of rows of a block, for a job or part with `missing` rows to caption and
    these columns in its manifest. The column `bytes` takes some 0.1 MB a row: such blocks stay
    small."""
    share = missing / workers
    rows = min(share / _BLOCKS_A_WORKER, _BLOCK_ROWS)
    if "bytes" not in columns:
        rows = max(rows, min(share / _LARGE_BLOCKS_A_WORKER, _LARGE_BLOCK_ROWS))
    return max(ceil(rows), _BATCH_ROWS)


@dataclass(frozen=True)
class _Job:
    """The values that all parts of a job share. `captioner_arguments`: those of a
    `RowCaptioner`."""

    manifest: str
    columns: list[str]
    store: CaptionStore
    workers: int
    threads: int
    captioner_arguments: tuple

    def caption(self, part: int, missing: int, id_range: tuple[int, int] | None) -> None:
        """Captions the rows of a part that have no checkpoint yet, `missing` ones, a block at a
        time in each worker. `id_range`: see `_read_rows`."""
        from ray.data import ActorPoolStrategy, SaveMode

        block_rows = count_block_rows(missing, self.workers, self.columns)
        workers = min(self.workers, ceil(missing / block_rows))
        rows = self._read_rows(id_range)
        rows.context.checkpoint_config = self._checkpoints(part)
        captions = rows.repartition(target_num_rows_per_block=block_rows).map_batches(
            RowCaptioner,
            fn_constructor_args=self.captioner_arguments,
            batch_format="pyarrow",
            batch_size=_BATCH_ROWS,
            num_cpus=self.threads,
            compute=ActorPoolStrategy(size=workers),
        )
        with _errors_of_workers():
            captions.write_parquet(
                self.store.captions_folder(part),
                filesystem=self.store.file_system,
                mode=SaveMode.APPEND,
                concurrency=ceil(workers / _WORKERS_A_WRITER),
            )

    def _read_rows(self, id_range: tuple[int, int] | None):
        """Returns a data set of Ray with the rows of the manifest: all, or those with the ids from
        the first to the last of `id_range`."""
        from ray.data import DataContext, read_parquet
        from ray.data.expressions import col

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # raised errors are printed anyway
        context = DataContext.get_current()
        context.enable_progress_bars = sys.stderr.isatty()
        context.use_datasource_v2 = False  # the second version reads with more processes
        file_system, path = open_storage(self.manifest)
        readers = ceil(self.workers / _WORKERS_A_READER)
        rows = read_parquet(path, filesystem=file_system, concurrency=readers)
        rows = rows.select_columns(self.columns)
        if id_range:
            first, last = map(int, id_range)
            rows = rows.filter(expr=(col("id") >= first) & (col("id") <= last))
        return rows

    def _checkpoints(self, part: int):
        from ray.data.checkpoint import CheckpointConfig

        checkpoints = CheckpointConfig(
            "id",
            self.store.checkpoints_folder(part),
            override_filesystem=self.store.file_system,
            delete_checkpoint_on_success=False,
        )
        checkpoints.checkpoint_actor_pool_max_size = 1
        return checkpoints


@contextmanager
def _errors_of_workers() -> Iterator[None]:
    """Raises a UserError of a worker again: Ray's error holds it as text only."""
    from ray.exceptions import RayTaskError

    try:
        yield
    except RayTaskError as error:
        _, is_user_error, message = str(error).rpartition(f"{UserError.__name__}: ")
        if not is_user_error:
            raise
        raise UserError(message.splitlines()[0]) from error


def _report(store: CaptionStore, parts: list[np.ndarray]) -> int:
    """Repairs the store a last time, prints how many images have captions and how many failed, and
    returns the exit status. Raises UserError if rows are missing."""
    rows = sum(store.repair(part) for part in range(len(parts)))
    expected = sum(map(len, parts))
    if rows != expected:
        raise UserError(f"Expected {expected} rows in {store.name}, got {rows}. Run the job again.")
    errors = sum(store.count_errors(part) for part in range(len(parts)))
    print(f"{rows - errors} of {rows} images have captions in {store.name}/captions")
    if errors:
        print_error(
            f"{errors} of {rows} images could not be captioned. The column error of the rows in "
            f"{store.name}/captions says why; --retry-errors captions them again."
        )
    return caption_status(rows - errors, errors)
