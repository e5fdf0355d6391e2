"""Steps that are killed at random moments and repeated: the end equals an undisturbed run, and no
finished work is lost or done again.

    pytest tests/test_kills.py --kills 20 -s
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from errno import EROFS
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread, Timer

import h5py
import numpy as np
import pytest
from tiny_world import build_tiny_encoder, write_archives

from captioning.data.feature_store import FeatureStore
from captioning.paths import Paths

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).with_name("killed_step.py")
ARCHIVES = ("Flickr8k_text.zip", "Flickr8k_Dataset.zip")
BLOCK = 4096  # bytes, as in killed_step.py
# Sums of floats depend on the batch that an image fell into.
MAPS_TOLERANCE = 2e-3
LOG_PROB_TOLERANCE = 1e-4


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unpacked(root: Path) -> set[str]:
    paths = [*Paths(root).texts.glob("*"), *Paths(root).images.glob("*")]
    return {path.name for path in paths if path.suffix in (".txt", ".jpg") and path.name[0] != "."}


def downloaded(root: Path) -> set[str]:
    """The blocks of the archives, and the files unpacked from them."""
    blocks = set()
    for name in ARCHIVES:
        for path in (root / name, root / f"{name}.part"):
            if path.exists():
                blocks |= {f"{name} {n}" for n in range(path.stat().st_size // BLOCK)}
    return blocks | unpacked(root)


def extracted(root: Path) -> set[str]:
    stores = {path.name: FeatureStore(path) for path in root.glob("*feature_maps.bin")}
    return {f"{name} {image_name}" for name, store in stores.items() for image_name in store}


def trained(root: Path) -> set[str]:
    epochs = set()
    record = root / "models" / "training.json"
    if record.exists():  # of the whole run
        for number, name in enumerate(("member-1", "member-student")):
            history = json.loads(record.read_text())["history"]
            own = [epoch for epoch in history if ("member" not in epoch) == bool(number)]
            epochs |= {f"{name} {n}" for n in range(len(own))}
    for record in root.glob("models/member-*/training.json"):
        history = json.loads(record.read_text())["history"]
        epochs |= {f"{record.parent.name} {n}" for n in range(len(history))}
    return epochs


def captioned(root: Path) -> set[str]:
    path = root / "captions.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return {json.loads(line)["image"] for line in lines}


def nothing(root: Path) -> set[str]:
    """Steps of seconds, which start anew."""
    return set()


@dataclass
class Step:
    """A step of the pipeline: its `name` and `arguments` for killed_step.py, the step `before` it,
    and the function `finished`, which returns the pieces of work that are finished in a folder."""

    name: str
    finished: Callable[[Path], set[str]]
    before: str | None = None
    arguments: tuple[str, ...] = ()


STEPS = {
    "download": Step("download", downloaded),
    "unpack": Step("download", unpacked, arguments=("--source", "{archives}")),
    "check": Step("check", nothing, "unpack"),
    "features": Step("features", extracted, "check"),
    "train": Step("train", trained, "features"),
    "export": Step("export", nothing, "train"),
    "quantise": Step("quantise", nothing, "export"),
    "caption": Step(
        "caption",
        captioned,
        "train",
        ("photos", "--model", ".", "--output", "captions.jsonl"),
    ),
}


class World:
    """The tiny world, and the root folder after an undisturbed run of each step."""

    def __init__(self, folder: Path, release: str, served: list[str]):
        self.folder = folder
        self.served = served
        self.archives = archives = folder / "archives"
        self._environment = {
            **os.environ,
            "CAPTIONING_CACHE": "off",  # all runs compile their networks: they take equally long
            "RELEASE": release,
            "DIGESTS": json.dumps({name: ("sha256", sha256(archives / name)) for name in ARCHIVES}),
        }
        self._durations: dict[str, float] = {}

    def begin(self, step_name: str, root: Path) -> None:
        """Makes `root` the root folder before the step."""
        shutil.rmtree(root, ignore_errors=True)
        if step_name not in ("download", "unpack"):
            shutil.copytree(self.end(STEPS[step_name].before), root)
        root.mkdir(exist_ok=True)
        if step_name == "features":
            shutil.copytree(self._encoder(), Paths(root).models)
        if step_name == "caption":  # more images, which take longer than loading the model
            for number in range(8):
                shutil.copytree(Paths(root).images, root / "photos" / str(number))

    def _encoder(self) -> Path:
        from captioning.export.keras_to_openvino import export_encoder

        if not (self.folder / "encoder").exists():
            export_encoder(build_tiny_encoder(), self.folder / "encoder")
        return self.folder / "encoder"

    def end(self, step_name: str) -> Path:
        """The root folder after an undisturbed run of the step."""
        root = self.folder / step_name
        if step_name not in self._durations:
            self.begin(step_name, root)
            run = self.run(step_name, root)
            assert run.status == 0, run.errors
            self._durations[step_name] = run.seconds
        return root

    def duration(self, step_name: str) -> float:
        """Seconds of an undisturbed run, after its imports."""
        self.end(step_name)
        return self._durations[step_name]

    def run(
        self,
        step_name: str,
        root: Path,
        stop: Callable[[subprocess.Popen], None] | None = None,
        after: float = 0,
        **environment: str,
    ) -> "Run":
        """Runs the step; with `stop`, calls that `after` so many seconds of work."""
        step = STEPS[step_name]
        arguments = [text.format(archives=self.archives) for text in step.arguments]
        self.served.clear()
        process = subprocess.Popen(
            [sys.executable, DRIVER, step.name, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            cwd=root,
            env={**self._environment, **environment},
        )
        with process, ThreadPoolExecutor(1) as pool:
            errors = pool.submit(process.stderr.read)
            for line in process.stdout:
                if line == "WORK ready\n":
                    break
            start = time.monotonic()
            if stop:
                stopper = Timer(after, stop, [process])
                stopper.start()
            lines = process.stdout.read().splitlines()
            status = process.wait(600)
            seconds = time.monotonic() - start
            if stop:
                stopper.cancel()
        assert "Traceback" not in errors.result(), errors.result()
        work = {line.removeprefix("WORK ") for line in lines if line.startswith("WORK ")}
        return Run(status, seconds, errors.result(), work | set(self.served))


@dataclass
class Run:
    """A step that has ended: its exit status, the seconds that its work took, its stderr, and the
    work that it did."""

    status: int
    seconds: float
    errors: str
    work: set[str]

    @property
    def last_line(self) -> str:
        return (self.errors.splitlines() or [""])[-1]


class Handler(BaseHTTPRequestHandler):
    """Serves the archives slowly, and from the byte that a resumed download requests. `served`: the
    first block of each response."""

    folder: Path
    served: list[str]

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        content = (self.folder / name).read_bytes()
        start = 0
        if self.headers.get("If-Range") == '"1"':
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if 0 < start < len(content) else 416 if start else 200)
        end = f"{start}-{len(content) - 1}" if start < len(content) else "*"
        self.send_header("Content-Range", f"bytes {end}/{len(content)}")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.served.append(f"{name} {start // BLOCK}")
        for first in range(start, len(content), BLOCK):
            try:
                self.wfile.write(content[first : first + BLOCK])
            except OSError:  # the client was killed
                return
            time.sleep(0.005)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    (folder / "archives").mkdir()
    write_archives(folder / "archives", train=120, development=12, test=12)
    handler = type("ArchiveHandler", (Handler,), {"folder": folder / "archives", "served": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield World(folder, f"http://127.0.0.1:{server.server_port}", handler.served)
        server.shutdown()


def files_below(root: Path) -> list[str]:
    return [name for name in names_below(root) if (root / name).is_file()]


def contents_below(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in files_below(root)}


def names_below(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def weights_of(path: Path) -> np.ndarray:
    """All weights of a model, one after the other; the names of its layers are numbered."""
    weights = []
    with zipfile.ZipFile(path) as archive:
        with h5py.File(BytesIO(archive.read("model.weights.h5"))) as file:
            file.visititems(
                lambda _, item: weights.append(item[()].ravel()) if hasattr(item, "shape") else None
            )
    return np.concatenate(weights)


def assert_same_captions(text: str, expected_text: str) -> None:
    for line, expected_line in zip(text.splitlines(), expected_text.splitlines(), strict=True):
        record, expected = json.loads(line), json.loads(expected_line)
        log_prob, expected_log_prob = record.pop("log_prob"), expected.pop("log_prob")
        assert record == expected
        assert log_prob == pytest.approx(expected_log_prob, abs=LOG_PROB_TOLERANCE)


def assert_same(root: Path, expected_root: Path) -> None:
    """Asserts the same files with the same content, except for times and rounding errors."""
    assert names_below(root) == names_below(expected_root)
    for path in sorted(root.rglob("*")):
        expected = expected_root / path.relative_to(root)
        if path.is_dir() or path.read_bytes() == expected.read_bytes():
            continue
        if path.name.endswith("feature_maps.bin"):
            maps, expected_maps = (np.fromfile(file, "float16") for file in (path, expected))
            np.testing.assert_allclose(maps, expected_maps, rtol=0, atol=MAPS_TOLERANCE)
        elif path.name.endswith("feature_maps.bin.json"):
            assert list(FeatureStore(path.with_suffix(""))) == list(
                FeatureStore(expected.with_suffix(""))
            )
        elif path.suffix == ".xml":  # the names of layers are numbered
            text, expected_text = (re.sub(r"_\d+", "", p.read_text()) for p in (path, expected))
            assert text == expected_text
        elif path.suffix == ".keras":
            np.testing.assert_array_equal(weights_of(path), weights_of(expected))
        elif path.name == "captions.jsonl":
            assert_same_captions(path.read_text(), expected.read_text())
        else:
            pytest.fail(f"{path} differs from that of an undisturbed run")


def assert_ended(step_name: str, run: Run, root: Path, world: World) -> None:
    quantised_already = step_name == "quantise" and run.status == 1
    assert run.status == 0 or quantised_already, run.errors
    assert_same(root, world.end(step_name))


@pytest.mark.parametrize("step_name", STEPS)
def test_a_step_that_is_killed_and_repeated_ends_as_if_nothing_had_happened(
    step_name, world, tmp_path, pytestconfig
):
    kills = pytestconfig.getoption("--kills")
    step, duration, root = STEPS[step_name], world.duration(step_name), tmp_path / "root"
    moments = random.Random(kills + 1)  # with two kills, at a fourth and a half of the work
    killed = ended = finished_between = repeated = 0
    world.begin(step_name, root)
    while killed < kills:
        before = step.finished(root)
        run = world.run(step_name, root, subprocess.Popen.kill, moments.uniform(0, duration))
        after = step.finished(root)
        assert before <= after, "finished work is lost"
        repeated += len(before & run.work)
        if run.status in (0, 1) and os.name != "nt":  # it ended before the kill
            assert_ended(step_name, run, root, world)
            ended += 1
            world.begin(step_name, root)
        else:
            killed += 1
            finished_between += len(after - before)
    before = step.finished(root)
    run = world.run(step_name, root)
    repeated += len(before & run.work)
    assert_ended(step_name, run, root, world)
    print(
        f"{step_name}: killed {killed} times in {duration:.1f} s of work, ended {ended + 1} times; "
        f"{finished_between} pieces of work finished between the kills, {repeated} done again"
    )
    assert repeated == 0


@pytest.mark.skipif(os.name == "nt", reason="signals end a program at once there")
@pytest.mark.parametrize("step_name", STEPS)
def test_a_step_that_is_stopped_says_so_in_one_line_and_is_repeated(step_name, world, tmp_path):
    """By SIGTERM, as by Ctrl-C."""
    root, share = tmp_path / "root", 0.5
    while True:
        world.begin(step_name, root)
        delay = share * world.duration(step_name)
        run = world.run(step_name, root, subprocess.Popen.terminate, delay)
        if run.status not in (0, -signal.SIGTERM):  # the step had not ended before
            break
        share /= 2
    assert (run.status, run.last_line) == (130, "Stopped.")
    left = [name for name in names_below(root) if re.search(r"(^|/)\.(saving|new|.*lock$)", name)]
    assert left == []
    assert_ended(step_name, world.run(step_name, root), root, world)


@pytest.mark.skipif(os.name == "nt", reason="files have no limit there")
@pytest.mark.parametrize("share", [0, 0.6])
@pytest.mark.parametrize("step_name", STEPS)
def test_a_full_disk_is_reported_in_one_line_and_finished_work_is_kept(
    step_name, share, world, tmp_path
):
    """A limit on the size of files, a share of the largest file written, stands for the disk."""
    step, root = STEPS[step_name], tmp_path / "root"
    world.begin(step_name, root)
    before = contents_below(root)
    sizes = [
        path.stat().st_size
        for name in files_below(world.end(step_name))
        if before.get(name) != (path := world.end(step_name) / name).read_bytes()
    ]
    run = world.run(step_name, root, FILE_LIMIT=str(64 + int(share * max(sizes))))
    assert run.status in (1, 2)
    assert re.fullmatch(r"\[Errno \d+\] .+: '.+'", run.last_line), run.errors
    assert before.items() <= contents_below(root).items()
    finished = step.finished(root)
    run = world.run(step_name, root)
    assert not finished & run.work
    assert_ended(step_name, run, root, world)


@pytest.mark.parametrize("step_name", STEPS)
def test_a_folder_that_cannot_be_written_is_reported_in_one_line(step_name, world, tmp_path):
    root = tmp_path / "root"
    world.begin(step_name, root)
    before = contents_below(root)
    run = world.run(step_name, root, READ_ONLY=str(root))
    assert run.status in (1, 2)
    message = rf"\[Errno {EROFS}\] {os.strerror(EROFS)}: '.+'"
    assert re.fullmatch(message, run.last_line), run.errors
    assert contents_below(root) == before
