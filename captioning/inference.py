"""The exported networks, ready to run: images to features, features to captions.

Runs on OpenVINO and needs no Keras, so that captioning starts in a second. `captioning.export`
writes the files that are read here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import openvino

from captioning.search import State, beam_search
from captioning.settings import SearchSettings
from captioning.text import END, PADDING, START, UNKNOWN, Vocabulary

ENCODER = "encoder.xml"
DECODER_START = "decoder_start.xml"
DECODER_STEP = "decoder_step.xml"

# What both decoder files say of themselves: which export they are of, the vocabulary, the limit of
# the search in words, the features that they want.
NOTES = ("weights", "vocabulary", "longest_caption", "feature_width")

# Images searched for side by side: more are no faster, and take memory.
_IMAGES_AT_ONCE = 100


@dataclass(frozen=True)
class Caption:
    """A sentence and its log-probability (natural logarithm, the end included)."""

    text: str
    log_prob: float

    def __str__(self) -> str:
        return self.text


class Encoder:
    """The image network: photographs to features."""

    def __init__(self, folder: Path):
        """Reads `encoder.xml` and `encoder.bin` in `folder`."""
        self._network = _compile(read_network(folder / ENCODER))
        _, height, width, _ = self._network.input(0).partial_shape
        self.image_size = (height.get_length(), width.get_length())
        self.feature_width = self._network.output(0).partial_shape[1].get_length()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 RGB (batch, height, width, 3) of `image_size` -> float32 (batch, feature_width)."""
        return self._network(images)[0].copy()


class Decoder:
    """The caption network, one word at a time, and its vocabulary: features to captions.

    `start(features)` gives the state before the first word; `step([ids, *state])` gives
    log-probabilities of the next words (rows, vocabulary), followed by those last parts of the
    state that a word changes. All arrays have the same rows in front.
    """

    def __init__(
        self,
        start: Callable[[np.ndarray], Sequence[np.ndarray]],
        step: Callable[[list[np.ndarray]], Sequence[np.ndarray]],
        vocabulary: Vocabulary,
        longest_caption: int,
        feature_width: int,
    ):
        self.feature_width = feature_width
        self._start = start
        self._step = step
        self._vocabulary = vocabulary
        self._longest_caption = longest_caption

    @classmethod
    def load(cls, folder: Path, vocabulary: Vocabulary) -> "Decoder":
        """Reads `decoder_start.xml`, `decoder_step.xml` and their `.bin` files in `folder`. Raises
        ValueError if the two are not of one export, or trained with another vocabulary."""
        start, step = (read_network(folder / name) for name in (DECODER_START, DECODER_STEP))
        notes = _notes(step, folder / DECODER_STEP)
        if _notes(start, folder / DECODER_START) != notes:
            raise ValueError(
                f"{DECODER_START} and {DECODER_STEP} in {folder} do not belong together. Fetch "
                "both again, or export the model anew."
            )
        if notes["vocabulary"] != vocabulary.fingerprint:
            raise ValueError(
                f"The model in {folder} and the vocabulary do not belong together. Wanted: "
                f"vocabulary {notes['vocabulary']}. Received: {vocabulary.fingerprint}, of "
                f"{len(vocabulary)} words. Take both from one training run."
            )
        start, step = _compile(start), _compile(step)
        return cls(
            lambda features: start(features).to_tuple(),
            lambda inputs: step(inputs).to_tuple(),
            vocabulary,
            int(notes["longest_caption"]),
            int(notes["feature_width"]),
        )

    def caption(
        self, features: np.ndarray, search: SearchSettings = SearchSettings()
    ) -> list[Caption]:
        """The best caption for each row of `features` (images, feature_width) float32."""
        return [best for best, *_ in self.alternatives(features, search, count=1)]

    def alternatives(
        self, features: np.ndarray, search: SearchSettings, count: int
    ) -> list[list[Caption]]:
        """For each row of `features`, the `count` best captions that the search finds, best first;
        fewer if there are no more. A beam that is narrower than `count` is widened to it."""
        captions = []
        for first in range(0, len(features), _IMAGES_AT_ONCE):
            found = beam_search(
                self.step,
                self.start(features[first : first + _IMAGES_AT_ONCE]),
                start=START,
                end=END,
                max_length=self._longest_caption,
                beam_width=max(search.beam_width, count),
                length_normalisation=search.length_normalisation,
                never=(PADDING, START, UNKNOWN),
            )
            captions += [
                [
                    Caption(self._vocabulary.decode(one.ids), one.log_prob)
                    for one in hypotheses[:count]
                ]
                for hypotheses in found
            ]
        return captions

    def start(self, features: np.ndarray) -> State:
        """Features (rows, feature_width) -> the state before the first word."""
        return tuple(self._start(features))

    def step(self, ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Last ids (rows,) and state -> log-probabilities (rows, vocabulary) and the new state."""
        log_probs, *changed = self._step([ids.astype("int32"), *state])
        return log_probs, (*state[: len(state) - len(changed)], *changed)


def read_network(path: Path) -> openvino.Model:
    """Reads an exported network. Raises FileNotFoundError or ValueError if it is not all there."""
    if not path.exists():
        raise FileNotFoundError(
            f"There is no {path}. Name the folder that holds the exported model, "
            "or train one with the notebook."
        )
    try:
        return _core().read_model(path)
    except RuntimeError as error:
        raise ValueError(
            f"{path} or the .bin file beside it is damaged or missing. Fetch both again, or export "
            "the model anew."
        ) from error


@cache
def _core() -> openvino.Core:
    core = openvino.Core()
    # Weights are read, not mapped, so that the files may be replaced while a model is in use.
    core.set_property({"ENABLE_MMAP": False})
    return core


def _compile(network: openvino.Model) -> openvino.CompiledModel:
    # Full precision: elsewhere the processor would choose, and captions differ between machines.
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    return _core().compile_model(network, "CPU", options)


def _notes(network: openvino.Model, path: Path) -> dict[str, str]:
    """What `captioning.export` wrote into the file beside the network."""
    try:
        return {key: str(network.get_rt_info(["captioning", key]).value) for key in NOTES}
    except RuntimeError as error:
        raise ValueError(
            f"{path} was not written by this program, or by an older one: it does not name its "
            "vocabulary. Export the model anew."
        ) from error
