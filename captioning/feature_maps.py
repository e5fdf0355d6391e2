"""Feature maps on disk: too many for memory, so they are appended to a file and mapped from it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from captioning.files import write_atomically

_DTYPE = np.dtype("float16")  # the maps of 8,000 images take 3.3 GB, and lose three digits of seven


class FeatureMaps(Mapping):
    """Image name -> feature map (cells, feature_width) float16, in a file that only grows.

    `path` holds the maps one after the other, and `path` with ".json" at its end their image names,
    their shape and, if it is known, the encoder that made them. A map counts once `save` has named
    it: what a killed run appended after that is written over. Arrays that are handed out are views
    of the file: reading one reads the disk.
    """

    def __init__(self, path: Path, encoder: str | None = None):
        """Opens what is there, or begins anew with maps of `encoder`, as of
        `captioning.inference.encoder_note`. Raises ValueError if the two files do not belong
        together, or hold maps of another encoder."""
        self._path = path
        self._index_path = path.with_name(f"{path.name}.json")
        self._names: list[str] = []
        self._shape: tuple[int, int] | None = None
        self._waiting: dict[str, np.ndarray] = {}
        self.encoder = encoder
        if self._index_path.exists():
            self._read_index()
            self._refuse_other_encoder(encoder)
        self._map_file()

    def __getitem__(self, image_name: str) -> np.ndarray:
        row = self._rows[image_name]
        return self._maps[row]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def append(self, image_name: str, feature_map: np.ndarray) -> None:
        """Takes a map, which is there to be read after the next `save`."""
        self._waiting[image_name] = feature_map.astype(_DTYPE)

    def save(self) -> None:
        """Writes what was appended: the maps first, then the index that names them."""
        if not self._waiting:
            return
        maps = np.stack(list(self._waiting.values()))
        if self._shape not in (None, maps.shape[1:]):
            raise ValueError(
                f"{self._path} holds feature maps of shape {self._shape}. Received: "
                f"{maps.shape[1:]}. Delete it and {self._index_path.name} to extract all "
                "of them anew."
            )
        self._shape = maps.shape[1:]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.seek(len(self._names) * maps[0].nbytes)
            file.truncate()
            file.write(maps.tobytes())
        self._names += self._waiting
        self._waiting = {}
        with write_atomically(self._index_path, "w") as file:
            index = {"encoder": self.encoder, "shape": self._shape, "images": self._names}
            json.dump(index, file)
        self._map_file()

    def _read_index(self) -> None:
        try:
            index = json.loads(self._index_path.read_text(encoding="utf-8"))
            self._names, self._shape = index["images"], tuple(index["shape"])
            self.encoder = index.get("encoder")
            size = len(self._names) * int(np.prod(self._shape)) * _DTYPE.itemsize
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self._index_path} is damaged ({error}). Delete it to extract all maps anew."
            ) from error
        if not self._path.exists() or self._path.stat().st_size < size:
            raise ValueError(
                f"{self._path} should hold {len(self._names):,} feature maps, {size:,} bytes. "
                f"Delete {self._index_path.name} beside it to extract all of them anew."
            )

    def _refuse_other_encoder(self, encoder: str | None) -> None:
        if None not in (encoder, self.encoder) and encoder != self.encoder:
            raise ValueError(
                f"{self._path} was made with another encoder. Wanted: {self.encoder}. Received: "
                f"{encoder}. Delete it and {self._index_path.name} to extract all features anew, "
                "or bring back what made it."
            )

    def _map_file(self) -> None:
        self._rows = {name: row for row, name in enumerate(self._names)}
        if self._names:
            self._maps = np.memmap(self._path, _DTYPE, "r", shape=(len(self._names), *self._shape))


def encoder_of(features: Mapping[str, np.ndarray]) -> str | None:
    """The encoder that made the features, where they tell; a plain dict does not."""
    return features.encoder if isinstance(features, FeatureMaps) else None
