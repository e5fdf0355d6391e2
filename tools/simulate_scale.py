"""Simulates captioning at scale on more workers than this machine has, for docs/scale.md:

    pip install simpy
    python tools/simulate_scale.py           # a minute
    python tools/simulate_scale.py --help    # all figures, with units and origins

Prints a check against what was measured, then a table. A driver hands out blocks of rows. A worker
captions a block while the next one is on its way. The images come in one of two ways:

- Files: for each batch of rows, a worker requests the files from storage, a few at a time. It
  captions the first ones while it waits for the others.
- Shards: a few tasks read Parquet files that hold the images, and pass them on to the workers.

A limited resource serves one request after the other. Nothing is random.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from math import ceil, inf

import simpy

FILES = 0  # tasks that read shards
Events = Iterator[simpy.Event]


def _figure(default: float, meaning: str):
    return field(default=default, metadata={"help": f"{meaning} ({default:g})"})


@dataclass(frozen=True)
class Figures:
    """All that a simulation takes from measurements and assumptions. `docs/scale.md` names the
    sources."""

    decode_ms: float = _figure(1.2, "decoding an image, ms of a busy core; measured")
    encoder_ms: float = _figure(28.5, "the encoder, ms of a busy core an image; measured")
    search_ms: float = _figure(3.6, "the search, ms of a busy core an image; measured")
    ray_ms: float = _figure(0.02, "Ray, ms of a core an image; measured without a model")
    alone: float = _figure(0.8, "the share of this time that a lone worker takes; measured")
    block_seconds: float = _figure(0.03, "the driver, s a block; measured without a model")
    block_rows: int = _figure(1000, "rows of a block, as in captioning.app.at_scale")
    batch_rows: int = _figure(64, "rows of a batch, as in captioning.app.at_scale")
    readers: int = _figure(8, "files that a worker requests at once, as in its row_captioner")
    shard_rows_a_second: float = _figure(2700, "images/s that a task reads from shards; measured")
    workers_a_reader: int = _figure(64, "workers for each such task, as in captioning.app.at_scale")
    shard_request_rows: int = _figure(100, "rows of a request for a shard, a row group")
    image_mb: float = _figure(0.13, "MB of an image; measured on Flickr8k")
    requests_a_second: float = _figure(5500, "requests/s of the storage; assumed")
    latency_ms: float = _figure(150, "ms until the storage answers; assumed")
    machine_cores: int = _figure(16, "cores of a machine, with a worker on each; assumed")
    network_gbits: float = _figure(10, "Gbit/s of a machine; assumed")


def simulate(
    figures: Figures, workers: int, shard_tasks: int = FILES
) -> tuple[float, dict[str, float]]:
    """Simulates a job of four blocks for each worker, with images in files or, if there are
    `shard_tasks`, in shards. Returns the images per second in the middle half of the job, and
    resource -> the share of that half during which it works."""
    blocks = 4 * workers
    rows = figures.block_rows
    busy_ms = figures.decode_ms + figures.encoder_ms + figures.search_ms + figures.ray_ms
    image_seconds = busy_ms / 1000 * (figures.alone if workers == 1 else 1)
    network_seconds = figures.image_mb * 8 / 1000 / figures.network_gbits  # an image
    environment = simpy.Environment()
    requests = simpy.Resource(environment)
    machines = ceil(workers / figures.machine_cores)
    networks = [simpy.Resource(environment) for _ in range(machines)]
    scheduled, read = simpy.Store(environment), simpy.Store(environment)
    ends: list[float] = []

    def use(resource: simpy.Resource, seconds: float) -> Events:
        with resource.request() as turn:
            yield turn
            yield environment.timeout(seconds)

    def driver() -> Events:
        for block in range(blocks):
            yield environment.timeout(figures.block_seconds)
            scheduled.put(block)

    def shard_task() -> Events:
        while True:
            block = yield scheduled.get()
            count = rows / figures.shard_request_rows
            yield from use(requests, count / figures.requests_a_second)
            yield environment.timeout(rows / figures.shard_rows_a_second)
            read.put(block)

    def fetch_block(network: simpy.Resource) -> Events:
        if shard_tasks:
            yield read.get()
            yield from use(network, rows * network_seconds)
        else:
            yield scheduled.get()

    def read_files(network: simpy.Resource, groups: list[int], arrived: simpy.Store) -> Events:
        for images in groups:
            yield from use(requests, images / figures.requests_a_second)
            yield environment.timeout(figures.latency_ms / 1000)
            yield from use(network, images * network_seconds)
            arrived.put(images)

    def caption_files(network: simpy.Resource, images: int) -> Events:
        arrived = simpy.Store(environment)
        groups = _divide(images, figures.readers)
        environment.process(read_files(network, groups, arrived))
        for _ in groups:
            yield environment.timeout((yield arrived.get()) * image_seconds)

    def worker(network: simpy.Resource) -> Events:
        following = environment.process(fetch_block(network))
        while True:
            yield following
            following = environment.process(fetch_block(network))
            if shard_tasks:
                yield environment.timeout(rows * image_seconds)
            else:
                for images in _divide(rows, figures.batch_rows):
                    yield from caption_files(network, images)
            ends.append(environment.now)

    environment.process(driver())
    for _ in range(shard_tasks):
        environment.process(shard_task())
    for number in range(workers):
        environment.process(worker(networks[number // figures.machine_cores]))
    environment.run()
    first, last = blocks // 4, 3 * blocks // 4
    rate = (last - first) * rows / (ends[last - 1] - ends[first - 1])
    images_a_request = figures.shard_request_rows if shard_tasks else 1
    shares = {
        "computing": rate * image_seconds / workers,
        "requests": rate / images_a_request / figures.requests_a_second,
        "network": rate * network_seconds / machines,
        "driver": rate * figures.block_seconds / rows,
    }
    if shard_tasks:
        shares["shard tasks"] = rate / figures.shard_rows_a_second / shard_tasks
    return rate, shares


def _divide(total: int, size: int) -> list[int]:
    return [min(size, total - first) for first in range(0, total, size)]


def print_check(figures: Figures) -> None:
    """Prints the measured jobs beside simulated ones."""
    local = replace(
        figures, requests_a_second=inf, latency_ms=0, network_gbits=inf, machine_cores=2
    )
    print("| job on two cores and a local disk | measured | simulated |\n|---|---|---|")
    print(f"| 1 worker, images a second | 37.4 | {simulate(local, 1)[0]:.1f} |")
    print(f"| 2 workers, images a second | 55.4 | {simulate(local, 2)[0]:.1f} |\n")


def print_table(figures: Figures, workers: list[int]) -> None:
    """Prints the images per second, the efficiency against one worker, and the busiest resource."""
    print("| workers | files | shards |\n|---|---|---|")
    alone = [simulate(figures, 1, tasks)[0] for tasks in (FILES, 1)]
    for count in workers:
        cells = []
        readers = ceil(count / figures.workers_a_reader)
        for tasks, rate_alone in zip((FILES, readers), alone, strict=True):
            rate, shares = simulate(figures, count, tasks)
            limit = max(shares, key=shares.__getitem__)
            efficiency = 100 * rate / rate_alone / count
            cells.append(f"{rate:,.0f} ({efficiency:.0f} %), {limit} {100 * shares[limit]:.0f} %")
        print(f"| {count:,} |", " | ".join(cells), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    for figure in fields(Figures):
        name = f"--{figure.name.replace('_', '-')}"
        kind = type(figure.default)
        parser.add_argument(name, type=kind, default=figure.default, **figure.metadata)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8, 32, 128, 512, 2048])
    options = vars(parser.parse_args())
    workers = options.pop("workers")
    print_check(Figures(**options))
    print_table(Figures(**options), workers)


if __name__ == "__main__":
    main()
