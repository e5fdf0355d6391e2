"""Guided decoding: the beam search avoids words that people would probably not mention.

A content word with a word score below 0 (see `Confidence.score_words`) loses log-probability in
proportion to that score. One that the caption contains already loses a fixed amount as well.
Nothing is ever added, so log-probabilities still fall from word to word, as the beam search
expects.

Adding the scores of a second model in every step is known as shallow fusion (Gulcehre et al., "On
using monolingual corpora in neural machine translation", 2015). There, the second model is a
language model; here, it predicts words from the image.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from captioning.data.vocabulary import PADDING
from captioning.inference.beam_search import Hypothesis, ImageContext, State, Step
from captioning.inference.confidence import Confidence

# Chosen on Flickr8k's development split: docs/findings.md.
_WORD_WEIGHT = 8.0  # of a word score below 0, beside the log-probability
_REPETITION_PENALTY = 3.0  # of a content word, in log-probability: "a black dog and a black dog"


class Guide:
    """Guides the search of one decoder. It adds the word biases of an image to the image context,
    and the words of a beam to the state."""

    def __init__(self, confidence: Confidence, longest_caption: int):
        self._is_content = confidence.is_content
        self._penalties = _REPETITION_PENALTY * self._is_content  # (vocabulary,)
        self._longest_caption = longest_caption

    def extend_context(
        self, context: Sequence[np.ndarray], word_scores: np.ndarray
    ) -> ImageContext:
        """Appends the word biases (vocabulary,) to the context of an image with these word
        scores."""
        return *context, _word_biases(word_scores)

    def extend_state(self, initial_state: State) -> State:
        """Appends the words of a beam, the last one first, to the state: ids (longest_caption,),
        all padding so far."""
        return *initial_state, np.full(self._longest_caption, PADDING)

    def wrap(self, step: Step) -> Step:
        """Returns a `step` of `beam_search` whose log-probabilities contain biases and
        penalties."""

        def guided_step(
            ids: np.ndarray, state: State, image_context: ImageContext
        ) -> tuple[np.ndarray, State]:
            *state, past_ids = state  # (images, beams, longest_caption)
            *image_context, biases = image_context  # (images, vocabulary)
            log_probs, state = step(ids, tuple(state), tuple(image_context))
            log_probs = log_probs + biases[:, None]
            past_ids = np.concatenate([ids[:, :, None], past_ids[:, :, :-1]], axis=2)
            # A word that occurs twice is penalised once: it is assigned the same value twice.
            penalised = np.take_along_axis(log_probs, past_ids, axis=2) - self._penalties[past_ids]
            np.put_along_axis(log_probs, past_ids, penalised, axis=2)
            return log_probs, (*state, past_ids)

        return guided_step

    def without_guidance(self, hypothesis: Hypothesis, word_scores: np.ndarray) -> Hypothesis:
        """Takes biases and penalties out of the log-probability of a hypothesis."""
        content_ids = [word_id for word_id in hypothesis.ids if self._is_content[word_id]]
        repetitions = len(content_ids) - len(set(content_ids))
        guidance = _word_biases(word_scores[content_ids]).sum() - _REPETITION_PENALTY * repetitions
        return replace(hypothesis, log_prob=hypothesis.log_prob - float(guidance))


def _word_biases(word_scores: np.ndarray) -> np.ndarray:
    return _WORD_WEIGHT * word_scores.clip(max=0)
