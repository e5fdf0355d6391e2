"""Photographs in, what the encoder sees out: feature maps, and `features.p`, their averages."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from captioning.data.feature_store import FeatureStore
from captioning.data.images import load_image
from captioning.data.names import Names
from captioning.files import load_pickle, save_pickle
from captioning.inference.encode_images import Encoded, Load, encode_images
from captioning.inference.networks import Encoder

_SAVE_EVERY = 256  # images, a few seconds to half a minute of work
_SAME_ENCODER = 0.99  # cosine; bfloat16 leaves 0.999


def extract_feature_maps(
    encoder: Encoder,
    folder: Path,
    image_names: Iterable[str],
    path: Path,
    load: Load = load_image,
) -> FeatureStore:
    """Feature maps of all images in `folder`, kept in the file `path`: see `FeatureStore`. `load` is
    how they are looked at: see `captioning.data.augmentation`.

    What the file already holds is not computed again, and it is written every few hundred images,
    so that an extraction that was stopped, or killed, goes on. Images that cannot be read are left
    out and named. Raises ValueError if the file was made with another encoder, FileNotFoundError if
    images are asked for and there is no `folder`.
    """
    maps = FeatureStore(path, encoder.encoder_id)
    _refuse_other_features(maps, encoder, folder, path, load)
    missing = Names(name for name in image_names if name not in maps)
    if missing and not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}, where the images were. Bring it back, or run `python -m "
            "captioning check` with the folder where they are now."
        )
    waiting = 0
    names = iter(missing)
    try:
        with tqdm(total=len(missing), desc=path.stem, unit="image") as progress:
            paths = (folder / name for name in missing)
            for batch in _one_ahead(encode_images(encoder, paths, load)):
                for name, (_, found) in zip(islice(names, len(batch)), batch, strict=True):
                    if isinstance(found, Exception):
                        tqdm.write(f"left out: {found}")
                    else:
                        maps.append(name, found)
                progress.update(len(batch))
                waiting += len(batch)
                if waiting >= _SAVE_EVERY:
                    maps.save()
                    waiting = 0
    finally:  # Ctrl-C, too, keeps what is done
        maps.save()
    return maps


def _one_ahead(batches: Iterator[Encoded]) -> Iterator[Encoded]:
    """The same, of which the next is made in a thread while the caller writes the one before."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = pool.submit(next, batches, None)
            yield batch


def average_features(maps: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Image name -> float32 (feature_width,), the average over the cells of its feature map, kept
    in the file `path`, a plain pickled dict. The maps of images that it holds are not read again,
    unless the first of them shows that it was made of other maps.
    """
    features = load_pickle(path) if path.exists() else {}
    known = next((name for name in maps if name in features), None)
    if known and not np.array_equal(features[known], _average(maps[known])):
        features = {}
    missing = [image_name for image_name in maps if image_name not in features]
    for image_name in missing:
        features[image_name] = _average(maps[image_name])
    if missing:
        save_pickle(path, features)
    return features


def _refuse_other_features(
    maps: FeatureStore, encoder: Encoder, folder: Path, path: Path, load: Load
) -> None:
    """Computes one image again: cheap beside a model trained on features of two kinds."""
    known = next((name for name in maps if (folder / name).exists()), None)
    if known is None:
        return
    old = maps[known].astype("float32")
    ((_, new),) = next(encode_images(encoder, [folder / known], load))
    if isinstance(new, Exception):
        raise new
    alike = old.shape == new.shape and (old * new).sum() >= _SAME_ENCODER * np.sqrt(
        (old**2).sum() * (new**2).sum()
    )
    if not alike:
        raise ValueError(
            f"{path} was made with another encoder, or of other images: it disagrees on "
            f"{known}. Delete it and {path.name}.json to extract all features anew, or bring "
            "back what made it."
        )


def _average(feature_map: np.ndarray) -> np.ndarray:
    return feature_map.mean(axis=0, dtype="float32")
