"""The journey from photograph to sentence."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from captioning.data.images import ImageLike, load_image
from captioning.data.vocabulary import Vocabulary
from captioning.inference.attention import AttentionMaps, compute_attention
from captioning.inference.encode_images import encode_images
from captioning.inference.networks import Caption, Decoder, Encoder
from captioning.paths import Paths
from captioning.settings import SearchSettings

# Paths in order; with those that cannot be captioned, the error that says why.
_Waiting = deque[tuple[ImageLike, Exception | None]]


class Captioner:
    """Captions photographs with a trained model.

    >>> captioner = Captioner.load()
    >>> print(captioner.caption("photo.jpg"))  # doctest: +SKIP
    a dog is running through the grass
    """

    def __init__(self, encoder: Encoder, decoder: Decoder):
        if encoder.feature_width != decoder.feature_width:
            raise ValueError(
                "Encoder and decoder do not belong together. Wanted: features of "
                f"{decoder.feature_width} numbers. Received: {encoder.feature_width}. Take both "
                "from one training run."
            )
        decoder.require_encoder(encoder.encoder_id)
        self.encoder = encoder
        self.decoder = decoder

    @classmethod
    def load(cls, root: str | Path = Paths().root) -> "Captioner":
        """The trained model below the folder `root`: `models/` and `tokenizer.p`. By default the
        one that lies beside this package. Raises FileNotFoundError where a part is missing and
        ValueError where parts do not belong together."""
        files = Paths(Path(root))
        vocabulary = Vocabulary.load(files.vocabulary)
        with ThreadPoolExecutor(1) as pool:  # a core is idle for much of either
            decoder = pool.submit(Decoder.load, files.models, vocabulary)
            encoder = Encoder(files.models)
        return cls(encoder, decoder.result())

    def caption(
        self, image: ImageLike | Sequence[ImageLike], search: SearchSettings = SearchSettings()
    ) -> Caption | list[Caption]:
        """The best caption of an image; of a list of images, the list of their best captions.

        An image is a path, an image of Pillow, or an array: uint8 or floats from 0 to 1, (height,
        width, 3) for RGB or (height, width) for grey. Raises what `load_image` raises where one of
        them is no image that can be read.
        """
        found = self.alternatives(image, 1, search)
        return [best for best, *_ in found] if isinstance(image, (list, tuple)) else found[0]

    def alternatives(
        self,
        image: ImageLike | Sequence[ImageLike],
        count: int,
        search: SearchSettings = SearchSettings(),
    ) -> list[Caption] | list[list[Caption]]:
        """As `caption`, but the `count` best captions of an image, best first. A beam that is
        narrower than `count` is widened to it, which may find a better best one as well."""
        if not isinstance(image, (list, tuple)):
            return self.alternatives([image], count, search)[0]
        found = []
        for _, captions in self.alternatives_of_files(image, count, search):
            if isinstance(captions, Exception):
                raise captions
            found.append(captions)
        return found

    def gaze(self, image: ImageLike, caption: Caption | str) -> AttentionMaps:
        """Where in the image each word of the caption looked; the caption may be anyone's."""
        pixels = load_image(image, self.encoder.image_size)
        (features,) = self.encoder(pixels[None])
        return compute_attention(self.decoder, features, str(caption))

    def caption_files(
        self, paths: Iterable[ImageLike], search: SearchSettings = SearchSettings()
    ) -> Iterator[tuple[ImageLike, Caption | Exception]]:
        """For each path, in order, the best caption or the error that says why there is none."""
        for path, found in self.alternatives_of_files(paths, 1, search):
            yield path, found if isinstance(found, Exception) else found[0]

    def alternatives_of_files(
        self, paths: Iterable[ImageLike], count: int, search: SearchSettings = SearchSettings()
    ) -> Iterator[tuple[ImageLike, list[Caption] | Exception]]:
        """For each path, in order, the `count` best captions or the error that says why there are
        none. Memory does not grow with the number of images, but with those that fail one after
        the other, which are told when an image that does not, or the last one, was seen."""
        waiting: _Waiting = deque()
        for captions in self.decoder.alternatives(self._see(paths, waiting), search, count):
            yield from _failed(waiting)
            yield waiting.popleft()[0], captions
        yield from _failed(waiting)

    def _see(self, paths: Iterable[ImageLike], waiting: _Waiting) -> Iterator[np.ndarray]:
        """Feature maps of the images that can be read, batch after batch. All paths are added to
        those that wait for their captions, before their maps are handed out."""
        for batch in encode_images(self.encoder, paths):
            maps = [each for _, each in batch if isinstance(each, np.ndarray)]
            waiting.extend(
                (path, None if isinstance(each, np.ndarray) else each) for path, each in batch
            )
            if maps:
                yield np.stack(maps)


def _failed(waiting: _Waiting) -> Iterator[tuple[ImageLike, Exception]]:
    """Takes out those in front that cannot be captioned."""
    while waiting and waiting[0][1] is not None:
        yield waiting.popleft()
