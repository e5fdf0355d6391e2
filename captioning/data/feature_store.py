"""Feature maps on disk, in a file that only grows; for pooled features, see `data.pickles`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from captioning.errors import UserError
from captioning.files import name_in_errors

_LINE_START = b'{"encoder": '  # of the index
_DTYPE = np.dtype("float16")  # half of 6.6 GB for Flickr8k, and three digits are enough


class FeatureStore(Mapping):
    """Image name -> feature map (cells, feature_width) float16, stored in two files. Both only
    grow, so adding a map takes the same time however many there are.

    `path` contains the maps one after the other. `path`.json contains a line for each `save`: the
    image names, the shape of their maps and the encoder that computed them, if it is known. A map
    counts as stored once a line lists its image; the next run overwrites anything else that a run
    appended before it was killed or the disk was full. The arrays are views of the file: using one
    reads the disk.
    """

    def __init__(self, path: Path, encoder_id: str | None = None):
        """Opens the files, or creates them for the maps of the encoder `encoder_id` (see
        `captioning.inference.openvino_runtime.read_encoder_id`). Raises UserError if the files do
        not belong together, if a map consists of zeros, or for maps of another encoder."""
        self._path = path
        self._index_path = path.with_name(f"{path.name}.json")
        self._index_size = 0  # in bytes
        self._rows: dict[str, int] = {}  # image name -> row of the file
        self._shape: tuple[int, int] | None = None
        self._unsaved: dict[str, None] = {}  # image names in order
        self.encoder_id = encoder_id
        if self._index_path.exists():
            self._read_index()
            self._refuse_other_encoder(encoder_id)
        self._map_file()
        self._refuse_zeros()

    def __getitem__(self, image_name: str) -> np.ndarray:
        row = self._rows[image_name]
        return self._maps[row]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, image_name: str, feature_map: np.ndarray) -> None:
        """Writes a map (cells, feature_width), which can be read after the next `save`. Raises
        ValueError if the image already has a map, or if the stored maps have another shape."""
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
        row = len(self._rows) + len(self._unsaved)
        _write_at(self._path, row * len(content), content)
        self._shape = feature_map.shape
        self._unsaved[image_name] = None

    def save(self) -> None:
        """Writes the line that lists the appended maps."""
        if not self._unsaved:
            return
        entry = {
            "encoder": self.encoder_id,
            "shape": self._shape,
            "images": list(self._unsaved),
        }
        line = ("\n" if self._rows else "") + json.dumps(entry)
        _write_at(self._index_path, self._index_size, line.encode())
        self._index_size += len(line)
        self._add_rows(list(self._unsaved))
        self._unsaved = {}
        self._map_file()

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
        if not self._rows:
            return
        cells, feature_width = self._shape
        size = len(self._rows) * cells * feature_width * _DTYPE.itemsize
        actual_size = self._path.stat().st_size if self._path.exists() else 0
        if actual_size < size:
            raise UserError(
                f"Expected {len(self._rows):,} feature maps, {size:,} bytes, in {self._path}, got "
                f"{actual_size:,} bytes. Delete {self._index_path.name} beside it to extract all "
                "maps again."
            )

    def _read_line(self, line: bytes) -> None:
        entry = json.loads(line)
        cells, feature_width = shape = tuple(entry["shape"])
        if not all(isinstance(length, int) and length > 0 for length in shape):
            raise ValueError(f"its shape is {cells} x {feature_width}")
        if self._shape not in (None, shape):
            raise ValueError(f"its shapes are {self._shape} and {shape}")
        self._shape = shape
        self._add_rows(entry["images"])
        self.encoder_id = entry.get("encoder")
        if not isinstance(self.encoder_id, str | None):
            raise TypeError("its encoder is no text")

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
        if not self._rows:
            return
        middle = self._shape[0] // 2  # one cell of each map, a page of the disk, is quickly read
        suspects = np.flatnonzero(~self._maps[:, middle].any(axis=1))
        zeros = [row for row in suspects if not self._maps[row].any()]
        if zeros:
            raise UserError(
                f"Expected numbers in {self._path}, got only zeros for {len(zeros):,} images, such "
                f"as {list(self._rows)[zeros[0]]}. Delete it and {self._index_path.name} to "
                "extract all maps again."
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

    def _map_file(self) -> None:
        if self._rows:
            self._maps = np.memmap(self._path, _DTYPE, "r", shape=(len(self._rows), *self._shape))


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
