import numpy as np
import pytest

from captioning.inference.beam_search import beam_search

END, A, B, C, START = range(5)


def step_of(*tables):
    """A fake model: `tables` give the next-id probabilities after each sequence of ids, one for
    each image, of which its number is seen. The state holds the sequence, so that a wrongly
    carried state gives wrong words."""

    def step(ids, state, seen):
        (sequences,), (numbers,) = state, seen
        assert sequences.shape == ids.shape == (len(numbers), ids.shape[1])
        said = np.empty_like(sequences)
        for place in np.ndindex(ids.shape):
            said[place] = (*sequences[place], int(ids[place]))
        with np.errstate(divide="ignore"):
            log_probs = np.log(
                [
                    [tables[number % len(tables)](one[1:]) for one in of_row]
                    for number, of_row in zip(numbers, said, strict=True)
                ]
            )
        return log_probs, (said,)

    return step


NOTHING_SAID = np.empty((), dtype=object)
NOTHING_SAID[()] = ()


def numbered(images):
    return ((np.array(number),) for number in range(images))


def search(*tables, images=None, step=None, **options):
    options = {"max_length": 6, "beam_width": 2, "start": START, "end": END, **options}
    images = numbered(len(tables)) if images is None else images
    return list(beam_search(step or step_of(*tables), (NOTHING_SAID,), images, **options))


def spell_abca(sequence):
    word = (A, B, C, A, END)[len(sequence)]
    return [0.96 if word == each else 0.01 for each in range(5)]


# After A the model is unsure, after B it is sure: greedy search falls for A.
GARDEN_PATH = {
    (): [0.0, 0.6, 0.4, 0.0, 0.0],
    (A,): [0.1, 0.3, 0.3, 0.3, 0.0],
    (B,): [0.0, 0.0, 0.0, 1.0, 0.0],
    (B, C): [1.0, 0.0, 0.0, 0.0, 0.0],
}


def garden_path(sequence):
    return GARDEN_PATH.get(sequence, [1.0, 0.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("beam_width", [1, 2, 3, 5])
def test_a_model_that_spells_a_sentence_is_heard_out(beam_width):
    best = search(spell_abca, beam_width=beam_width)[0][0]
    assert best.ids == (A, B, C, A)
    assert best.log_prob == pytest.approx(5 * np.log(0.96))
    assert best.finished


def test_greedy_search_takes_the_likeliest_word_each_time():
    assert search(garden_path, beam_width=1)[0][0].ids == (A, A)


def test_greedy_search_does_not_end_before_the_end_is_the_likeliest_word():
    def table(sequence):  # at every place the end comes second, until four words are said
        return [0.4, 0.6, 0.0, 0.0, 0.0] if len(sequence) < 4 else [1.0, 0.0, 0.0, 0.0, 0.0]

    best = search(table, beam_width=1, length_normalisation=0.0)[0][0]
    assert best.ids == (A, A, A, A)  # of probability 0.13, where ending at once would have 0.4


def test_a_wider_beam_finds_the_likelier_sentence():
    best, second = search(garden_path, beam_width=2)[0]
    assert best.ids == (B, C)
    assert best.log_prob == pytest.approx(np.log(0.4))
    assert second.ids == (A, A)
    assert second.log_prob == pytest.approx(np.log(0.6 * 0.3))


def test_hypotheses_come_best_first_and_no_more_than_the_beam_is_wide():
    found = search(garden_path, beam_width=3)[0]
    assert len(found) == 3
    assert [one.log_prob for one in found] == sorted((one.log_prob for one in found), reverse=True)
    assert len({one.ids for one in found}) == 3


def test_length_normalisation_prefers_the_longer_of_equally_likely_words():
    def table(sequence):  # END at once: 0.3; A B END: 0.7 * 0.4 = 0.28
        return {
            (): [0.3, 0.7, 0.0, 0.0, 0.0],
            (A,): [0.4, 0.0, 0.4, 0.2, 0.0],
        }.get(sequence, [1.0, 0.0, 0.0, 0.0, 0.0])

    assert search(table, length_normalisation=0.0)[0][0].ids == ()
    assert search(table, length_normalisation=1.0)[0][0].ids == (A, B)


def random_table(seed):
    random = np.random.default_rng(seed)
    rows = {}

    def table(sequence):
        if sequence not in rows:
            rows[sequence] = random.dirichlet([0.3] * 4 + [0.0001])
        return rows[sequence]

    return table


@pytest.mark.parametrize("at_once", [1, 2, 3, 4, 100])
def test_images_searched_together_find_what_each_finds_alone(at_once):
    tables = [random_table(seed) for seed in range(9)]
    options = {"max_length": 8, "beam_width": 3}
    alone = [search(table, **options)[0] for table in tables]
    together = search(*tables, at_once=at_once, **options)
    assert [[one.ids for one in found] for found in together] == [
        [one.ids for one in found] for found in alone
    ]
    assert len({found[0].ids for found in together}) > 1


def test_a_wide_beam_finds_the_best_of_all_sentences():
    random = np.random.default_rng(7)
    rows = {}

    def table(sequence):
        if sequence not in rows:
            rows[sequence] = random.dirichlet([1.0, 1.0, 1.0, 1.0, 1e-9])
        return rows[sequence]

    def all_sentences(prefix=(), log_prob=0.0):
        probabilities = table(prefix)
        yield prefix, log_prob + np.log(probabilities[END])
        if len(prefix) < 3:
            for word in (A, B, C):
                yield from all_sentences((*prefix, word), log_prob + np.log(probabilities[word]))

    expected = max(all_sentences(), key=lambda one: one[1])
    best = search(table, beam_width=27, max_length=3, never=(START,))[0][0]
    assert best.ids == expected[0]
    assert best.log_prob == pytest.approx(expected[1])


def test_ids_that_are_never_to_be_chosen_are_not():
    for hypothesis in search(spell_abca, never=(B,), beam_width=3)[0]:
        assert B not in hypothesis.ids


def test_the_length_limit_cuts_a_sentence_that_does_not_end():
    def endless(sequence):
        return [0.0, 0.9, 0.1, 0.0, 0.0]

    best = search(endless, max_length=4)[0][0]
    assert best.ids == (A, A, A, A)
    assert not best.finished


def test_a_sentence_may_end_right_at_the_length_limit():
    best = search(spell_abca, max_length=4)[0][0]
    assert best.ids == (A, B, C, A)
    assert best.finished


def ends_after(words):
    def table(sequence):
        return [1.0, 0, 0, 0, 0] if len(sequence) == words else [0, 1.0, 0, 0, 0]

    return table


def watched(step, rows):
    def watching(ids, state, seen):
        rows.append(seen[0].tolist())
        return step(ids, state, seen)

    return watching


def test_a_decided_image_gives_its_row_to_the_next():
    rows = []
    step = watched(step_of(*map(ends_after, [3, 0, 1, 0])), rows)
    found = search(images=numbered(4), step=step, beam_width=1, at_once=2)
    assert [len(best.ids) for best, *_ in found] == [3, 0, 1, 0]
    assert rows == [[0, 1], [0, 2], [0, 2], [0, 3]]


def test_when_no_image_is_left_the_decided_are_not_run_any_longer():
    rows = []
    step = watched(step_of(*map(ends_after, [0, 2, 1])), rows)
    search(images=numbered(3), step=step, beam_width=1)
    assert list(map(sorted, rows)) == [[0, 1, 2], [1, 2], [1]]


def test_images_are_drawn_when_there_is_room_for_them():
    drawn = []

    def images():
        for image in numbered(100):
            drawn.append(image)
            yield image

    found = beam_search(
        step_of(ends_after(1)),
        (NOTHING_SAID,),
        images(),
        start=START,
        end=END,
        max_length=6,
        beam_width=1,
        at_once=4,
    )
    assert drawn == []
    next(found)
    assert len(drawn) == 4


def test_each_word_costs_one_step():
    lengths = []

    def table(sequence):
        lengths.append(len(sequence))
        return spell_abca(sequence)

    search(table, beam_width=1)
    assert lengths == [0, 1, 2, 3, 4]


def test_a_sentence_that_has_ended_does_not_go_on_though_there_are_fewer_ids_than_beams():
    def table(sequence):
        return [0.4, 0.3, 0.2, 0.1, 0.0]

    found = search(table, beam_width=9, max_length=3)[0]
    assert len(found) == 9
    assert all(END not in one.ids for one in found)


def test_no_images_give_no_hypotheses():
    assert search(images=[], step=step_of(spell_abca)) == []


@pytest.mark.parametrize("options", [{"beam_width": 0}, {"max_length": 0}, {"at_once": 0}])
def test_a_beam_or_length_of_nothing_is_refused(options):
    with pytest.raises(ValueError, match="at least 1.*Received"):
        search(spell_abca, **options)
