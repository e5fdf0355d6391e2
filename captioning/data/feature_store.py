"""Feature maps on disk, in files that only grow.

Pooled features of many images are stored here as maps of one cell; those of few images are pickled
(see `captioning.data.pickles`).
"""

import json
import sys
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import numpy as np

from captioning.data.pickles import load_vectors
from captioning.errors import UserError
from captioning.files import name_in_errors
from captioning.paths import Paths

_LINE_START = b'{"encoder": '  # of the index
_DTYPE = np.dtype("float16")  # half of 6.6 GB for Flickr8k, and three digits are enough
_MAPS_PER_FILE = 10_000  # 4.1 GB with Xception: easy to move, and Flickr8k fits into one file


class FeatureStore(Mapping):
    """Image name -> feature map (cells, feature_width) float16, stored in files that only grow, so
    adding a map takes the same time however many there are.

    `path`, such as maps.bin, contains the first 10,000 maps one after the other; maps-2.bin, beside
    it, the next 10,000, and so on. `path`.json contains a line for each `save`: the image names,
    the shape of their maps and the encoder that computed them, if it is known. A map counts as
    stored once a line lists its image; the next run overwrites anything else that a run appended
    before it was killed or the disk was full. The arrays are views of the files: using one reads
    the disk.
    """

    def __init__(self, path: Path, encoder_id: str | None = None):
        """Opens the files, or creates them for the maps of the encoder `encoder_id` (see
        `captioning.inference.openvino_runtime.read_encoder_id`). Raises UserError if the files do
        not belong together, if a map consists of zeros, or for maps of another encoder."""
        self._path = path
        self._index_path = path.with_name(f"{path.name}.json")
        self._index_size = 0  # in bytes
        self._rows: dict[str, int] = {}  # image name -> number of its map, from 0
        self._maps_per_file = _MAPS_PER_FILE
        self._shape: tuple[int, int] | None = None
        self._unsaved: dict[str, None] = {}  # image names in order
        self.encoder_id = encoder_id
        if self._index_path.exists():
            self._read_index()
            self._refuse_other_encoder(encoder_id)
        self._refuse_zeros()
        self._open_files()

    def __getitem__(self, image_name: str) -> np.ndarray:
        file_number, row = divmod(self._rows[image_name], self._maps_per_file)
        return self._maps[file_number][row]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, image_name: str, feature_map: np.ndarray) -> None:
        """Writes a map (cells, feature_width), which can be read after the next `save`. Raises
        UserError if the image already has a map, or if the stored maps have another shape."""
        if image_name in self._rows or image_name in self._unsaved:
            raise UserError(
                f"Expected one feature map of {image_name} in {self._path}, got another. Append "
                "each image once."
            )
        if self._shape not in (None, feature_map.shape):
            raise UserError(
                f"Expected a feature map of shape {self._shape}, as in {self._path}, got "
                f"{feature_map.shape}. Delete {self._path.name} and {self._index_path.name} to "
                "extract all maps again."
            )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = feature_map.astype(_DTYPE).tobytes()
        file_number, row = divmod(len(self._rows) + len(self._unsaved), self._maps_per_file)
        _write_at(self._file_path(file_number), row * len(content), content)
        self._shape = feature_map.shape
        self._unsaved[image_name] = None

    def save(self) -> None:
        """Writes the line that lists the appended maps."""
        if not self._unsaved:
            return
        entry = {
            "encoder": self.encoder_id,
            "shape": self._shape,
            "maps_per_file": self._maps_per_file,
            "images": list(self._unsaved),
        }
        line = ("\n" if self._rows else "") + json.dumps(entry)
        _write_at(self._index_path, self._index_size, line.encode())
        self._index_size += len(line)
        self._add_rows(list(self._unsaved))
        self._unsaved = {}
        self._open_files()

    def _read_index(self) -> None:
        lines = self._index_path.read_bytes().split(b"\n")
        try:
            if _is_cut(lines[-1]):
                lines.pop()  # a run that was killed, or found the disk full, was writing it
            for line in lines:
                self._read_line(line)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"Expected an index of feature maps in {self._index_path}, got a damaged one "
                f"({error}). Delete it to extract all maps again."
            ) from error
        self._index_size = len(b"\n".join(lines))
        for path, shape in self._files():
            size = prod(shape) * _DTYPE.itemsize
            actual_size = path.stat().st_size if path.exists() else 0
            if actual_size < size:
                raise UserError(
                    f"Expected {shape[0]:,} feature maps, {size:,} bytes, in {path}, got "
                    f"{actual_size:,} bytes. Delete {self._index_path.name} beside it to extract "
                    "all maps again."
                )

    def _read_line(self, line: bytes) -> None:
        entry = json.loads(line)
        cells, feature_width = shape = tuple(entry["shape"])
        if not all(isinstance(length, int) and length > 0 for length in shape):
            raise ValueError(f"its shape is {cells} x {feature_width}")
        if self._shape not in (None, shape):
            raise ValueError(f"its shapes are {self._shape} and {shape}")
        maps_per_file = entry.get("maps_per_file", sys.maxsize)  # older stores are one file
        if not isinstance(maps_per_file, int) or maps_per_file < 1:
            raise ValueError(f"it has {maps_per_file} maps in a file")
        if self._rows and maps_per_file != self._maps_per_file:
            raise ValueError(f"it has {self._maps_per_file} and {maps_per_file} maps in a file")
        self._shape, self._maps_per_file = shape, maps_per_file
        self._add_rows(entry["images"])
        self.encoder_id = entry.get("encoder")
        if not isinstance(self.encoder_id, str | None):
            raise TypeError("its encoder is not text")

    def _refuse_other_encoder(self, encoder_id: str | None) -> None:
        is_known = None not in (self.encoder_id, encoder_id)
        if is_known and self.encoder_id != encoder_id:
            raise UserError(
                f"Expected features of the encoder {encoder_id} in {self._path}, got those of "
                f"{self.encoder_id}. Delete it and {self._index_path.name} to extract all features "
                "again, or restore the other encoder."
            )

    def _refuse_zeros(self) -> None:
        """A disk that loses power may keep the length of a file and forget its content."""
        for file_number, (path, shape) in enumerate(self._files()):
            maps = np.memmap(path, _DTYPE, "r", shape=shape)
            middle = shape[1] // 2  # one cell of each map, a page of the disk, is quickly read
            suspects = np.flatnonzero(~maps[:, middle].any(axis=1))
            zeros = [row for row in suspects if not maps[row].any()]
            if zeros:
                example = list(self._rows)[file_number * self._maps_per_file + zeros[0]]
                raise UserError(
                    f"Expected numbers in {path}, got only zeros for {len(zeros):,} images, such "
                    f"as {example}. Delete it and {self._index_path.name} to extract all maps "
                    "again."
                )

    def _add_rows(self, image_names: list[str]) -> None:
        if not isinstance(image_names, list):
            raise TypeError("its images are not a list")
        for image_name in image_names:
            if not isinstance(image_name, str):
                raise TypeError(f"{image_name} is not an image name")
            if image_name in self._rows:
                raise ValueError(f"{image_name} is listed twice")
            self._rows[image_name] = len(self._rows)

    def _open_files(self) -> None:
        self._maps = [np.memmap(path, _DTYPE, "r", shape=shape) for path, shape in self._files()]

    def _files(self) -> Iterator[tuple[Path, tuple[int, int, int]]]:
        """Yields the path of each file of maps, and the shape (maps, cells, feature_width) of the
        saved ones."""
        for file_number, first in enumerate(range(0, len(self._rows), self._maps_per_file)):
            maps = min(self._maps_per_file, len(self._rows) - first)
            yield self._file_path(file_number), (maps, *self._shape)

    def _file_path(self, file_number: int) -> Path:
        """Returns the path of the file of maps with this number, from 0."""
        if file_number == 0:
            return self._path
        return self._path.with_stem(f"{self._path.stem}-{file_number + 1}")


def load_pooled_features(paths: Paths) -> Mapping[str, np.ndarray]:
    """Loads the pooled features of a root folder: image name -> map of one cell (1, feature_width)
    float16 if they are stored as maps, else vector (feature_width,) float32. Empty if there are
    neither."""
    store = FeatureStore(paths.pooled_feature_maps)
    if not store and paths.features.exists():
        return load_vectors(paths.features)
    return store


def encoder_id_of(features: Mapping[str, np.ndarray]) -> str | None:
    """Returns the ID of the encoder that computed the features; None if it is unknown, as for a
    plain dict."""
    return features.encoder_id if isinstance(features, FeatureStore) else None


def _is_cut(line: bytes) -> bool:
    """Returns whether `line` is only the first part of a line of the index."""
    try:
        json.loads(line)
    except ValueError:
        return line[: len(_LINE_START)] == _LINE_START[: len(line)]
    return False


def _write_at(path: Path, position: int, content: bytes) -> None:
    """Writes at `position` and truncates the file after it; also before it raises the error of a
    full disk, which thereby has room for the index."""
    mode = "r+b" if path.exists() else "wb"
    with name_in_errors(path), path.open(mode, buffering=0) as file:
        file.seek(position)
        file.truncate()
        try:
            while content:  # a full disk takes a part, and raises for the rest
                content = content[file.write(content) :]
        except OSError:
            file.truncate(position)
            raise
