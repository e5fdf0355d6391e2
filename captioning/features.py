"""Photographs in, what the encoder sees out: feature maps, and `features.p`, their averages.

Image files are decoded in threads while the encoder computes.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from captioning.feature_maps import FeatureMaps
from captioning.files import load_pickle, save_pickle
from captioning.images import load_image
from captioning.inference import Encoder

_BATCH_SIZE = 8  # images; larger batches are no faster on a CPU and take more memory
_SAVE_EVERY = 512  # images, about a minute of work; their maps wait in memory, 200 MB
_DECODERS = 2  # threads: the encoder needs the cores more
# Two encoders that differ by rounding agree better than this on every image; other weights do not.
_SAME_ENCODER = 0.99  # cosine


Encoded = list[tuple[Path, np.ndarray | Exception]]


def encode_files(
    encoder: Encoder, paths: Iterable[Path], mirrored: bool = False
) -> Iterator[Encoded]:
    """Batch after batch, in order: each path with its feature map (cells, feature_width) float32,
    or with the error that says why there is none (see `load_image`). `mirrored` images are seen as
    in a mirror. Memory does not grow with the number of images."""
    with ThreadPoolExecutor(_DECODERS) as pool:
        for batch in _decoded(pool, paths, encoder.image_size):
            images = [image for _, image in batch if not isinstance(image, Exception)]
            if mirrored:
                images = [image[:, ::-1] for image in images]
            maps = iter(encoder(np.stack(images)) if images else ())
            yield [
                (path, image if isinstance(image, Exception) else next(maps))
                for path, image in batch
            ]


def extract_feature_maps(
    encoder: Encoder, folder: Path, image_names: Sequence[str], path: Path, mirrored: bool = False
) -> FeatureMaps:
    """Feature maps of all images in `folder`, kept in the file `path`: see `FeatureMaps`.

    What the file already holds is not computed again, and it is written every few hundred images,
    so that an extraction that was stopped, or killed, goes on. Images that cannot be read are left
    out and named. Raises ValueError if the file was made with another encoder.
    """
    maps = FeatureMaps(path)
    _refuse_other_encoder(maps, encoder, folder, path, mirrored)
    missing = {folder / name: name for name in image_names if name not in maps}
    waiting = 0
    try:
        with tqdm(total=len(missing), desc=path.stem, unit="image") as progress:
            for batch in encode_files(encoder, missing, mirrored):
                for image_path, found in batch:
                    if isinstance(found, Exception):
                        tqdm.write(f"left out: {found}")
                    else:
                        maps.append(missing[image_path], found)
                progress.update(len(batch))
                waiting += len(batch)
                if waiting >= _SAVE_EVERY:
                    maps.save()
                    waiting = 0
    finally:  # Ctrl-C, too, keeps what is done
        maps.save()
    return maps


def average_features(maps: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Image name -> float32 (feature_width,), the average over the cells of its feature map, kept
    in the file `path`, a plain pickled dict. The maps of images that it holds are not read again.
    """
    features = load_pickle(path) if path.exists() else {}
    missing = [image_name for image_name in maps if image_name not in features]
    for image_name in missing:
        features[image_name] = maps[image_name].mean(axis=0, dtype="float32")
    if missing:
        save_pickle(path, features)
    return features


def _decoded(
    pool: ThreadPoolExecutor, paths: Iterable[Path], size: tuple[int, int]
) -> Iterator[Encoded]:
    """Batches of images, decoded one batch ahead of the caller."""
    paths = iter(paths)
    waiting: deque[tuple[Path, Future]] = deque()
    while True:
        for path in islice(paths, 2 * _BATCH_SIZE - len(waiting)):
            waiting.append((path, pool.submit(load_image, path, size)))
        if not waiting:
            return
        batch = [waiting.popleft() for _ in range(min(_BATCH_SIZE, len(waiting)))]
        yield [(path, _result(future)) for path, future in batch]


def _result(future: Future) -> np.ndarray | Exception:
    try:
        return future.result()
    except (FileNotFoundError, ValueError) as error:
        return error


def _refuse_other_encoder(
    maps: FeatureMaps, encoder: Encoder, folder: Path, path: Path, mirrored: bool
) -> None:
    """Computes one image again: cheap beside a model trained on features of two kinds."""
    known = next((name for name in maps if (folder / name).exists()), None)
    if known is None:
        return
    old = maps[known].astype("float32")
    ((_, new),) = next(encode_files(encoder, [folder / known], mirrored))
    if isinstance(new, Exception):
        raise new
    alike = old.shape == new.shape and (old * new).sum() >= _SAME_ENCODER * np.sqrt(
        (old**2).sum() * (new**2).sum()
    )
    if not alike:
        raise ValueError(
            f"{path} was made with another encoder, or of other images: it disagrees on "
            f"{known}. Delete it to extract all features anew, or bring back what made it."
        )
