"""Extracts features from photographs: feature maps, in memory or on disk, and pooled features, the
means over the cells of the maps.

Threads decode image files while the encoder computes.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from os import PathLike
from pathlib import Path

import numpy as np

from captioning.data.feature_store import FeatureStore
from captioning.data.images import ImageLike, load_image
from captioning.data.pickles import load_vectors, save_pickle
from captioning.errors import UserError, printable
from captioning.inference.encoder import ENCODER_BATCH_SIZE, Encoder
from captioning.paths import Paths

_DECODING_THREADS = 2  # the encoder needs the cores more
_MAX_PICKLED = 50_000  # images: their pooled features take 400 MB of memory
_SAVE_EVERY = 256  # images: a few seconds to half a minute of work
_SAME_ENCODER = 0.99  # cosine; bfloat16 leaves 0.999
_ERRORS = (OSError, UserError, TypeError, MemoryError)  # of `load_image`

# Loads an image at a size (height, width) as uint8 RGB: `load_image`, plain or of an augmentation.
Load = Callable[[ImageLike, tuple[int, int]], np.ndarray]
# Images, each with its feature map, or with its error if it could not be read.
EncodedBatch = list[tuple[ImageLike, np.ndarray | Exception]]


def encode_images(
    encoder: Encoder, images: Iterable[ImageLike], load: Load = load_image
) -> Iterator[EncodedBatch]:
    """Yields batches, in order, of images with their feature maps (cells, feature_width) float32,
    or with the error of `load`. Memory does not grow with the number of images."""
    with ThreadPoolExecutor(_DECODING_THREADS) as pool:
        for batch in _load_ahead(pool, images, encoder.image_size, load):
            pixels = [loaded for _, loaded in batch if not isinstance(loaded, Exception)]
            feature_maps = iter(encoder(np.stack(pixels)) if pixels else ())
            yield [
                (image, loaded if isinstance(loaded, Exception) else next(feature_maps))
                for image, loaded in batch
            ]


def extract_feature_maps(
    encoder: Encoder,
    folder: Path,
    image_names: Iterable[str],
    path: Path,
    load: Load = load_image,
    pooled: bool = False,
) -> FeatureStore:
    """Writes the feature maps of the named images in `folder` to the file `path`, a `FeatureStore`.
    With `pooled`, a map has one cell, the mean of all cells.

    Skips maps that are already in the file and saves every few hundred images, so an interrupted
    extraction resumes. Leaves out and reports images that cannot be read. Raises UserError if the
    file comes from another encoder, FileNotFoundError if `folder` is missing.
    """
    feature_maps = FeatureStore(path, encoder.encoder_id)
    _require_same_encoder(feature_maps, encoder, folder, path, load)
    missing = [name for name in dict.fromkeys(image_names) if name not in feature_maps]
    encoded = _encode_named(encoder, folder, missing, path.stem, load)

    def append(image_name: str, feature_map: np.ndarray) -> None:
        feature_maps.append(image_name, _pool(feature_map)[None] if pooled else feature_map)

    _save_often(encoded, append, feature_maps.save)
    return feature_maps


def extract_pooled_features(
    encoder: Encoder, folder: Path, image_names: Collection[str], paths: Paths
) -> Mapping[str, np.ndarray]:
    """Writes and returns the features of `pool_features`, but computes them directly from the
    photographs: 66 MB for Flickr8k, whose feature maps, rounded to float16, take 3.3 GB. Resumes,
    leaves out images and raises errors as `extract_feature_maps` does."""
    if _are_stored_as_maps(image_names, paths):
        path = paths.pooled_feature_maps
        return extract_feature_maps(encoder, folder, image_names, path, pooled=True)
    path = paths.features
    features = load_vectors(path) if path.exists() else {}
    _require_same_encoder(features, encoder, folder, path, load_image)
    missing = [name for name in dict.fromkeys(image_names) if name not in features]
    encoded = _encode_named(encoder, folder, missing, path.stem, load_image)

    def add(image_name: str, feature_map: np.ndarray) -> None:
        features[image_name] = _pool(feature_map)

    _save_often(encoded, add, lambda: save_pickle(path, features))
    return features


def pool_features(feature_maps: FeatureStore, paths: Paths) -> Mapping[str, np.ndarray]:
    """Writes and returns image name -> the mean over the cells of its feature map.

    For up to 50,000 images, a plain pickled dict of means (feature_width,) float32; for more, or if
    the root has such maps, a `FeatureStore` of maps with one cell (1, feature_width) float16.
    Computes only missing means, unless the first one in the dict comes from another map: then all.
    """
    if _are_stored_as_maps(feature_maps, paths):
        return _store_means(feature_maps, paths.pooled_feature_maps)
    path = paths.features
    features = load_vectors(path) if path.exists() else {}
    first_name = next((name for name in feature_maps if name in features), None)
    if first_name and not np.array_equal(features[first_name], _pool(feature_maps[first_name])):
        features = {}
    missing = [name for name in feature_maps if name not in features]
    features |= {name: _pool(feature_maps[name]) for name in missing}
    if missing:
        save_pickle(path, features)
    return features


def _are_stored_as_maps(image_names: Collection[str], paths: Paths) -> bool:
    """Whether pooled features are maps: of very many images, or where the root has such maps."""
    return len(image_names) > _MAX_PICKLED or paths.pooled_feature_maps.exists()


def _store_means(feature_maps: FeatureStore, path: Path) -> FeatureStore:
    pooled_maps = FeatureStore(path, feature_maps.encoder_id)
    for image_name in feature_maps:
        if image_name not in pooled_maps:
            pooled_maps.append(image_name, _pool(feature_maps[image_name])[None])
    pooled_maps.save()
    return pooled_maps


def _load_ahead(
    pool: ThreadPoolExecutor, images: Iterable[ImageLike], size: tuple[int, int], load: Load
) -> Iterator[list[tuple[ImageLike, np.ndarray | Exception]]]:
    """Yields batches of images with their pixels or errors, one batch ahead of the caller."""
    images = iter(images)
    loading: deque[tuple[ImageLike, Future]] = deque()
    while True:
        for image in islice(images, 2 * ENCODER_BATCH_SIZE - len(loading)):
            loading.append((image, _start_loading(pool, image, size, load)))
        if not loading:
            return
        batch = [loading.popleft() for _ in range(min(ENCODER_BATCH_SIZE, len(loading)))]
        yield [(image, _loaded(future)) for image, future in batch]


def _start_loading(
    pool: ThreadPoolExecutor, image: ImageLike, size: tuple[int, int], load: Load
) -> Future:
    """Loads files in a thread, and other images at once: they are objects of the caller."""
    if isinstance(image, (str, PathLike)):
        return pool.submit(load, image, size)
    future: Future = Future()
    try:
        future.set_result(load(image, size))
    except _ERRORS as error:
        future.set_exception(error)
    return future


def _loaded(future: Future) -> np.ndarray | Exception:
    """The pixels, or the error without its stack frames, which may hold the content of a file."""
    try:
        return future.result()
    except _ERRORS as error:
        return error.with_traceback(None)


def _encode_named(
    encoder: Encoder, folder: Path, image_names: list[str], title: str, load: Load
) -> Iterator[list[tuple[str, np.ndarray]]]:
    """Yields batches of image names with feature maps, one batch ahead of the caller. Shows the
    progress and reports images that cannot be read."""
    from tqdm import tqdm  # here, since captioning needs no progress bar

    if image_names and not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder} with the images. Restore it, or run `captioning "
            "check` with the folder where they are now."
        )
    remaining = iter(image_names)
    with tqdm(total=len(image_names), desc=title, unit="image") as progress:
        paths = (folder / name for name in image_names)
        for batch in _one_ahead(encode_images(encoder, paths, load)):
            encoded = []
            for image_name, (_, result) in zip(islice(remaining, len(batch)), batch, strict=True):
                if isinstance(result, Exception):
                    tqdm.write(f"left out: {printable(result)}")
                else:
                    encoded.append((image_name, result))
            progress.update(len(batch))
            yield encoded


def _one_ahead(batches: Iterator[EncodedBatch]) -> Iterator[EncodedBatch]:
    """Yields the same batches, and computes the next one in a thread in the meantime."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = pool.submit(next, batches, None)
            yield batch


def _save_often(
    encoded: Iterable[list[tuple[str, np.ndarray]]],
    add: Callable[[str, np.ndarray], None],
    save: Callable[[], None],
) -> None:
    """Adds each feature map by its image name, and saves after every `_SAVE_EVERY` maps."""
    unsaved = 0
    try:
        for batch in encoded:
            for image_name, feature_map in batch:
                add(image_name, feature_map)
                unsaved += 1
            if unsaved >= _SAVE_EVERY:
                save()
                unsaved = 0
    finally:  # saves also after Ctrl-C
        if unsaved:
            save()


def _require_same_encoder(
    features: Mapping[str, np.ndarray], encoder: Encoder, folder: Path, path: Path, load: Load
) -> None:
    """Encodes one image again: cheap compared with a model trained on mixed features."""
    image_name = next((name for name in features if (folder / name).exists()), None)
    if image_name is None:
        return
    ((_, new),) = next(encode_images(encoder, [folder / image_name], load))
    if isinstance(new, Exception):
        raise new
    old = np.atleast_2d(features[image_name]).astype("float32")
    if len(old) == 1:
        new = _pool(new)[None]
    lengths = np.linalg.norm(old) * np.linalg.norm(new)
    if old.shape != new.shape or not (old * new).sum() >= _SAME_ENCODER * lengths > 0:
        raise UserError(
            f"Expected features of this encoder and of these images in {path}, got others for "
            f"{image_name}. Delete the file (and {path.name}.json, if there is one) to extract all "
            "features again, or restore the other encoder."
        )


def _pool(feature_map: np.ndarray) -> np.ndarray:
    """Returns the mean (feature_width,) float32 of a feature map (cells, feature_width)."""
    return feature_map.mean(axis=0, dtype="float32")
