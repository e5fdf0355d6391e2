"""Guided decoding: the beam search avoids words that people would probably not mention.

In each step, the log-probability of a word is lowered by its word score, if that is negative (see
`Confidence.score_words`), and by a penalty if the caption contains the word already. Adding the
scores of a second model is known as shallow fusion (Gulcehre et al., "On using monolingual corpora
in neural machine translation", 2015); here, that model knows the image, not the language.
"""

from dataclasses import replace

import numpy as np

from captioning.data.vocabulary import PADDING
from captioning.inference.beam_search import Hypothesis, ImageContext, State, Step
from captioning.inference.confidence import Confidence

# Chosen on Flickr8k's development split: docs/findings.md.
_WORD_WEIGHT = 8.0  # of a word score, beside the log-probability
_REPETITION_PENALTY = 3.0  # of a content word, in log-probability: "a black dog and a black dog"


class Guide:
    """Guides the search of one decoder. It adds the biases of an image to the image context, and
    the ids of a beam so far to the state."""

    def __init__(self, confidence: Confidence, longest_caption: int):
        self._penalties = _REPETITION_PENALTY * confidence.is_content  # (vocabulary,)
        self._longest_caption = longest_caption

    def extend_context(self, context: ImageContext, word_scores: np.ndarray) -> ImageContext:
        """Appends the biases (vocabulary,) to the context of an image with these word scores."""
        return *context, _biases(word_scores)

    def extend_state(self, initial_state: State) -> State:
        """Appends the ids of a beam before the first word (longest_caption,), all padding."""
        return *initial_state, np.full(self._longest_caption, PADDING)

    def guide(self, step: Step) -> Step:
        """Returns a `step` of `beam_search` whose log-probabilities contain the biases and the
        penalties."""

        def guided_step(
            ids: np.ndarray, state: State, image_context: ImageContext
        ) -> tuple[np.ndarray, State]:
            *state, past_ids = state  # (images, beams, longest_caption)
            *image_context, biases = image_context  # (images, vocabulary)
            log_probs, state = step(ids, tuple(state), tuple(image_context))
            past_ids = np.concatenate([ids[:, :, None], past_ids[:, :, :-1]], axis=2)
            log_probs = log_probs + biases[:, None]
            # An id that occurs twice gets the same value twice.
            penalised = np.take_along_axis(log_probs, past_ids, axis=2) - self._penalties[past_ids]
            np.put_along_axis(log_probs, past_ids, penalised, axis=2)
            return log_probs, (*state, past_ids)

        return guided_step

    def without_guidance(self, hypothesis: Hypothesis, word_scores: np.ndarray) -> Hypothesis:
        """Takes biases and penalties from the log-probability of a hypothesis."""
        ids = list(hypothesis.ids)
        penalty = self._penalties[ids].sum() - self._penalties[list(set(ids))].sum()
        guidance = _biases(word_scores)[ids].sum() - penalty
        return replace(hypothesis, log_prob=hypothesis.log_prob - float(guidance))


def _biases(word_scores: np.ndarray) -> np.ndarray:
    return _WORD_WEIGHT * word_scores.clip(max=0)
