"""The simulation of captioning on many machines, `tools/simulate_scale.py`."""

from dataclasses import replace
from math import inf

import pytest

pytest.importorskip("simpy", reason="needs SimPy, of the extra test")

from tools.simulate_scale import FILES, Figures, print_check, print_table, simulate

# A worker captions ten images a second, and all else is free.
FREE = Figures(
    decode_ms=10, encoder_ms=80, search_ms=10, ray_ms=0, alone=1, block_seconds=0,
    shard_rows_a_second=inf, requests_a_second=inf, latency_ms=0, network_gbits=inf,
)  # fmt: skip


def rate(workers, shard_tasks=FILES, **figures):
    return simulate(replace(FREE, **figures), workers, shard_tasks)[0]


@pytest.mark.parametrize("shard_tasks", [FILES, 1])
def test_workers_compute_all_the_time_when_all_else_is_free(shard_tasks):
    assert rate(1, shard_tasks) == pytest.approx(10)
    assert rate(7, shard_tasks) == pytest.approx(70)


@pytest.mark.parametrize(
    ("resource", "shard_tasks", "figures"),
    [
        ("driver", FILES, {"block_seconds": 1000 / 25}),
        ("requests", FILES, {"requests_a_second": 25}),
        ("requests", 1, {"requests_a_second": 25 / 100}),
        ("network", FILES, {"network_gbits": 25 * 0.13 * 8 / 1000}),
        ("network", 1, {"network_gbits": 25 * 0.13 * 8 / 1000}),
        ("shard tasks", 2, {"shard_rows_a_second": 25 / 2}),
    ],
)
def test_the_slowest_resource_limits_a_job(resource, shard_tasks, figures):
    for workers, expected, limit in ((1, 10, "computing"), (8, 25, resource)):
        images_a_second, shares = simulate(replace(FREE, **figures), workers, shard_tasks)
        assert images_a_second == pytest.approx(expected, rel=0.05)
        assert max(shares, key=shares.get) == limit
        assert shares[limit] == pytest.approx(1, rel=0.05)


def test_a_worker_waits_for_the_first_files_of_each_batch_only():
    assert rate(1, latency_ms=500) == pytest.approx(1000 / (100 + 16 * 0.5))


def test_files_that_come_slower_than_a_worker_captions_them_limit_it():
    assert rate(1, latency_ms=1600) == pytest.approx(5, rel=0.1)


def test_machines_do_not_share_their_network():
    assert rate(8, machine_cores=4, network_gbits=25 * 0.13 * 8 / 1000) == pytest.approx(50, 0.05)


@pytest.mark.parametrize("shard_tasks", [FILES, 1, 4])
def test_more_workers_never_slow_a_job(shard_tasks):
    rates = [simulate(Figures(), 2**power, shard_tasks)[0] for power in range(7)]
    assert all(more > 0.99 * fewer for fewer, more in zip(rates, rates[1:], strict=False))


def test_the_simulation_is_within_a_tenth_of_all_measurements(capsys):
    print_check(Figures())
    _, _, *rows, _ = capsys.readouterr().out.splitlines()
    assert len(rows) == 2
    for row in rows:
        measured, simulated = map(float, row.strip("| ").split(" | ")[1:])
        assert simulated == pytest.approx(measured, rel=0.1)


def test_the_table_shows_speed_efficiency_and_the_busiest_resource(capsys):
    print_table(replace(FREE, requests_a_second=25), [1, 4])
    assert capsys.readouterr().out.splitlines() == [
        "| workers | files | shards |",
        "|---|---|---|",
        "| 1 | 10 (100 %), computing 95 % | 10 (100 %), computing 100 % |",
        "| 4 | 25 (66 %), requests 100 % | 40 (100 %), computing 100 % |",
    ]
