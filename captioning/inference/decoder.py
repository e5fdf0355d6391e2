"""The caption network: feature maps -> sequences of words. It needs no Keras, so captioning starts
within a second. `captioning.inference.decoding` makes captions of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from captioning.data.vocabulary import END, PADDING, START, UNKNOWN, Vocabulary
from captioning.errors import UserError
from captioning.inference.beam_search import Hypothesis, ImageContext, State, beam_search
from captioning.inference.confidence import Confidence, load_confidence
from captioning.inference.encoder import ENCODER_BATCH_SIZE
from captioning.inference.guidance import Guide
from captioning.inference.model_cache import load_network
from captioning.inference.network_files import (
    DECODER_PREFILL,
    DECODER_STEP,
    require_decoder_layout,
    require_one_run,
)
from captioning.inference.openvino_runtime import (
    is_other_encoder,
    read_decoder_metadata,
    read_encoder_id,
)
from captioning.settings import BEAM_SEARCH, DEFAULT_ENCODER, SearchSettings

# Images whose captions are searched side by side: few, as the first captions wait for so many
# images, and a run that is killed loses them. Batches of 64 would take 2 % less time an image,
# encoder included, batches of 4 a tenth more.
SEARCH_BATCH_SIZE = 16

# Runs a network: arrays in the order of its inputs -> arrays in the order of its outputs.
RunNetwork = Callable[[list[np.ndarray]], Sequence[np.ndarray]]
# Feature maps (images, cells, feature_width), in one array or in several.
FeatureMaps = np.ndarray | Iterable[np.ndarray]


class Decoder:
    """The caption network and its vocabulary: predicts captions word by word from feature maps.
    Safe to call from several threads.

    `feature_width`: numbers in a cell of the feature maps; `longest_caption`: the limit of the
    search in words; `rarities`: see `rank_by_consensus`. These may be None: `encoder_id`, the ID of
    the encoder it was trained with; `fingerprint`, that of the weights; `confidence`, see
    `captioning.inference.confidence`.
    """

    def __init__(
        self,
        prefill: RunNetwork,
        step: RunNetwork,
        vocabulary: Vocabulary,
        *,
        longest_caption: int,
        feature_width: int,
        units: int,
        encoder_id: str | None = None,
        fingerprint: str | None = None,
        confidence: Confidence | None = None,
        search_batch_size: int = SEARCH_BATCH_SIZE,
    ):
        """`prefill([features])` returns the image context, computed once per image. `step([ids,
        hidden, cell, *image_context])` returns the log-probabilities of the next word (images,
        beams, vocabulary), the new hidden and cell state of the LSTM (images, beams, units) and, if
        the network attends to cells, its attention weights (images, beams, cells)."""
        self.encoder_id = encoder_id
        self.fingerprint = fingerprint
        self.confidence = confidence
        self.feature_width = feature_width
        self.vocabulary = vocabulary
        self.longest_caption = longest_caption
        self.rarities = vocabulary.rarities
        self._run_prefill = prefill
        self._run_step = step
        self._search_batch_size = search_batch_size
        self._units = units

    @classmethod
    def load(cls, folder: Path, vocabulary: Vocabulary, cache: Path | None = None) -> "Decoder":
        """Reads `decoder_prefill.xml`, `decoder_step.xml` and their .bin files in `folder`.
        `cache`: a folder for compiled networks, see `model_cache.load_network`. Raises
        FileNotFoundError if a file is missing, UserError if the two networks come from different
        exports or were trained with another vocabulary."""
        (prefill, run_prefill), (step, run_step) = (
            load_network(folder / name, cache=cache) for name in (DECODER_PREFILL, DECODER_STEP)
        )
        metadata = read_decoder_metadata(step, folder / DECODER_STEP)
        prefill_metadata = read_decoder_metadata(prefill, folder / DECODER_PREFILL)
        require_one_run(prefill_metadata, metadata, vocabulary, folder)
        require_decoder_layout(prefill, step, metadata, len(vocabulary), folder)
        return cls(
            run_prefill,
            run_step,
            vocabulary,
            longest_caption=int(metadata["longest_caption"]),
            feature_width=int(metadata["feature_width"]),
            units=int(metadata["units"]),
            encoder_id=read_encoder_id(step) or DEFAULT_ENCODER,  # older files have no ID
            fingerprint=metadata["weights"],
            confidence=load_confidence(folder, metadata, len(vocabulary)),
        )

    def require_encoder(self, encoder_id: str | None) -> None:
        """Raises UserError if the decoder was trained with another encoder. None matches all."""
        if is_other_encoder(self.encoder_id, encoder_id):
            raise UserError(
                f"Expected the encoder that the decoder was trained with, {self.encoder_id}, got "
                f"{encoder_id}. Restore that encoder, or extract the features and train again with "
                "this one."
            )

    def search(
        self, features: FeatureMaps, search: SearchSettings = BEAM_SEARCH
    ) -> Iterator[list[Hypothesis]]:
        """Yields for each image up to `search.beam_width` captions as word ids, the one with the
        highest `Hypothesis.score` first: plain beam search, whatever `search.decoding` is. Takes
        several arrays of feature maps one by one, when the search has room for them."""
        batches = (zip(*self.prefill(batch), strict=True) for batch in in_batches(features))
        return self.search_contexts(chain.from_iterable(batches), search)

    def search_contexts(
        self,
        image_contexts: Iterable[ImageContext],
        search: SearchSettings,
        guide: Guide | None = None,
    ) -> Iterator[list[Hypothesis]]:
        """Yields the same as `search`, from the context of each image, arrays (...). With a
        `guide`, the log-probabilities contain its guidance."""
        step, initial_state = self.step, tuple(part[0, 0] for part in self.initial_state(1))
        if guide:
            step, initial_state = guide.wrap(step), guide.extend_state(initial_state)
        return beam_search(
            step,
            initial_state,
            image_contexts,
            start_id=START,
            end_id=END,
            max_length=self.longest_caption,
            beam_width=search.beam_width,
            length_normalisation=search.length_normalisation,
            forbidden_ids=(PADDING, START, UNKNOWN),
            batch_size=self._search_batch_size,
        )

    def prefill(self, features: np.ndarray) -> ImageContext:
        """Returns the image context for `step`, arrays (images, ...), from feature maps (images,
        cells, feature_width)."""
        return tuple(self._run_prefill([features.astype("float32", copy=False)]))

    def initial_state(self, images: int) -> State:
        """Returns the LSTM's hidden and cell state before the first word, for one beam an image:
        two arrays float32 (images, 1, units)."""
        return tuple(np.zeros((2, images, 1, self._units), "float32"))

    def step(
        self, ids: np.ndarray, state: State, image_context: ImageContext
    ) -> tuple[np.ndarray, State]:
        """Takes the last ids (images, beams), the state and the image context. Returns the
        log-probabilities of the next word (images, beams, vocabulary) and the new state."""
        log_probs, state, _ = self.step_with_attention(ids, state, image_context)
        return log_probs, state

    def step_with_attention(
        self, ids: np.ndarray, state: State, image_context: ImageContext
    ) -> tuple[np.ndarray, State, np.ndarray | None]:
        """Returns the results of `step` and the attention weights (images, beams, cells), which sum
        to 1 over the cells; None if the network has no attention."""
        inputs = [ids.astype("int32"), *state, *image_context]
        log_probs, hidden, cell, *attention = self._run_step(inputs)
        return log_probs, (hidden, cell), attention[0] if attention else None


def in_batches(features: FeatureMaps) -> Iterable[np.ndarray]:
    """Returns the feature maps in batches; several arrays are batches already."""
    if not isinstance(features, np.ndarray):
        return features
    size = ENCODER_BATCH_SIZE
    return (features[first : first + size] for first in range(0, len(features), size))
