"""Feature maps on disk: too many for memory, so they are appended to a file and mapped from it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

_DTYPE = np.dtype("float16")  # the maps of 8,000 images take 3.3 GB, and lose three digits of seven


class FeatureStore(Mapping):
    """Image name -> feature map (cells, feature_width) float16, in files that only grow, so that a
    map costs the same however many there are.

    `path` holds the maps one after the other, from when they are appended. `path` with ".json" at
    its end has a line for each `save`, which names the images, the shape of their maps and, if it
    is known, the encoder that made them: a map counts once it is named there, and what a killed run
    appended without that is written over. Arrays that are handed out are views of the file: reading
    one reads the disk.
    """

    def __init__(self, path: Path, encoder_id: str | None = None):
        """Opens what is there, or begins anew with maps of an encoder, as of
        `captioning.inference.network_files.read_encoder_id`. Raises ValueError if the two files do not
        belong together, or hold maps of another encoder."""
        self._path = path
        self._index_path = path.with_name(f"{path.name}.json")
        self._index_size = 0  # in bytes
        self._rows: dict[str, int] = {}  # image name -> row of the file
        self._shape: tuple[int, int] | None = None
        self._waiting: dict[str, None] = {}  # names, in order
        self.encoder_id = encoder_id
        if self._index_path.exists():
            self._read_index()
            self._refuse_other_encoder(encoder_id)
        self._map_file()

    def __getitem__(self, image_name: str) -> np.ndarray:
        row = self._rows[image_name]
        return self._maps[row]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, image_name: str, feature_map: np.ndarray) -> None:
        """Writes a map, which is there to be read after the next `save`. Raises ValueError if the
        image has one, or if the others are of another shape."""
        if image_name in self._rows or image_name in self._waiting:
            raise ValueError(f"{self._path} holds a feature map of {image_name} already.")
        if self._shape not in (None, feature_map.shape):
            raise ValueError(
                f"{self._path} holds feature maps of shape {self._shape}. Received: "
                f"{feature_map.shape}. Delete it and {self._index_path.name} to extract all "
                "of them anew."
            )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = feature_map.astype(_DTYPE).tobytes()
        row = len(self._rows) + len(self._waiting)
        _write_at(self._path, row * len(content), content)
        self._shape = feature_map.shape
        self._waiting[image_name] = None

    def save(self) -> None:
        """Writes the line that names what was appended."""
        if not self._waiting:
            return
        line = json.dumps(
            {
                "encoder": self.encoder_id,
                "shape": self._shape,
                "images": list(self._waiting),
            }
        )
        line = line if not self._rows else f"\n{line}"
        _write_at(self._index_path, self._index_size, line.encode())
        self._index_size += len(line)
        self._name(self._waiting)
        self._waiting = {}
        self._map_file()

    def _read_index(self) -> None:
        first, *more = self._index_path.read_bytes().split(b"\n")
        if more and not _is_json(more[-1]):
            more.pop()  # a killed run was writing it
        try:
            for line in (first, *more):
                index = json.loads(line)
                self._shape = tuple(index["shape"])
                self._name(index["images"])
                self.encoder_id = index.get("encoder")
            size = len(self._rows) * int(np.prod(self._shape)) * _DTYPE.itemsize
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self._index_path} is damaged ({error}). Delete it to extract all maps anew."
            ) from error
        self._index_size = len(b"\n".join((first, *more)))
        if not self._path.exists() or self._path.stat().st_size < size:
            raise ValueError(
                f"{self._path} should hold {len(self._rows):,} feature maps, {size:,} bytes. "
                f"Delete {self._index_path.name} beside it to extract all of them anew."
            )

    def _refuse_other_encoder(self, encoder_id: str | None) -> None:
        known = None not in (self.encoder_id, encoder_id)
        if known and self.encoder_id != encoder_id:
            raise ValueError(
                f"{self._path} was made with another encoder. Wanted: {self.encoder_id}. "
                f"Received: {encoder_id}. Delete it and {self._index_path.name} to extract "
                "all features anew, or bring back what made it."
            )

    def _name(self, image_names: Iterable[str]) -> None:
        for image_name in image_names:
            if not isinstance(image_name, str):
                raise TypeError(f"{image_name} is no name")
            if image_name in self._rows:
                raise ValueError(f"{image_name} is named twice")
            self._rows[image_name] = len(self._rows)

    def _map_file(self) -> None:
        if self._rows:
            self._maps = np.memmap(self._path, _DTYPE, "r", shape=(len(self._rows), *self._shape))


def encoder_id_of(features: Mapping[str, np.ndarray]) -> str | None:
    """The encoder that made the features, where they tell; a plain dict does not."""
    return features.encoder_id if isinstance(features, FeatureStore) else None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _write_at(path: Path, position: int, content: bytes) -> None:
    """Writes over what lies behind `position`."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(position)
        file.truncate()
        file.write(content)
