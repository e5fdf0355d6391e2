"""Captions photographs: loads a model, encodes images and decodes their features to captions."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from captioning.data.images import ImageLike, load_image
from captioning.data.vocabulary import Vocabulary
from captioning.errors import UserError
from captioning.inference.attention import AttentionMaps, compute_attention
from captioning.inference.decoder import Decoder
from captioning.inference.decoding import Caption, find_captions
from captioning.inference.encoder import Encoder
from captioning.inference.extract_features import EncodedBatch, encode_images
from captioning.paths import Paths, find_cache, find_model
from captioning.settings import SearchSettings

# Images in order, each with its error if it could not be read.
_Pending = deque[tuple[ImageLike, Exception | None]]
_Result = tuple[ImageLike, list[Caption] | Exception]

_MANY_FAILURES = 16  # images, whose errors and contents are held in memory together


class Captioner:
    """Captions photographs with a trained model. Any number of threads may share one captioner.

    An image is the path of a file, its content as bytes, an open binary file, a Pillow image or an
    array: see `captioning.data.images.open_image`.

    A caption does not depend on the images captioned before or together with its image, and neither
    does its log-probability, within 1e-5: OpenVINO rounds sums differently at different batch
    sizes. With the 8-bit networks no difference has been measured.

    >>> captioner = Captioner.load()
    >>> print(captioner.caption("photo.jpg"))  # doctest: +SKIP
    a dog is running through the grass
    """

    def __init__(self, encoder: Encoder, decoder: Decoder):
        """Raises UserError if the decoder was trained with another encoder."""
        if encoder.feature_width != decoder.feature_width:
            raise UserError(
                f"Expected an encoder with the decoder's {decoder.feature_width} features a cell, "
                f"got one with {encoder.feature_width}. Take both from the same training run."
            )
        decoder.require_encoder(encoder.encoder_id)
        self.encoder = encoder
        self.decoder = decoder

    @classmethod
    def load(cls, root: str | Path | None = None, cache: bool = True) -> "Captioner":
        """Loads the model in the folder `root`, which contains `models/` and `tokenizer.p`; by
        default, the model that `captioning.paths.find_model` finds. `cache`: whether compiled
        networks are kept for the next start, in the folder that `captioning.paths.find_cache`
        finds. Raises FileNotFoundError if a part is missing, UserError if a part is damaged or the
        parts do not belong together."""
        paths = Paths(find_model(root))
        folder = find_cache() if cache else None
        vocabulary = Vocabulary.load(paths.vocabulary)
        with ThreadPoolExecutor(1) as pool:  # compiling a network leaves half of the cores idle
            decoder = pool.submit(Decoder.load, paths.models, vocabulary, folder)
            encoder = Encoder(paths.models, cache=folder)
        return cls(encoder, decoder.result())

    def caption(self, image: ImageLike, search: SearchSettings = SearchSettings()) -> Caption:
        """Returns the best caption of an image. Raises FileNotFoundError, UserError or TypeError
        if the image cannot be read, as `captioning.data.images.load_image` does."""
        ((best,),) = self.caption_batch([image], search=search)
        return best

    def caption_batch(
        self,
        images: Iterable[ImageLike],
        num_captions: int = 1,
        search: SearchSettings = SearchSettings(),
    ) -> list[list[Caption]]:
        """Returns for each image its `num_captions` best captions, best first. Widens a beam that
        is narrower than `num_captions`. Raises the error of the first image that cannot be read, as
        `caption` does, and UserError unless `num_captions` is from 1 to 100."""
        captions = []
        for _, result in self.stream(images, num_captions, search):
            if isinstance(result, Exception):
                raise result
            captions.append(result)
        return captions

    def stream(
        self,
        images: Iterable[ImageLike],
        num_captions: int = 1,
        search: SearchSettings = SearchSettings(),
    ) -> Iterator[_Result]:
        """Captions images lazily and in order: yields each image with its captions, as
        `caption_batch` returns them, or with its error if it cannot be read. Takes images about 25
        ahead, as the captions of `SEARCH_BATCH_SIZE` images are searched side by side. Memory does
        not grow with the number of images, whether they can be read or not."""
        _require_several(images)
        batches = encode_images(self.encoder, images)

        def start() -> Iterator[_Result]:
            pending: _Pending = deque()
            feature_maps = _until_many_fail(batches, pending)
            captions = find_captions(self.decoder, feature_maps, search, num_captions)
            return _in_order(pending, captions)

        return _repeat(start(), start)

    def attention(self, image: ImageLike, caption: Caption | str) -> AttentionMaps:
        """Returns how much each word of the caption, which may come from anywhere, attends to each
        cell of the image. Raises the errors of `caption`, and UserError for a caption without
        words."""
        pixels = load_image(image, self.encoder.image_size)
        (features,) = self.encoder(pixels[None])
        return compute_attention(self.decoder, features, str(caption))


def _until_many_fail(batches: Iterator[EncodedBatch], pending: _Pending) -> Iterator[np.ndarray]:
    """Yields batches of feature maps of the images that can be read. Adds all images of a batch to
    `pending` before it yields their maps. Ends after `_MANY_FAILURES` in a row, whose errors the
    search would hold back until the next image that can be read."""
    failures = 0
    while failures < _MANY_FAILURES and (batch := next(batches, None)) is not None:
        feature_maps = []
        for image, result in batch:
            is_error = isinstance(result, Exception)
            pending.append((image, result if is_error else None))
            failures = failures + 1 if is_error else 0
            if not is_error:
                feature_maps.append(result)
        if feature_maps:
            yield np.stack(feature_maps)


def _repeat(
    results: Iterator[_Result], start: Callable[[], Iterator[_Result]]
) -> Iterator[_Result]:
    """Yields the results, and those of each new start, until there are no more."""
    while (first := next(results, None)) is not None:
        yield first
        yield from results
        results = start()


def _in_order(pending: _Pending, captions: Iterator[list[Caption]]) -> Iterator[_Result]:
    """Pairs captions with the pending images that could be read, errors with the others."""
    for image_captions in captions:
        yield from _pop_errors(pending)
        yield pending.popleft()[0], image_captions
    yield from _pop_errors(pending)


def _pop_errors(pending: _Pending) -> Iterator[tuple[ImageLike, Exception]]:
    """Removes the images at the front that could not be read, and yields them with their errors."""
    while pending and pending[0][1] is not None:
        yield pending.popleft()


def _require_several(images: Iterable[ImageLike]) -> None:
    """Refuses a single image, whose lines or characters would be taken for images."""
    is_single = isinstance(images, (str, bytes, PathLike, Image.Image)) or hasattr(images, "read")
    if is_single or len(getattr(images, "shape", ())) in (2, 3):  # also a tensor
        raise TypeError(
            f"Expected several images, such as a list of paths, got one {type(images).__name__}. "
            "Put it into a list, or use caption()."
        )
