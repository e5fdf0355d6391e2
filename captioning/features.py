"""Photographs in, `features.p` out: one array of features for each image name.

Image files are decoded in threads while the encoder computes.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from captioning.files import load_pickle, save_pickle
from captioning.images import load_image
from captioning.inference import Encoder

_BATCH_SIZE = 8  # images; larger batches are no faster on a CPU and take more memory
_SAVE_EVERY = 1024  # images, about a minute and a half of work
_DECODERS = 2  # threads: the encoder needs the cores more
# Two encoders that differ by rounding agree better than this on every image; other weights do not.
_SAME_ENCODER = 0.99  # cosine


Encoded = list[tuple[Path, np.ndarray | Exception]]


def encode_files(encoder: Encoder, paths: Iterable[Path]) -> Iterator[Encoded]:
    """Batch after batch, in order: each path with its features (feature_width,) float32, or with
    the error that says why there are none (see `load_image`). Memory does not grow with the number
    of images."""
    with ThreadPoolExecutor(_DECODERS) as pool:
        for batch in _decoded(pool, paths, encoder.image_size):
            images = [image for _, image in batch if not isinstance(image, Exception)]
            features = iter(encoder(np.stack(images)) if images else ())
            yield [
                (path, image if isinstance(image, Exception) else next(features))
                for path, image in batch
            ]


def extract_features(
    encoder: Encoder, folder: Path, image_names: Sequence[str], path: Path
) -> dict:
    """Image name -> features for all images in `folder`, kept in the file `path` as well.

    What the file already holds is not computed again, and it is written every thousand images, so
    that an extraction that was stopped, or killed, goes on. Images that cannot be read are left out
    and named.
    Raises ValueError if the file was made with another encoder.
    """
    features = load_pickle(path) if path.exists() else {}
    _refuse_other_encoder(features, encoder, folder, image_names, path)
    missing = {folder / name: name for name in image_names if name not in features}
    saved = len(features)
    try:
        with tqdm(total=len(missing), desc="features", unit="image") as progress:
            for batch in encode_files(encoder, missing):
                for image_path, found in batch:
                    if isinstance(found, Exception):
                        tqdm.write(f"left out: {found}")
                    else:
                        features[missing[image_path]] = found
                progress.update(len(batch))
                if len(features) - saved >= _SAVE_EVERY:
                    save_pickle(path, features)
                    saved = len(features)
    finally:  # Ctrl-C, too, keeps what is done
        if len(features) > saved:
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
    features: dict, encoder: Encoder, folder: Path, image_names: Sequence[str], path: Path
) -> None:
    """Computes one image again: cheap beside a model trained on features of two kinds."""
    known = next((name for name in image_names if name in features), None)
    if known is None:
        return
    old = features[known]
    new = encoder(load_image(folder / known, encoder.image_size)[None])[0]
    alike = old.shape == new.shape and old @ new >= _SAME_ENCODER * np.sqrt(old @ old * (new @ new))
    if not alike:
        raise ValueError(
            f"{path} was made with another encoder, or of other images: it disagrees on "
            f"{known}. Delete it to extract all features anew, or bring back what made it."
        )
