"""Captioning at scale without Ray: manifests, the captioner of their rows, the folder of the
captions, and the workers that fit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow, of the extra parquet")

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from stub_captioner import load_stub

from captioning.app import cli
from captioning.app.at_scale import count_block_rows
from captioning.app.caption_store import CaptionStore
from captioning.app.manifest import read_manifest, write_manifest
from captioning.app.ray_cluster import fit_workers
from captioning.app.row_captioner import CAPTIONS, RowCaptioner, identify
from captioning.app.storage import read_content
from captioning.errors import UserError
from captioning.files import only_writer
from captioning.inference.captioner import Captioner
from captioning.settings import SearchSettings

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def write_rows(path, rows) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of photographs in folders, with a file that is none."""
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    for name in ("a2.jpg", "a10.jpg", "b/c d.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_manifest_numbers_the_images_of_a_folder_in_the_order_of_the_plain_command(
    photos, tmp_path, capsys
):
    manifest = tmp_path / "new" / "photos.parquet"
    assert cli.main(["manifest", str(photos), str(manifest)]) == 0
    assert capsys.readouterr().out == f"3 images in {manifest}\n"
    assert pq.read_table(manifest).to_pylist() == [
        {"id": 0, "path": str(photos / "a2.jpg")},
        {"id": 1, "path": str(photos / "a10.jpg")},
        {"id": 2, "path": str(photos / "b" / "c d.png")},
    ]
    assert [path.name for path in manifest.parent.iterdir()] == ["photos.parquet"]


def test_a_manifest_may_hold_the_files_themselves(photos, tmp_path):
    manifest = str(tmp_path / "photos.parquet")
    assert write_manifest([str(photos)], manifest, contents=True) == (3, [])
    rows = pq.read_table(manifest).to_pylist()
    assert [row["bytes"] for row in rows] == [Path(row["path"]).read_bytes() for row in rows]


def test_a_manifest_replaces_a_manifest_but_no_other_file(photos, tmp_path, capsys):
    """As in `captioning manifest photos/*.jpg`, where the shell expands the pattern."""
    manifest = str(tmp_path / "photos.parquet")
    assert cli.main(["manifest", str(photos / "b"), manifest]) == 0
    assert cli.main(["manifest", str(photos), manifest]) == 0
    assert pq.read_metadata(manifest).num_rows == 3
    capsys.readouterr()
    before = (photos / "a10.jpg").read_bytes()
    pq.write_table(
        pa.table({"id": [0], "path": ["a.jpg"], "caption": ["a dog"]}), tmp_path / "c.parquet"
    )
    for other in (photos / "a10.jpg", photos / "b", tmp_path / "c.parquet"):
        assert cli.main(["manifest", str(photos / "a2.jpg"), str(other)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"Expected a new file or a manifest, got {other}")
    assert (photos / "a10.jpg").read_bytes() == before
    assert (photos / "b" / "c d.png").exists()


def test_a_photograph_that_two_sources_name_has_one_row(photos, tmp_path):
    sources = [str(photos), str(photos / "a2.jpg")]
    assert write_manifest(sources, str(tmp_path / "photos.parquet")) == (3, [])


def test_the_fingerprint_of_a_manifest_is_that_of_its_ids_and_paths(tmp_path):
    fingerprints = [
        read_manifest(write_rows(tmp_path / f"{number}.parquet", rows))[2]
        for number, rows in enumerate(
            [
                [{"id": 0, "path": "a.jpg"}, {"id": 1, "path": "b.jpg"}],
                [{"id": 0, "path": "a.jpg"}, {"id": 1, "path": "b.jpg"}],
                [{"id": 0, "path": "a.jpg"}, {"id": 1, "path": "c.jpg"}],
                [{"id": 0, "path": "a.jpg"}, {"id": 2, "path": "b.jpg"}],
                [{"id": 1, "path": "a.jpg"}, {"id": 0, "path": "b.jpg"}],
            ]
        )
    ]
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 4


def test_a_name_that_is_not_utf_8_is_reported_and_left_out(photos, tmp_path, capsys):
    try:
        Image.new("RGB", (8, 8)).save(photos / "caf\udce9.jpg")
    except OSError:
        pytest.skip("needs a file system that takes any name")
    manifest = tmp_path / "photos.parquet"
    assert cli.main(["manifest", str(photos), str(manifest)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(r"caf\udce9.jpg has a name that is not UTF-8. Rename it.")
    assert pq.read_metadata(manifest).num_rows == 3


def test_a_folder_without_images_makes_no_manifest(tmp_path, capsys):
    assert cli.main(["manifest", str(tmp_path), str(tmp_path / "photos.parquet")]) == 1
    assert capsys.readouterr().err.startswith("There is no image in the folder ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "path": "a.jpg"}], "got id (string), path (string)"),
        ([{"id": 1, "name": "a.jpg"}], "got id (int64), name (string)"),
        ([{"id": 1, "path": "a.jpg"}, {"id": None, "path": "b.jpg"}], "got 1 rows without one"),
        ([{"id": 1, "path": "a.jpg"}, {"id": 1, "path": "b.jpg"}], "got 1 twice"),
    ],
)
def test_a_manifest_without_ids_of_64_bits_is_refused(tmp_path, capsys, rows, message):
    """Ids that are texts would take ten times the memory, and equal ids lose images."""
    manifest = write_rows(tmp_path / "photos.parquet", rows)
    status = cli.main(["at-scale", "--manifest", manifest, "--output", str(tmp_path / "captions")])
    assert status == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_other_files_are_no_manifest(tmp_path):
    path = tmp_path / "photos.parquet"
    with pytest.raises(FileNotFoundError, match="captioning manifest FOLDER"):
        read_manifest(str(path))
    path.write_text("a.jpg")
    with pytest.raises(UserError, match="Expected a Parquet file"):
        read_manifest(str(path))


def caption(rows, load=load_stub, threads=1) -> list[dict]:
    captioner = RowCaptioner(None, threads, SearchSettings(), identify(None), load)
    return captioner(pa.Table.from_pylist(rows)).to_pylist()


def test_a_row_becomes_a_row_with_a_caption_or_the_error_of_its_image():
    assert caption([{"id": 7, "path": "a.jpg"}, {"id": 5, "path": "broken.jpg"}]) == [
        {"id": 7, "path": "a.jpg", "caption": "a.jpg", "log_prob": -1.0, "confidence": 0.5,
         "error": None},
        {"id": 5, "path": "broken.jpg", "caption": None, "log_prob": None, "confidence": None,
         "error": "broken.jpg cannot be read."},
    ]  # fmt: skip


def test_bytes_get_the_caption_of_their_file_also_of_a_large_one(tmp_path):
    """4000x2400 pixels, of which both routes decode a quarter."""
    photo = tmp_path / "large.jpg"
    Image.open(EXAMPLES / "dachshund_on_dry_grass.jpg").resize((4000, 2400)).save(photo)
    (by_path,) = caption([{"id": 0, "path": str(photo)}], Captioner.load)
    (by_bytes,) = caption([{"id": 0, "path": None, "bytes": photo.read_bytes()}], Captioner.load)
    assert by_bytes == by_path | {"path": None}
    (plain,) = Captioner.load().caption_batch([photo])[0]
    assert (by_path["caption"], by_path["error"]) == (plain.text, None)
    assert by_path["log_prob"] == pytest.approx(plain.log_prob, abs=0.01)


def test_the_error_of_bytes_names_their_path_or_their_id():
    rows = [
        {"id": 1, "path": "a.jpg", "bytes": b"text"},
        {"id": 2, "path": None, "bytes": b""},
        {"id": 3, "path": None, "bytes": None},
    ]
    errors = [row["error"] for row in caption(rows, Captioner.load)]
    assert [error.partition(" cannot")[0] for error in errors[:2]] == ["a.jpg", "The image 2"]
    assert errors[2] == ("Expected a path or bytes of image 3, got neither. Correct the manifest.")


def test_the_error_of_a_path_in_unknown_storage_says_what_is_expected():
    (row,) = caption([{"id": 1, "path": "http://host/a.jpg"}], Captioner.load)
    assert row["error"].startswith("Expected a path, or a URI that begins with s3:// or gs://")


@pytest.mark.slow  # waits while the library tries to connect again
def test_the_error_of_storage_that_cannot_be_reached_names_the_image(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nothing listens
    with pytest.raises(OSError) as caught:
        read_content("s3://unreachable/a.jpg")
    assert str(caught.value).startswith("s3://unreachable/a.jpg cannot be read (")
    assert str(caught.value).endswith("). Try it again later.")


THREADS = """
import sys, os
from captioning.inference.openvino_runtime import limit_threads
limit_threads(int(sys.argv[1]))
import captioning
captioner = captioning.load(cache=sys.argv[2] == "cache")
compiled = captioner.encoder._run._compiled
print(compiled.get_property("INFERENCE_NUM_THREADS"), compiled.get_property("ENABLE_CPU_PINNING"))
"""


@pytest.mark.parametrize("cache", ["compiled", "cache", "cache"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_network_takes_the_threads_of_its_worker_and_pins_none(threads, cache):
    """Otherwise the networks of all workers take all processors, and wait for each other."""
    done = subprocess.run(
        [sys.executable, "-c", THREADS, str(threads), cache],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == f"{threads} False\n"


def test_a_worker_with_another_model_is_refused(tmp_path):
    expected = identify(None) | {"model": "another"}
    captioner = RowCaptioner(None, 1, SearchSettings(), expected, load_stub)
    with pytest.raises(UserError, match="Expected the model of the job on every machine, got"):
        captioner(pa.table({"id": [1], "path": ["a.jpg"]}))


@pytest.mark.parametrize(
    ("workers", "threads", "cpus", "reserved", "fitting"),
    [
        (None, 1, [2], 0, 2),
        (2, 1, [2], 0, 2),
        (1, 2, [2], 0, 1),
        (None, 4, [16, 16, 6], 4, 8),  # the six are left for Ray
        (None, 1, [4, 4], 4, 4),
    ],
)
def test_workers_that_fit(workers, threads, cpus, reserved, fitting):
    assert fit_workers(workers, threads, cpus, reserved) == fitting


@pytest.mark.parametrize(
    ("workers", "threads", "cpus", "reserved", "message"),
    [
        (3, 1, [2], 0, "at most 2 workers with 1 threads each on 2 processors, got 3."),
        (2, 2, [2], 0, "at most 1 workers with 2 threads each on 2 processors, got 2."),
        (8, 1, [4, 4], 4, "at most 4 workers with 1 threads each on 8 processors, of which Ray"),
        (None, 4, [2, 2], 0, "at most 0 workers"),
    ],
)
def test_workers_that_would_wait_for_processors_are_refused(
    workers, threads, cpus, reserved, message
):
    with pytest.raises(UserError, match=message):
        fit_workers(workers, threads, cpus, reserved)


def test_too_many_workers_end_the_command_before_ray_starts(tmp_path, capsys):
    manifest = write_rows(tmp_path / "photos.parquet", [{"id": 1, "path": "a.jpg"}])
    arguments = ["at-scale", "--manifest", manifest, "--output", str(tmp_path / "captions")]
    assert cli.main([*arguments, "--workers", "99999"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Expected at most ")
    assert "Name fewer --workers" in line


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_an_address_without_a_cluster_is_an_error_at_once(tmp_path, capsys, address):
    manifest = write_rows(tmp_path / "photos.parquet", [{"id": 1, "path": "a.jpg"}])
    arguments = ["at-scale", "--manifest", manifest, "--output", str(tmp_path / "captions")]
    assert cli.main([*arguments, "--address", address]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Expected a Ray cluster at {address}, got no answer")


@pytest.fixture
def store(tmp_path) -> CaptionStore:
    """The output of a job with three files of two rows; the second row of the last is an error."""
    store = CaptionStore(str(tmp_path / "captions"))
    for folder in (store.captions_folder(0), store.checkpoints_folder(0)):
        Path(folder).mkdir(parents=True)
    for task in range(3):
        rows = [
            {"id": id, "path": f"{id}.jpg", "caption": "a dog", "log_prob": -1.0, "error": None}
            for id in (2 * task, 2 * task + 1)
        ]
        if task == 2:
            rows[1] |= {"caption": None, "log_prob": None, "error": "broken"}
        table = pa.Table.from_pylist(rows, CAPTIONS)
        pq.write_table(table, f"{store.captions_folder(0)}/job_00000{task}-0.parquet")
        checkpoint = f"{store.checkpoints_folder(0)}/job_00000{task}.parquet"
        pq.write_table(table.select(["id"]), checkpoint)
    return store


def ids(folder) -> list[int]:
    paths = sorted(Path(folder).glob("*.parquet"))
    return sorted(id for path in paths for id in pq.read_table(path)["id"].to_pylist())


def test_a_store_whose_files_agree_stays_as_it_is(store):
    assert store.repair(0) == 6
    assert ids(store.captions_folder(0)) == ids(store.checkpoints_folder(0)) == [*range(6)]
    assert store.repair(1) == 0


def test_captions_that_were_deleted_are_captioned_again_although_their_checkpoint_is_there(store):
    Path(store.captions_folder(0), "job_000001-0.parquet").unlink()
    assert store.repair(0) == 4
    assert ids(store.checkpoints_folder(0)) == [0, 1, 4, 5]
    shutil.rmtree(store.captions_folder(0))
    assert store.repair(0) == 0
    assert ids(store.checkpoints_folder(0)) == []


def test_captions_that_a_killed_run_has_not_committed_are_captioned_again(store):
    folder = Path(store.checkpoints_folder(0))
    (folder / "job_000001.parquet").rename(folder / "job_000001.pending.parquet")
    half = Path(store.captions_folder(0), "job_000001-0.parquet")
    half.write_bytes(half.read_bytes()[:100])
    assert store.repair(0) == 4
    assert ids(store.captions_folder(0)) == ids(folder) == [0, 1, 4, 5]


def test_only_the_rows_with_errors_are_forgotten(store):
    assert store.count_errors(0) == 1
    assert store.forget_errors(0) == 1
    assert ids(store.captions_folder(0)) == ids(store.checkpoints_folder(0)) == [0, 1, 2, 3, 4]
    assert (store.repair(0), store.count_errors(0)) == (5, 0)
    assert store.forget_errors(0) == 0


def test_a_run_that_is_stopped_while_it_forgets_errors_leaves_no_half_checkpoint(
    store, monkeypatch
):
    write = pq.write_table

    def write_half(table, path, filesystem):
        write(table, path, filesystem=filesystem)
        if table.column_names == ["id"]:
            Path(path).write_bytes(Path(path).read_bytes()[:100])
            raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", write_half)
    with pytest.raises(KeyboardInterrupt):
        store.forget_errors(0)
    assert store.repair(0) == 4
    assert ids(store.captions_folder(0)) == ids(store.checkpoints_folder(0)) == [0, 1, 2, 3]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_two_jobs_do_not_write_the_same_folder_of_this_machine(tmp_path, capsys, scheme):
    manifest = write_rows(tmp_path / "photos.parquet", [{"id": 1, "path": "a.jpg"}])
    output = tmp_path / "captions"
    output.mkdir()
    with only_writer(output):
        assert cli.main(["at-scale", "--manifest", manifest, "--output", f"{scheme}{output}"]) == 1
    assert capsys.readouterr().err.startswith("Expected one run at a time that writes ")


def test_a_store_belongs_to_one_job(store):
    store.bind({"model": "a", "search": "beam"})
    store.bind({"model": "a", "search": "beam"})
    with pytest.raises(UserError, match="Expected the model that .* was started with"):
        store.bind({"model": "b", "search": "beam"})
    (Path(store.name) / "job.json").write_text("{")
    with pytest.raises(UserError, match="Expected the model and search that"):
        store.bind({"model": "a", "search": "beam"})


def test_the_job_of_another_model_search_or_manifest_needs_another_folder(tmp_path, capsys):
    """All that the captions depend on, without starting Ray."""
    manifest = write_rows(tmp_path / "photos.parquet", [{"id": 1, "path": "a.jpg"}])
    output = tmp_path / "captions"
    output.mkdir()
    (output / "job.json").write_text(json.dumps({}))
    assert cli.main(["at-scale", "--manifest", manifest, "--output", str(output)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Expected the model and program and search and manifest that ")


@pytest.mark.parametrize(
    ("missing", "workers", "rows"),
    [
        (100, 2, 64),
        (1001, 2, 126),
        (20_000, 2, 1000),
        (200_000, 2, 1000),
        (1_000_000, 2, 5000),
        (10_000_000, 2, 10_000),
        (10_000_000, 500, 1000),
    ],
)
def test_a_block_is_at_most_a_fourth_and_in_a_large_job_a_hundredth_of_the_rows_of_a_worker(
    missing, workers, rows
):
    assert count_block_rows(missing, workers, ["id", "path"]) == rows


def test_blocks_of_images_stay_small_in_a_large_job():
    assert count_block_rows(10_000_000, 2, ["id", "path", "bytes"]) == 1000


def test_without_the_extra_the_steps_say_what_to_install(tmp_path):
    code = "import sys; sys.modules['pyarrow'] = sys.modules['ray'] = None; "
    code += "from captioning.app import cli; cli.main("
    for arguments, package, extra in (
        (["manifest", ".", "x"], "pyarrow", "parquet"),
        (["at-scale", "--manifest", "x", "--output", "y"], "ray", "scale"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", f"{code}{arguments})"], capture_output=True, text=True, cwd=ROOT
        )
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"Expected the package {package}, got none.")
        assert line.endswith(f'pip install ".[{extra}]"')
