"""The journey from photograph to sentence."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from captioning.features import encode_files
from captioning.inference import Caption, Decoder, Encoder
from captioning.settings import Files, SearchSettings
from captioning.text import Vocabulary


class Captioner:
    """Captions photographs with a trained model.

    >>> captioner = Captioner.load()
    >>> captioner.caption("photo.jpg").text  # doctest: +SKIP
    'a dog is running through the grass'
    """

    def __init__(self, encoder: Encoder, decoder: Decoder):
        if encoder.feature_width != decoder.feature_width:
            raise ValueError(
                "Encoder and decoder do not belong together. Wanted: features of "
                f"{decoder.feature_width} numbers. Received: {encoder.feature_width}. Take both "
                "from one training run."
            )
        self.encoder = encoder
        self.decoder = decoder

    @classmethod
    def load(cls, root: str | Path = Files().root) -> "Captioner":
        """The trained model below the folder `root`: `models/` and `tokenizer.p`. By default the
        one that lies beside this package. Raises FileNotFoundError where a part is missing and
        ValueError where parts do not belong together."""
        files = Files(Path(root))
        vocabulary = Vocabulary.load(files.vocabulary)
        return cls(Encoder(files.models), Decoder.load(files.models, vocabulary))

    def caption(self, path: str | Path, search: SearchSettings = SearchSettings()) -> Caption:
        """The best caption of one image file. Raises FileNotFoundError or ValueError where there
        is no image that can be read."""
        ((_, caption),) = self.caption_files([Path(path)], search)
        if isinstance(caption, Exception):
            raise caption
        return caption

    def caption_files(
        self, paths: Iterable[Path], search: SearchSettings = SearchSettings()
    ) -> Iterator[tuple[Path, Caption | Exception]]:
        """For each path, in order, the best caption or the error that says why there is none."""
        for batch in encode_files(self.encoder, paths):
            rows = [features for _, features in batch if not isinstance(features, Exception)]
            captions = iter(self.decoder.caption(np.stack(rows), search) if rows else ())
            for path, features in batch:
                yield path, features if isinstance(features, Exception) else next(captions)
