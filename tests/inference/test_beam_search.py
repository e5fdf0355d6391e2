import numpy as np
import pytest

from captioning.inference.beam_search import beam_search

END, A, B, C, START = range(5)


def make_step(*models):
    """The step of fake models, one for each image: a model returns the probabilities of the next id
    after a sequence of ids. The image context is the number of the image, and the state contains
    the whole sequence, so that the state of a wrong beam leads to wrong ids."""

    def step(ids, state, image_context):
        (sequences,), (numbers,) = state, image_context
        assert sequences.shape == ids.shape == (len(numbers), ids.shape[1])
        longer = np.empty_like(sequences)
        for position in np.ndindex(ids.shape):
            longer[position] = (*sequences[position], int(ids[position]))
        with np.errstate(divide="ignore"):
            log_probs = np.log(
                [
                    [models[number % len(models)](sequence[1:]) for sequence in beams]
                    for number, beams in zip(numbers, longer, strict=True)
                ]
            )
        return log_probs, (longer,)

    return step


EMPTY_SEQUENCE = np.empty((), dtype=object)
EMPTY_SEQUENCE[()] = ()


def image_contexts(count):
    return ((np.array(number),) for number in range(count))


def search(*models, images=None, step=None, **options):
    options = {"max_length": 6, "beam_width": 2, "start_id": START, "end_id": END, **options}
    images = image_contexts(len(models)) if images is None else images
    return list(beam_search(step or make_step(*models), (EMPTY_SEQUENCE,), images, **options))


def spell_abca(sequence):
    next_id = (A, B, C, A, END)[len(sequence)]
    return [0.96 if next_id == word_id else 0.01 for word_id in range(5)]


# After A the model is unsure, after B it is sure: greedy search chooses A.
GARDEN_PATH = {
    (): [0.0, 0.6, 0.4, 0.0, 0.0],
    (A,): [0.1, 0.3, 0.3, 0.3, 0.0],
    (B,): [0.0, 0.0, 0.0, 1.0, 0.0],
    (B, C): [1.0, 0.0, 0.0, 0.0, 0.0],
}


def garden_path(sequence):
    return GARDEN_PATH.get(sequence, [1.0, 0.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("beam_width", [1, 2, 3, 5])
def test_a_model_that_spells_a_sentence_is_followed_to_its_end(beam_width):
    best = search(spell_abca, beam_width=beam_width)[0][0]
    assert best.ids == (A, B, C, A)
    assert best.log_prob == pytest.approx(5 * np.log(0.96))
    assert best.finished


def test_greedy_search_takes_the_most_probable_id_each_time():
    assert search(garden_path, beam_width=1)[0][0].ids == (A, A)


def test_greedy_search_ends_only_when_the_end_is_the_most_probable_id():
    def model(sequence):  # the end comes second until there are four ids
        return [0.4, 0.6, 0.0, 0.0, 0.0] if len(sequence) < 4 else [1.0, 0.0, 0.0, 0.0, 0.0]

    best = search(model, beam_width=1, length_normalisation=0.0)[0][0]
    assert best.ids == (A, A, A, A)  # of probability 0.13; to end at once has 0.4


def test_a_wider_beam_finds_the_more_probable_sequence():
    best, second = search(garden_path, beam_width=2)[0]
    assert best.ids == (B, C)
    assert best.log_prob == pytest.approx(np.log(0.4))
    assert second.ids == (A, A)
    assert second.log_prob == pytest.approx(np.log(0.6 * 0.3))


def test_hypotheses_are_sorted_best_first_and_limited_to_the_beam_width():
    hypotheses = search(garden_path, beam_width=3)[0]
    assert len(hypotheses) == 3
    log_probs = [hypothesis.log_prob for hypothesis in hypotheses]
    assert log_probs == sorted(log_probs, reverse=True)
    assert len({hypothesis.ids for hypothesis in hypotheses}) == 3


def test_length_normalisation_prefers_the_longer_sequence():
    def model(sequence):  # END at once: 0.3; A B END: 0.7 * 0.4 = 0.28
        return {
            (): [0.3, 0.7, 0.0, 0.0, 0.0],
            (A,): [0.4, 0.0, 0.4, 0.2, 0.0],
        }.get(sequence, [1.0, 0.0, 0.0, 0.0, 0.0])

    assert search(model, length_normalisation=0.0)[0][0].ids == ()
    assert search(model, length_normalisation=1.0)[0][0].ids == (A, B)


def random_model(seed, concentration=(0.3, 0.3, 0.3, 0.3, 1e-4)):
    random = np.random.default_rng(seed)
    probabilities = {}

    def model(sequence):
        if sequence not in probabilities:
            probabilities[sequence] = random.dirichlet(concentration)
        return probabilities[sequence]

    return model


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 100])
def test_a_batch_gives_the_hypotheses_of_each_image_alone(batch_size):
    models = [random_model(seed) for seed in range(9)]
    options = {"max_length": 8, "beam_width": 3}
    alone = [search(model, **options)[0] for model in models]
    together = search(*models, batch_size=batch_size, **options)
    assert [[hypothesis.ids for hypothesis in hypotheses] for hypotheses in together] == [
        [hypothesis.ids for hypothesis in hypotheses] for hypotheses in alone
    ]
    assert len({best.ids for best, *_ in together}) > 1


def test_a_wide_beam_finds_the_best_of_all_sequences():
    model = random_model(7, concentration=(1.0, 1.0, 1.0, 1.0, 1e-9))

    def all_sequences(prefix=(), log_prob=0.0):
        probabilities = model(prefix)
        yield prefix, log_prob + np.log(probabilities[END])
        if len(prefix) < 3:
            for next_id in (A, B, C):
                yield from all_sequences(
                    (*prefix, next_id), log_prob + np.log(probabilities[next_id])
                )

    expected = max(all_sequences(), key=lambda sequence: sequence[1])
    best = search(model, beam_width=27, max_length=3, forbidden_ids=(START,))[0][0]
    assert best.ids == expected[0]
    assert best.log_prob == pytest.approx(expected[1])


def test_forbidden_ids_are_never_chosen():
    for hypothesis in search(spell_abca, forbidden_ids=(B,), beam_width=3)[0]:
        assert B not in hypothesis.ids


def test_the_length_limit_truncates_a_sequence_that_does_not_end():
    def endless(sequence):
        return [0.0, 0.9, 0.1, 0.0, 0.0]

    best = search(endless, max_length=4)[0][0]
    assert best.ids == (A, A, A, A)
    assert not best.finished


def test_a_sequence_may_end_at_the_length_limit():
    best = search(spell_abca, max_length=4)[0][0]
    assert best.ids == (A, B, C, A)
    assert best.finished


def model_of_length(length):
    def model(sequence):
        return [1.0, 0, 0, 0, 0] if len(sequence) == length else [0, 1.0, 0, 0, 0]

    return model


def recording(step, images):
    """The same step, which adds the numbers of the images of each call to `images`."""

    def record_and_step(ids, state, image_context):
        images.append(image_context[0].tolist())
        return step(ids, state, image_context)

    return record_and_step


def test_the_next_image_takes_the_row_of_a_finished_one():
    images = []
    step = recording(make_step(*map(model_of_length, [3, 0, 1, 0])), images)
    results = search(images=image_contexts(4), step=step, beam_width=1, batch_size=2)
    assert [len(best.ids) for best, *_ in results] == [3, 0, 1, 0]
    assert images == [[0, 1], [0, 2], [0, 2], [0, 3]]


def test_rows_become_fewer_when_no_image_is_left():
    images = []
    step = recording(make_step(*map(model_of_length, [0, 2, 1])), images)
    search(images=image_contexts(3), step=step, beam_width=1)
    assert list(map(sorted, images)) == [[0, 1, 2], [1, 2], [1]]


def test_images_are_taken_when_there_is_room_for_them():
    taken = []

    def images():
        for image in image_contexts(100):
            taken.append(image)
            yield image

    results = beam_search(
        make_step(model_of_length(1)),
        (EMPTY_SEQUENCE,),
        images(),
        start_id=START,
        end_id=END,
        max_length=6,
        beam_width=1,
        batch_size=4,
    )
    assert taken == []
    next(results)
    assert len(taken) == 4


def test_each_word_costs_one_step():
    lengths = []

    def model(sequence):
        lengths.append(len(sequence))
        return spell_abca(sequence)

    search(model, beam_width=1)
    assert lengths == [0, 1, 2, 3, 4]


def test_a_finished_sequence_is_not_extended_even_if_there_are_fewer_ids_than_beams():
    def model(sequence):
        return [0.4, 0.3, 0.2, 0.1, 0.0]

    hypotheses = search(model, beam_width=9, max_length=3)[0]
    assert len(hypotheses) == 9
    assert all(END not in hypothesis.ids for hypothesis in hypotheses)


def test_no_images_give_no_hypotheses():
    assert search(images=[], step=make_step(spell_abca)) == []


@pytest.mark.parametrize("options", [{"beam_width": 0}, {"max_length": 0}, {"batch_size": 0}])
def test_a_width_length_or_batch_size_of_zero_is_refused(options):
    with pytest.raises(ValueError, match="of at least 1, got"):
        search(spell_abca, **options)
