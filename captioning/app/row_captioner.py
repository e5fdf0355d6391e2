"""Captions the rows of a manifest, in the processes of a job: the part that runs on the workers.

It needs no Ray, which `captioning.app.at_scale` uses to run it.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

import PIL
import pyarrow as pa

from captioning.app.storage import is_uri, read_content
from captioning.data.image_paths import normalise
from captioning.data.vocabulary import Vocabulary
from captioning.errors import UserError, printable
from captioning.inference.captioner import Captioner
from captioning.inference.confidence import CONFIDENCE
from captioning.inference.network_files import NETWORKS, read_network_files
from captioning.inference.openvino_runtime import limit_threads, openvino
from captioning.paths import Paths, find_model
from captioning.settings import SearchSettings

CAPTIONS = pa.schema(
    [
        ("id", pa.int64()),
        ("path", pa.string()),
        ("caption", pa.string()),
        ("log_prob", pa.float64()),
        ("confidence", pa.float64()),
        ("error", pa.string()),
    ]
)
_RESULTS = pa.schema(list(CAPTIONS)[2:])

_READERS = 8  # threads that wait for object storage, which takes some 0.05 s a file

_PACKAGE = Path(__file__).parents[1]


class RowCaptioner:
    """Captions batches of rows with one model."""

    def __init__(
        self,
        root: Path | None,
        threads: int,
        search: SearchSettings,
        identity: dict[str, str],
        load: Callable[[Path | None], Captioner],
    ):
        """Uses the model that `load` returns for `root`, with `threads` threads for each of its
        networks. `identity`: what `identify` returned on the machine that started the job."""
        self._root = root
        self._threads = threads
        self._search = search
        self._identity = identity
        self._load = load

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Takes rows of a manifest. Returns a row with the columns `CAPTIONS` for each: with a
        caption, its log-probability and its confidence, or with the error of its image. Raises
        UserError if the model or the code on this machine is not that of the job, or if the model
        is missing or damaged."""
        results = []
        with ThreadPoolExecutor(_READERS) as pool:
            for _, result in self._captioner.stream(list(_images(rows, pool)), search=self._search):
                if isinstance(result, Exception):
                    results.append({"error": printable(result)})
                else:
                    best = result[0]
                    results.append(
                        {
                            "caption": best.text,
                            "log_prob": best.log_prob,
                            "confidence": best.confidence,
                        }
                    )
        paths = rows["path"] if "path" in rows.column_names else pa.nulls(len(rows))
        columns = pa.Table.from_pylist(results, _RESULTS).columns  # what a result lacks is null
        return pa.table([rows["id"], paths, *columns], CAPTIONS)

    @cached_property
    def _captioner(self) -> Captioner:
        """Loaded for the first rows: an error there ends a job, while Ray restarts a worker for an
        error in `__init__`."""
        try:
            found = identify(self._root)
        except OSError as error:
            raise UserError(f"{error} A worker needs it.") from error
        if found != self._identity:
            differing = [key for key in found if found[key] != self._identity.get(key)]
            raise UserError(
                f"Expected the {' and '.join(differing)} of the job on every machine, got another "
                "on a worker. Install the same version and the same model everywhere."
            )
        limit_threads(self._threads)
        return self._load(self._root)


class _Content:
    """The content of an image, perhaps still on its way, as an open file with a name."""

    def __init__(self, name: str, read: Callable[[], bytes]):
        self.name = name
        self.read = read


def _images(rows: pa.Table, pool: ThreadPoolExecutor) -> Iterator[str | _Content]:
    """Yields the image of each row. Reads those in object storage ahead of their use, in `pool`."""
    missing = [None] * len(rows)
    columns = (
        rows[name].to_pylist() if name in rows.column_names else missing
        for name in ("id", "path", "bytes")
    )
    for number, path, content in zip(*columns, strict=True):
        if content is not None:
            yield _Content(path or f"The image {number}", lambda content=content: content)
        elif path and is_uri(path):
            yield _Content(path, pool.submit(read_content, path).result)
        elif path:
            yield normalise(path)
        else:
            yield _Content(f"The image {number}", partial(_refuse_empty_row, number))


def _refuse_empty_row(number: int) -> bytes:
    raise UserError(
        f"Expected a path or bytes of image {number}, got neither. Correct the manifest."
    )


def identify(root: Path | None) -> dict[str, str]:
    """Returns fingerprints of the model in `root` (see `captioning.paths.find_model`) and of the
    programs that caption, so that a job does not mix captions of several. Raises FileNotFoundError
    or UserError if a part of the model is missing or damaged."""
    paths = Paths(find_model(root))
    networks = [read_network_files(paths.models / name) for name in NETWORKS]
    vocabulary = Vocabulary.load(paths.vocabulary).fingerprint
    confidence = paths.models / CONFIDENCE  # which a model need not have
    folders = (_PACKAGE / "data", _PACKAGE / "inference")
    sources = [path.read_bytes() for folder in folders for path in sorted(folder.glob("*.py"))]
    versions = (openvino.get_version(), PIL.__version__)
    return {
        "model": _fingerprint(
            *chain(*networks),
            vocabulary.encode(),
            confidence.read_bytes() if confidence.exists() else b"",
        ),
        "program": _fingerprint(*sources, *map(str.encode, versions)),
    }


def _fingerprint(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(c).digest() for c in contents)).hexdigest()
