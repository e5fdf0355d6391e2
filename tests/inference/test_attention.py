import numpy as np
import pytest

from captioning.data.vocabulary import START, UNKNOWN, Vocabulary
from captioning.inference.attention import AttentionMaps, compute_attention
from captioning.inference.decoder import Decoder

VOCABULARY = Vocabulary(["dog", "grass"])
DOG, GRASS = VOCABULARY.ids["dog"], VOCABULARY.ids["grass"]
FEATURES = np.array([[3, 0], [1, 0], [0, 2], [0, -2]], "float32")


def fake_decoder(has_attention: bool, ids_seen: list | None = None) -> Decoder:
    """The first of two features, summed over the cells, makes "dog" probable, the second "grass".
    The attention is on one of four cells: the one whose number is the last id modulo 4."""

    def step(inputs):
        ids, hidden, cell, totals = inputs
        if ids_seen is not None:
            ids_seen.append(ids[0, 0])
        log_probs = np.full((*ids.shape, len(VOCABULARY)), -1.0, "float32")
        log_probs[:, 0, [DOG, GRASS]] = totals - 5
        attention = np.eye(4, dtype="float32")[ids % 4]
        return [log_probs, hidden, cell, *([attention] if has_attention else [])]

    return Decoder(
        lambda inputs: [inputs[0].sum(axis=1)],
        step,
        VOCABULARY,
        longest_caption=5,
        feature_width=2,
        units=1,
    )


def test_a_decoder_with_attention_returns_its_own_weights():
    attention = compute_attention(fake_decoder(has_attention=True), FEATURES, "dog grass")
    assert (attention.words, attention.method) == (("dog", "grass"), "attention")
    np.testing.assert_array_equal(attention.weights, np.eye(4)[[START % 4, DOG % 4]])


def test_occlusion_weights_are_on_the_cells_that_make_a_word_probable():
    attention = compute_attention(fake_decoder(has_attention=False), FEATURES, "dog grass")
    assert (attention.words, attention.method) == (("dog", "grass"), "occlusion")
    # The last cell makes "grass" less probable: it has no weight.
    np.testing.assert_allclose(attention.weights, [[0.75, 0.25, 0, 0], [0, 0, 1, 0]], atol=1e-6)


def test_a_word_that_depends_on_no_cell_has_equal_weights():
    attention = compute_attention(fake_decoder(has_attention=False), np.zeros((4, 2)), "dog")
    np.testing.assert_allclose(attention.weights, [[0.25] * 4])


def test_attention_is_computed_for_any_caption_even_with_unknown_words():
    ids_seen = []
    attention = compute_attention(fake_decoder(True, ids_seen), FEATURES, "Grass, a dog!")
    assert attention.words == ("grass", "a", "dog")
    assert ids_seen == [START, GRASS, UNKNOWN]


@pytest.mark.parametrize("has_attention", [True, False])
@pytest.mark.parametrize("caption", ["", " ", "?!"])
def test_a_caption_without_words_is_refused(caption, has_attention):
    with pytest.raises(ValueError, match="Expected a caption of one word or more, got"):
        compute_attention(fake_decoder(has_attention), FEATURES, caption)


def test_occlusion_of_a_single_cell_is_refused():
    with pytest.raises(ValueError, match="2 cells or more for occlusion, got 1"):
        compute_attention(fake_decoder(has_attention=False), FEATURES[:1], "dog")


def test_maps_contain_the_cells_row_by_row():
    attention = AttentionMaps(("dog",), np.array([[0.1, 0.2, 0.3, 0.4]]), "attention")
    np.testing.assert_array_equal(attention.maps, [[[0.1, 0.2], [0.3, 0.4]]])


def test_maps_of_a_number_of_cells_that_is_not_a_square_are_refused():
    with pytest.raises(ValueError, match="square feature map.* got 6 cells"):
        _ = AttentionMaps(("dog",), np.full((1, 6), 1 / 6), "attention").maps
