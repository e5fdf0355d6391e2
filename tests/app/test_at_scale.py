"""Jobs of Ray that caption at scale: on one machine, on three nodes, in object storage, with broken
images, and killed."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow, of the extra scale")
pytest.importorskip("ray", reason="needs Ray, of the extra scale")

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="promised on Linux only"),
]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PATIENCE = 300  # seconds, on a busy machine

# Runs a job with a stub instead of a model: arguments of `caption_at_scale` as JSON.
STUB_JOB = """
import json, sys
import stub_captioner
from captioning.app import at_scale
from captioning.app.console import run_command

arguments = json.loads(sys.argv[1])
at_scale.PART_ROWS = arguments.pop("part_rows", at_scale.PART_ROWS)
load = getattr(stub_captioner, arguments.pop("load", "load_stub"))
sys.exit(run_command(lambda: at_scale.caption_at_scale(**arguments, load=load), failed=1))
"""


@pytest.fixture
def environment(tmp_path):
    """The environment of the jobs of a test, with the name of the stub's log."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    variables = {"PYTHONPATH": paths, "STUB_LOG": str(tmp_path / "log")}
    return os.environ | variables | {"RAY_worker_niceness": "0"}  # else other tests take its time


def start(environment, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process) -> tuple[int, str]:
    """Returns the exit status and the last message of the command: Ray may print lines before."""
    _, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, errors.splitlines()[-1] if errors else ""


def start_stub(environment, **arguments) -> subprocess.Popen:
    return start(environment, "-c", STUB_JOB, json.dumps(arguments))


def processes(job) -> list[psutil.Process]:
    """The command, Ray's own processes, and the workers."""
    command = psutil.Process(job.pid)
    return [command, *command.children(recursive=True)]


def name_of(process: psutil.Process) -> str:
    """The name of a process, or nothing if it has ended."""
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


def workers(job) -> list[psutil.Process]:
    return [process for process in processes(job) if "RowCaptioner" in " ".join(process.cmdline())]


def wait_for(condition):
    """Waits until the condition is true, and returns its value."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise TimeoutError


def names_manifest(tmp_path, count) -> str:
    """A manifest of names for the stub."""
    path = tmp_path / "photos.parquet"
    pq.write_table(pa.table({"id": range(count), "path": [f"{n}.jpg" for n in range(count)]}), path)
    return str(path)


def read_rows(output) -> list[dict]:
    rows = pq.read_table(Path(output) / "captions").to_pylist()
    return sorted(rows, key=lambda row: row["id"])


def captioned(environment) -> list[str]:
    """The names of the images that were captioned so far, in this run or an earlier one."""
    log = Path(environment["STUB_LOG"])
    return log.read_text().split() if log.exists() else []


def test_a_job_gives_the_captions_and_the_status_of_the_plain_command_and_retries_errors(
    tmp_path, environment
):
    photos, plain, output = tmp_path / "photos", tmp_path / "plain.jsonl", tmp_path / "captions"
    shutil.copytree(EXAMPLES, photos)
    whole = (photos / "cat.jpg").read_bytes()
    Image.new("1", (20_000, 20_000)).save(photos / "bomb.png")
    broken = {
        "cut.jpg": whole[:5000],
        "empty.jpg": b"",
        "text.jpg": b"text",
        "random.jpg": b"\x93" * 999,
    }
    for name, content in broken.items():
        (photos / name).write_bytes(content)
    command = ("Testing_caption_generator.py", photos, "--output", plain, "--top", 1)
    with start(environment, *command) as process:
        errors = process.stderr.read().splitlines()
    manifest = tmp_path / "photos.parquet"
    assert finish(start(environment, "-m", "captioning", "manifest", photos, manifest))[0] == 0
    job = ["-m", "captioning", "at-scale", "--manifest", manifest, "--output", output]
    assert finish(start(environment, *job)) == (
        process.returncode,
        f"5 of {len(list(EXAMPLES.glob('*.jpg'))) + 5} images could not be captioned. The column "
        f"error of the rows in {output}/captions says why; --retry-errors captions them again.",
    )
    rows = read_rows(output)
    expected = {line["image"]: line for line in map(json.loads, plain.read_text().splitlines())}
    assert [row["id"] for row in rows] == [*range(len(expected) + 5)]
    assert {row["path"]: row["caption"] for row in rows if row["error"] is None} == {
        path: line["caption"] for path, line in expected.items()
    }
    for row in rows:
        if row["error"] is None:
            assert row["log_prob"] == pytest.approx(expected[row["path"]]["log_prob"], abs=0.01)
    assert sorted(row["error"] for row in rows if row["error"]) == sorted(errors)

    (photos / "text.jpg").write_bytes(whole)
    (photos / "cat.jpg").unlink()  # it has a caption, and is not opened again
    retry = start(environment, *job, "--retry-errors")
    printed, _ = retry.communicate(timeout=PATIENCE)
    assert retry.returncode == 1
    assert printed.endswith(
        f"{len(expected) + 1} of {len(expected) + 5} images have captions in {output}/captions\n"
    )
    after = read_rows(output)
    cat = next(row["caption"] for row in rows if row["path"] == str(photos / "cat.jpg"))
    for row in rows:
        if row["path"] == str(photos / "text.jpg"):
            row |= {"caption": cat, "error": None}
            row |= {name: after[row["id"]][name] for name in ("log_prob", "confidence")}
    assert after == rows


def test_killed_workers_and_jobs_lose_and_double_no_row_and_leave_no_process(tmp_path, environment):
    output, count = tmp_path / "captions", 1000
    arguments = {"manifest": names_manifest(tmp_path, count), "output": str(output), "workers": 2}
    arguments |= {"load": "load_slow_stub"}
    job = start_stub(environment, **arguments)
    wait_for(lambda: len(captioned(environment)) > 100)
    listening = {
        connection.laddr.ip
        for process in processes(job)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert len(processes(job)) < 22
    workers(job)[0].kill()
    before = len(captioned(environment))
    wait_for(lambda: len(captioned(environment)) > before + 200)
    running = processes(job)
    # Two helpers, which compute nothing, wait 60 s for the rest of Ray.
    helpers = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
    computing = [process for process in running if name_of(process) not in helpers]
    job.kill()
    job.communicate()
    _, left = psutil.wait_procs(computing, timeout=45)
    assert left == []
    stored = {row["path"] for row in committed_rows(output)}
    before = len(captioned(environment))
    assert finish(start_stub(environment, **arguments))[0] == 0
    again = captioned(environment)[before:]
    assert stored.isdisjoint(again)
    assert len(again) == len(set(again)) == count - len(stored)
    assert [row["id"] for row in read_rows(output)] == [*range(count)]

    before = len(captioned(environment))
    assert finish(start_stub(environment, **arguments)) == (0, "")
    assert len(captioned(environment)) == before
    shutil.rmtree(output / "captions")  # their checkpoints alone are no success
    job = start_stub(environment, **arguments)
    wait_for(lambda: len(captioned(environment)) > before)
    running = processes(job)
    job.terminate()
    assert finish(job) == (130, "Stopped.")
    _, left = psutil.wait_procs(running, timeout=60)
    assert left == []


def committed_rows(output) -> list[dict]:
    """The rows of a killed job that have a checkpoint."""
    checkpoints = (output / "checkpoints" / "00000").glob("*[0-9].parquet")
    paths = [output / "captions" / "00000" / f"{path.stem}-0.parquet" for path in checkpoints]
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def test_a_manifest_of_one_block_is_divided_among_workers_and_into_jobs(tmp_path, environment):
    output, count = tmp_path / "captions", 400
    arguments = {"manifest": names_manifest(tmp_path, count), "output": str(output), "workers": 2}
    arguments |= {"part_rows": 250}
    assert finish(start_stub(environment, **arguments, load="load_nothing")) == (
        1,
        "Expected a model, got none. Train one.",  # on a worker
    )
    assert finish(start_stub(environment, **arguments))[0] == 0
    assert [row["id"] for row in read_rows(output)] == [*range(count)]
    parts = {
        part.name: [pq.read_metadata(path).num_rows for path in part.iterdir()]
        for part in (output / "captions").iterdir()
    }
    assert {part: sum(rows) for part, rows in parts.items()} == {"00000": 250, "00001": 150}
    assert max(map(max, parts.values())) < 2 * 64  # a worker takes 64 rows at a time


def test_a_killed_node_of_three_loses_and_doubles_no_row(tmp_path, environment, monkeypatch):
    from ray.cluster_utils import Cluster

    for name in ("PYTHONPATH", "STUB_LOG"):
        monkeypatch.setenv(name, environment[name])
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    environment |= {"RAY_AUTH_MODE": "disabled"}
    output, count = tmp_path / "captions", 600
    arguments = {"manifest": names_manifest(tmp_path, count), "output": str(output)}
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=4, include_dashboard=False)
        cluster.add_node(num_cpus=1)
        node = cluster.add_node(num_cpus=1)
        arguments |= {"address": cluster.address, "load": "load_slow_stub"}
        started = time.monotonic()
        status, errors = finish(start_stub(environment, **arguments, workers=6))
        assert (status, time.monotonic() - started < 60) == (1, True)
        assert errors.startswith("Expected at most 2 workers with 1 threads each on 6 processors")
        job = start_stub(environment, **arguments)
        wait_for(lambda: len(captioned(environment)) > 100)
        cluster.remove_node(node, allow_graceful=False)
        assert finish(job)[0] == 0
        assert [row["id"] for row in read_rows(output)] == [*range(count)]
        computed = Counter(captioned(environment))
        assert len(computed) == count
        assert sum(computed.values()) <= count + 2 * 75 + 75  # blocks begun, and one lost
    finally:
        cluster.shutdown()


def test_manifest_images_and_captions_may_be_in_object_storage(environment):
    boto3 = pytest.importorskip("boto3", reason="needs moto, a stand-in for object storage")
    server = pytest.importorskip("moto.server", reason="needs moto, a stand-in for object storage")
    server = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        environment |= keys | {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"}
        storage = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        storage.create_bucket(Bucket="bucket")
        for name in ("cat.jpg", "coffee_cup.jpg"):
            storage.upload_file(str(EXAMPLES / name), "bucket", f"my photos/50%25 {name}")
        storage.put_object(Bucket="bucket", Key="my photos/broken.jpg", Body=b"text")
        storage.put_object(Bucket="bucket", Key="my photos/gone.jpg", Body=b"text")
        manifest, output = "s3://bucket/photos.parquet", "s3://bucket/captions"
        command = ["-m", "captioning", "manifest", "s3://bucket/my photos", manifest]
        assert finish(start(environment, *command)) == (0, "")
        storage.delete_object(Bucket="bucket", Key="my photos/gone.jpg")
        job = ["-m", "captioning", "at-scale", "--manifest", manifest, "--output", output]
        assert finish(start(environment, *job))[0] == 1
        objects = storage.list_objects_v2(Bucket="bucket", Prefix="captions/")["Contents"]
        written = {entry["Key"]: entry["LastModified"] for entry in objects}
        rows = []
        for key in written:
            if key.startswith("captions/captions/") and key.endswith(".parquet"):
                body = storage.get_object(Bucket="bucket", Key=key)["Body"].read()
                rows += pq.read_table(pa.BufferReader(body)).to_pylist()
        plain = start(environment, "Testing_caption_generator.py", EXAMPLES / "cat.jpg")
        caption = plain.communicate(timeout=PATIENCE)[0].strip()
        rows = {row["path"].rpartition("/")[2]: row for row in rows}
        assert sorted(row["id"] for row in rows.values()) == [0, 1, 2, 3]
        assert rows["50%25 cat.jpg"]["caption"] == caption
        assert rows["50%25 coffee_cup.jpg"]["error"] is None
        assert rows["broken.jpg"]["error"].startswith("s3://bucket/my photos/broken.jpg cannot")
        assert rows["gone.jpg"]["error"] == (
            "There is no file s3://bucket/my photos/gone.jpg. Check the name and the folder."
        )

        assert finish(start(environment, *job))[0] == 1
        objects = storage.list_objects_v2(Bucket="bucket", Prefix="captions/")["Contents"]
        assert {entry["Key"]: entry["LastModified"] for entry in objects} == written
    finally:
        server.stop()
