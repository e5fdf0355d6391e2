"""The exported networks, ready to run: images to features, features to captions.

Needs no Keras, so that captioning starts in a second. Not about the files that the networks lie in:
see `captioning.inference.network_files`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from captioning.data.vocabulary import END, PADDING, START, UNKNOWN, Vocabulary
from captioning.inference.beam_search import Hypothesis, State, beam_search
from captioning.inference.network_files import (
    DECODER_PREFILL,
    DECODER_STEP,
    ENCODER,
    ShapeByShape,
    compile_network,
    image_size,
    is_other_encoder,
    read_decoder_metadata,
    read_encoder_id,
    read_network,
)
from captioning.settings import DEFAULT_ENCODER, SearchSettings

# Images searched for side by side: one alone takes nearly four times as long, half as many take a
# tenth longer, twice as many are hardly faster.
SEARCH_BATCH_SIZE = 64
# Images that encoder and decoder look at together: more leave the caches and take more memory.
ENCODER_BATCH_SIZE = 4

Maps = np.ndarray | Iterable[np.ndarray]  # see `Decoder.search`


@dataclass(frozen=True, slots=True)  # a folder may hold very many images
class Caption:
    """A sentence and its log-probability (natural logarithm, the end included)."""

    text: str
    log_prob: float

    def __str__(self) -> str:
        return self.text


class Encoder:
    """The image network: photographs to feature maps.

    `image_size`: height and width of the images that it wants; `feature_width`: numbers a cell;
    `encoder_id`: see `captioning.inference.network_files.read_encoder_id`.
    """

    def __init__(self, folder: Path, precision: str = "f32"):
        """Reads `encoder.xml` and `encoder.bin` in `folder`. Floating-point layers are computed in
        `precision`: "f32", or "bf16", which is faster where there are units for it."""
        network = read_network(folder / ENCODER)
        self.encoder_id = read_encoder_id(network)
        self.image_size = image_size(network)
        self._network = compile_network(network, precision)
        of_output = self._network.output(0).partial_shape
        if len(of_output) != 3:
            raise ValueError(
                f"{folder / ENCODER} was written by an older version of this program. Wanted: "
                f"feature maps (batch, cells, feature_width). Received: {of_output}. Delete the "
                "folder, extract the features and train anew."
            )
        self.feature_width = of_output[2].get_length()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 RGB (batch, height, width, 3) of `image_size` -> float32 feature maps (batch,
        cells, feature_width), the cells of a grid row by row."""
        return self._network(images)[0].copy()


class Decoder:
    """The caption network, one word at a time, and its vocabulary: feature maps to captions.

    `look(features)` gives what the network knows of each image, computed once; `step([ids, hidden,
    cell, *seen])` gives log-probabilities of the next words (images, beams, vocabulary), the LSTM's
    new hidden and cell state, each (images, beams, units), and, if it attends to cells of the
    feature map, how much to each (images, beams, cells).
    """

    def __init__(
        self,
        look: Callable[[np.ndarray], Sequence[np.ndarray]],
        step: Callable[[list[np.ndarray]], Sequence[np.ndarray]],
        vocabulary: Vocabulary,
        longest_caption: int,
        feature_width: int,
        units: int,
        encoder_id: str | None = None,
    ):
        self.encoder_id = encoder_id
        self.feature_width = feature_width
        self.vocabulary = vocabulary
        self.longest_caption = longest_caption
        self._prefill = look
        self._step = step
        self._units = units

    @classmethod
    def load(cls, folder: Path, vocabulary: Vocabulary) -> "Decoder":
        """Reads `decoder_prefill.xml`, `decoder_step.xml` and their `.bin` files in `folder`. Raises
        ValueError if the two are not of one export, or trained with another vocabulary."""
        look, step = (read_network(folder / name) for name in (DECODER_PREFILL, DECODER_STEP))
        notes = read_decoder_metadata(step, folder / DECODER_STEP)
        if read_decoder_metadata(look, folder / DECODER_PREFILL) != notes:
            raise ValueError(
                f"{DECODER_PREFILL} and {DECODER_STEP} in {folder} do not belong together. Fetch "
                "both again, or export the model anew."
            )
        if notes["vocabulary"] != vocabulary.fingerprint:
            raise ValueError(
                f"The model in {folder} and the vocabulary do not belong together. Wanted: "
                f"vocabulary {notes['vocabulary']}. Received: {vocabulary.fingerprint}, of "
                f"{len(vocabulary)} words. Take both from one training run."
            )
        # Before encoders were noted, all were what is now the default.
        encoder_id = read_encoder_id(step) or DEFAULT_ENCODER
        look, step = ShapeByShape(look), compile_network(step)
        return cls(
            look,
            lambda inputs: step(inputs).to_tuple(),
            vocabulary,
            int(notes["longest_caption"]),
            int(notes["feature_width"]),
            int(notes["units"]),
            encoder_id,
        )

    def require_encoder(self, encoder_id: str | None) -> None:
        """Raises ValueError if the decoder was trained on feature maps of another encoder. None, on
        either side, cannot be told and is let pass."""
        if is_other_encoder(self.encoder_id, encoder_id):
            raise ValueError(
                "Encoder and decoder do not belong together. Wanted: the encoder that the decoder "
                f"was trained on, {self.encoder_id}. Received: {encoder_id}. Bring "
                "that encoder back, or extract the features and train anew with this one."
            )

    def caption(self, features: Maps, search: SearchSettings = SearchSettings()) -> list[Caption]:
        """The best caption for each image, see `search`."""
        return [best for best, *_ in self.alternatives(features, search, count=1)]

    def alternatives(
        self, features: Maps, search: SearchSettings, count: int
    ) -> Iterator[list[Caption]]:
        """For each image, see `search`, the `count` best captions that are found, best first; fewer
        if there are no more. A beam that is narrower than `count` is widened to it."""
        search = replace(search, beam_width=max(search.beam_width, count))
        for hypotheses in self.search(features, search):
            yield [
                Caption(self.vocabulary.decode(one.ids), one.log_prob) for one in hypotheses[:count]
            ]

    def search(
        self, features: Maps, search: SearchSettings = SearchSettings()
    ) -> Iterator[list[Hypothesis]]:
        """For each image up to `search.beam_width` captions as word ids, best first. `features` are
        feature maps (images, cells, feature_width), or any number of such arrays, one after the
        other, which are drawn as they are needed."""
        blocks = _blocks(features) if isinstance(features, np.ndarray) else features
        return beam_search(
            self.step,
            tuple(part[0, 0] for part in self.initial_state(1)),
            chain.from_iterable(zip(*self.prefill(some), strict=True) for some in blocks),
            start=START,
            end=END,
            max_length=self.longest_caption,
            beam_width=search.beam_width,
            length_normalisation=search.length_normalisation,
            never=(PADDING, START, UNKNOWN),
            at_once=SEARCH_BATCH_SIZE,
        )

    def prefill(self, features: np.ndarray) -> tuple[np.ndarray, ...]:
        """Feature maps (images, cells, feature_width) -> what `step` wants to know of the images,
        arrays of (images, ...)."""
        return tuple(self._prefill(features.astype("float32", copy=False)))

    def initial_state(self, images: int) -> State:
        """The state before the first word, for one beam an image."""
        return tuple(np.zeros((2, images, 1, self._units), "float32"))

    def step(
        self, ids: np.ndarray, state: State, seen: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, State]:
        """Last ids (images, beams), state and what was seen -> log-probabilities (images, beams,
        vocabulary) and the new state."""
        log_probs, state, _ = self.step_with_attention(ids, state, seen)
        return log_probs, state

    def step_with_attention(
        self, ids: np.ndarray, state: State, seen: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, State, np.ndarray | None]:
        """As `step`, and the share of its attention that each cell of the feature map got (images,
        beams, cells); None of a network without attention, or exported before it told."""
        log_probs, hidden, cell, *attention = self._step([ids.astype("int32"), *state, *seen])
        return log_probs, (hidden, cell), attention[0] if attention else None


def _blocks(features: np.ndarray) -> Iterator[np.ndarray]:
    """The same, some images after the other."""
    for first in range(0, len(features), ENCODER_BATCH_SIZE):
        yield features[first : first + ENCODER_BATCH_SIZE]
