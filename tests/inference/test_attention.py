import numpy as np
import pytest

from captioning.data.vocabulary import START, UNKNOWN, Vocabulary
from captioning.inference.attention import AttentionMaps, compute_attention
from captioning.inference.networks import Decoder

VOCABULARY = Vocabulary(["dog", "grass"])
DOG, GRASS = VOCABULARY.ids["dog"], VOCABULARY.ids["grass"]


def decoder(tells_attention: bool, heard: list | None = None) -> Decoder:
    """Of two features a cell: the first, summed over cells, makes dogs likely, the second grass.
    It looks at the cell that the last word's id counts, of four."""

    def step(inputs):
        ids, hidden, cell, totals = inputs
        if heard is not None:
            heard.append(ids[0, 0])
        log_probs = np.full((*ids.shape, len(VOCABULARY)), -1.0, "float32")
        log_probs[:, 0, [DOG, GRASS]] = totals - 5
        attention = np.eye(4, dtype="float32")[ids % 4]
        return [log_probs, hidden, cell, *([attention] if tells_attention else [])]

    return Decoder(lambda features: [features.sum(axis=1)], step, VOCABULARY, 5, 2, 1)


FEATURES = np.array([[3, 0], [1, 0], [0, 2], [0, -2]], "float32")


def test_a_decoder_with_attention_is_asked_before_each_word():
    gaze = compute_attention(decoder(tells_attention=True), FEATURES, "dog grass")
    assert (gaze.words, gaze.method) == (("dog", "grass"), "attention")
    np.testing.assert_array_equal(gaze.weights, np.eye(4)[[START % 4, DOG % 4]])


def test_without_attention_words_look_where_their_probability_comes_from():
    gaze = compute_attention(decoder(tells_attention=False), FEATURES, "dog grass")
    assert (gaze.words, gaze.method) == (("dog", "grass"), "occlusion")
    # the last cell makes grass less likely: nobody looked there
    np.testing.assert_allclose(gaze.weights, [[0.75, 0.25, 0, 0], [0, 0, 1, 0]], atol=1e-6)


def test_a_word_that_depends_on_no_cell_looked_everywhere_alike():
    gaze = compute_attention(decoder(tells_attention=False), np.zeros((4, 2)), "dog")
    np.testing.assert_allclose(gaze.weights, [[0.25] * 4])


def test_any_sentence_may_be_asked_about_also_with_words_never_learnt():
    heard = []
    gaze = compute_attention(decoder(True, heard), FEATURES, "Grass, a dog!")
    assert gaze.words == ("grass", "a", "dog")
    assert heard == [START, GRASS, UNKNOWN]


@pytest.mark.parametrize("tells_attention", [True, False])
def test_a_caption_without_words_looked_nowhere(tells_attention):
    gaze = compute_attention(decoder(tells_attention), FEATURES, "")
    assert gaze.words == ()
    assert gaze.weights.shape == (0, 4)


def test_occlusion_of_the_only_cell_is_refused():
    with pytest.raises(ValueError, match="2 cells or more. Received: 1"):
        compute_attention(decoder(tells_attention=False), FEATURES[:1], "dog")


def test_cells_are_laid_out_row_by_row():
    gaze = AttentionMaps(("dog",), np.array([[0.1, 0.2, 0.3, 0.4]]), "attention")
    np.testing.assert_array_equal(gaze.maps, [[[0.1, 0.2], [0.3, 0.4]]])


def test_cells_that_make_no_square_are_refused():
    with pytest.raises(ValueError, match="square feature map.* Received: 6 cells"):
        _ = AttentionMaps(("dog",), np.full((1, 6), 1 / 6), "attention").maps
