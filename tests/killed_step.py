"""Runs one step on the tiny world, to be stopped: see `test_kills.py`.

    python tests/killed_step.py STEP [OPTION ...]

Prints the line "WORK ready" when everything is imported, so that a kill hits the work, and then a
line for each piece of work that it has finished: an image unpacked, encoded or captioned, an epoch
trained. Two environment variables make a bad disk: FILE_LIMIT limits the size of files, in bytes,
and READ_ONLY names a folder in which nothing can be written.
"""

import json
import os
import sys
from collections.abc import Callable
from errno import EROFS
from functools import wraps
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from captioning.app import caption_command, cli  # noqa: E402
from captioning.data import download, flickr8k  # noqa: E402
from captioning.data.feature_store import FeatureStore  # noqa: E402
from captioning.inference import extract_features  # noqa: E402
from captioning.output.caption_files import CaptionFile  # noqa: E402

SMALL_MODEL = {
    "decoder": "merge", "min_word_count": 1, "embedding_units": 16, "units": 16, "batch_size": 8,
    "epochs": 2, "learning_rate": 0.01, "self_critical_epochs": 1, "samples": 2, "members": 1,
    "student_epochs": 1,
}  # fmt: skip


def report(work: str) -> None:
    os.write(1, f"WORK {work}\n".encode())  # at once, whatever standard output is now


def report_calls(owner: Any, name: str, describe: Callable[..., str | None]) -> None:
    """Makes a function report the work that it has done."""
    function = getattr(owner, name)

    @wraps(function)
    def call_and_report(*arguments):
        work = describe(*arguments)
        function(*arguments)
        if work:
            report(work)

    setattr(owner, name, call_and_report)


def make_read_only(folder: str) -> None:
    """Refuses all changes below a folder, also to the superuser, whom permissions do not stop."""
    changes = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate")

    def refuse(event: str, arguments: tuple) -> None:
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        path = str(arguments[0]) if arguments else ""
        if (writes or event in changes) and path.startswith(folder):
            raise OSError(EROFS, os.strerror(EROFS), path)

    sys.addaudithook(refuse)


def describe_caption(file: CaptionFile, image_name: str, _captions: list) -> str | None:
    return None if image_name in file.captions else image_name


def main(step: str, *arguments: str) -> int:
    download.BLOCK_BYTES = 4096
    report_calls(download, "_write_member", lambda _archive, _member, path: path.name)
    extract_features._SAVE_EVERY = 16
    report_calls(FeatureStore, "append", lambda store, name, _: f"{store._path.name} {name}")
    report_calls(CaptionFile, "add", describe_caption)
    if step == "download":
        flickr8k.RELEASE = os.environ["RELEASE"]
        flickr8k.DIGESTS = json.loads(os.environ["DIGESTS"])
    fails_at_once = "READ_ONLY" in os.environ  # before it needs what these import
    if step in ("train", "export", "quantise") and not fails_at_once:
        import captioning.export.quantisation
        import captioning.training.train  # noqa: F401
        from captioning.training.checkpoints import Run

        report_calls(Run, "add_epoch", lambda run, *_: f"{run.folder.name} {len(run.history)}")
        captioning.export.quantisation.TOLERANCE = 10  # the small model may get worse
    if step == "train":
        arguments += tuple(f"--set={name}={value}" for name, value in SMALL_MODEL.items())
    if step == "quantise" and not fails_at_once:
        import nncf  # noqa: F401
    if limit := os.environ.get("FILE_LIMIT"):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    if folder := os.environ.get("READ_ONLY"):
        make_read_only(folder)
    report("ready")
    if step == "caption":
        return caption_command.main(list(arguments))
    return cli.main([step, *arguments])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
