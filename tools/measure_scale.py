"""Measures captioning at scale on this machine, for docs/scale.md:

    python tools/measure_scale.py rows 1000000        # seconds and memory of a job without a model
    python tools/measure_scale.py shards 40000        # images a second from shards, without a model
    python tools/measure_scale.py photos FOLDER       # processor time an image, plain and at scale

Needs the extras `scale` and `test`, and 1,500 photographs for `photos`.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
SHARD_ROWS, PHOTO_BYTES = 1000, 130_000
FEW, MANY = 300, 1500  # photographs: the difference leaves out what a start takes

STUB_JOB = """
import sys
from stub_captioner import load_stub
from captioning.app.at_scale import caption_at_scale

sys.exit(caption_at_scale(sys.argv[1], sys.argv[2], load=load_stub))
"""


def run(*arguments: object) -> tuple[float, float, float]:
    """Runs Python, and returns the seconds, the processor seconds of all its processes, and their
    most memory together in GB (what they share counts once)."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths}
    start = time.monotonic()
    command = [sys.executable, *map(str, arguments)]
    job = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    processor_seconds, memory = {}, 0.0
    while job.poll() is None:
        together = 0
        for process in _processes(job.pid):
            try:
                times = process.cpu_times()
                processor_seconds[process.pid] = times.user + times.system
                together += process.memory_full_info().pss
            except psutil.Error:
                pass
        memory = max(memory, together / 1e9)
        time.sleep(0.2)
    seconds = time.monotonic() - start
    if job.returncode:
        raise ChildProcessError(f"{command} failed")
    return seconds, sum(processor_seconds.values()), memory


def _processes(pid: int) -> list[psutil.Process]:
    try:
        command = psutil.Process(pid)
        return [command, *command.children(recursive=True)]
    except psutil.Error:
        return []


def measure_rows(count: int, folder: Path) -> None:
    manifest = folder / "rows.parquet"
    names = [f"{number}.jpg" for number in range(count)]
    pq.write_table(pa.table({"id": range(count), "path": names}), manifest)
    seconds, processor_seconds, memory = run("-c", STUB_JOB, manifest, folder / "captions")
    rows = sum(
        pq.read_metadata(path).num_rows for path in (folder / "captions").rglob("*-0.parquet")
    )
    print(f"{rows} rows: {seconds:.0f} s, {processor_seconds:.0f} s of processors, {memory:.2f} GB")


def measure_shards(count: int, folder: Path) -> None:
    shards = folder / "shards"
    shards.mkdir()
    for first in range(0, count, SHARD_ROWS):
        ids = range(first, min(first + SHARD_ROWS, count))
        table = pa.table({"id": ids, "bytes": [os.urandom(PHOTO_BYTES) for _ in ids]})
        pq.write_table(table, shards / f"{first}.parquet", row_group_size=100)
    run("-c", STUB_JOB, shards, folder / "captions")
    written = sorted(
        (path.stat().st_mtime, pq.read_metadata(path).num_rows)
        for path in (folder / "captions").rglob("*-0.parquet")
    )
    rows = sum(rows for _, rows in written[1:])
    seconds = written[-1][0] - written[0][0]
    print(f"{count} images in shards: {rows / seconds:.0f} a second, once the first are written")


def measure_photos(photos: Path, folder: Path) -> None:
    paths = sorted(path.absolute() for path in photos.glob("*.jpg"))[:MANY]
    for name, command in (
        ("plain", lambda subset, run_folder: ("Testing_caption_generator.py", subset, "--output",
                                              run_folder / "captions.jsonl")),
        *((f"at scale, {workers} workers", _scale_command(workers)) for workers in (1, 2)),
    ):  # fmt: skip
        results = []
        for count in (FEW, MANY):
            run_folder = folder / f"{name} {count}"
            subset = run_folder / "photos"
            subset.mkdir(parents=True)
            for path in paths[:count]:
                (subset / path.name).symlink_to(path)
            results.append(run(*command(subset, run_folder)))
        (few_seconds, few_cpu, _), (seconds, cpu, memory) = results
        more = MANY - FEW
        print(
            f"{name}: {(cpu - few_cpu) / more:.4f} s of processors an image, "
            f"{more / (seconds - few_seconds):.1f} images a second, start {few_seconds:.0f} s with "
            f"{FEW} images, {memory:.2f} GB"
        )


def _scale_command(workers: int):
    def command(subset: Path, run_folder: Path) -> tuple:
        manifest = run_folder / "photos.parquet"
        run("-m", "captioning", "manifest", subset, manifest)
        return ("-m", "captioning", "at-scale", "--manifest", manifest, "--output",
                run_folder / "captions", "--workers", workers)  # fmt: skip

    return command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    measurements = parser.add_subparsers(required=True)
    rows = measurements.add_parser("rows")
    rows.add_argument("argument", type=int)
    rows.set_defaults(measure=measure_rows)
    shards = measurements.add_parser("shards")
    shards.add_argument("argument", type=int)
    shards.set_defaults(measure=measure_shards)
    photos = measurements.add_parser("photos")
    photos.add_argument("argument", type=Path)
    photos.set_defaults(measure=measure_photos)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        options.measure(options.argument, Path(folder))


if __name__ == "__main__":
    main()
