"""Photographs in, what the encoder sees in each of them out, batch after batch.

Image files are decoded in threads while the encoder computes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from os import PathLike

import numpy as np

from captioning.data.images import ImageLike, load_image
from captioning.inference.networks import ENCODER_BATCH_SIZE, Encoder

_DECODERS = 2  # threads: the encoder needs the cores more

Encoded = list[tuple[ImageLike, np.ndarray | Exception]]
Load = Callable[[ImageLike, tuple[int, int]], np.ndarray]


def encode_images(
    encoder: Encoder, paths: Iterable[ImageLike], load: Load = load_image
) -> Iterator[Encoded]:
    """Batch after batch, in order: each path with its feature map (cells, feature_width) float32,
    or with the error that says why there is none (see `load_image`). `load` is given a path and the
    height and width wanted. Memory does not grow with the number of images."""
    with ThreadPoolExecutor(_DECODERS) as pool:
        for batch in _decoded(pool, paths, encoder.image_size, load):
            images = [image for _, image in batch if not isinstance(image, Exception)]
            maps = iter(encoder(np.stack(images)) if images else ())
            yield [
                (path, image if isinstance(image, Exception) else next(maps))
                for path, image in batch
            ]


def _decoded(
    pool: ThreadPoolExecutor, paths: Iterable[ImageLike], size: tuple[int, int], load: Load
) -> Iterator[Encoded]:
    """Batches of images, decoded one batch ahead of the caller."""
    paths = iter(paths)
    waiting: deque[tuple[ImageLike, Future]] = deque()
    while True:
        for path in islice(paths, 2 * ENCODER_BATCH_SIZE - len(waiting)):
            waiting.append((path, _submit(pool, path, size, load)))
        if not waiting:
            return
        batch = [waiting.popleft() for _ in range(min(ENCODER_BATCH_SIZE, len(waiting)))]
        yield [(path, _result(future)) for path, future in batch]


def _submit(
    pool: ThreadPoolExecutor, image: ImageLike, size: tuple[int, int], load: Load
) -> Future:
    """Paths are loaded in threads; images in memory here, since Pillow's may not be shared."""
    if isinstance(image, (str, PathLike)):
        return pool.submit(load, image, size)
    loaded: Future = Future()
    try:
        loaded.set_result(load(image, size))
    except ValueError as error:
        loaded.set_exception(error)
    return loaded


def _result(future: Future) -> np.ndarray | Exception:
    try:
        return future.result()
    except (FileNotFoundError, ValueError) as error:
        return error
