import numpy as np
import pytest

from captioning.search import beam_search

END, A, B, C, START = range(5)


def step_of(table):
    """A fake model: `table` gives the next-id probabilities after each sequence of ids. The state
    holds the sequence, so that a wrongly carried state gives wrong words."""

    def step(ids, state, rows):
        (sequences,) = state
        assert sequences.shape == ids.shape == (len(rows), ids.shape[1])
        said = np.empty_like(sequences)
        for place in np.ndindex(ids.shape):
            said[place] = (*sequences[place], int(ids[place]))
        with np.errstate(divide="ignore"):
            log_probs = np.log([[table(one[1:]) for one in of_row] for of_row in said])
        return log_probs, (said,)

    return step


def empty_state(rows):
    state = np.empty((rows, 1), dtype=object)
    for row in range(rows):
        state[row, 0] = ()
    return (state,)


def search(table, rows=1, **options):
    options = {"max_length": 6, "beam_width": 2, **options}
    return beam_search(step_of(table), empty_state(rows), start=START, end=END, **options)


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


def test_rows_searched_together_find_what_each_finds_alone():
    def table_for(row):
        random = np.random.default_rng(row)
        rows = {}

        def table(sequence):
            if sequence not in rows:
                rows[sequence] = random.dirichlet([0.3] * 4 + [0.0001])
            return rows[sequence]

        return table

    tables = [table_for(row) for row in range(5)]

    def step(ids, state, rows):
        parts = [
            step_of(tables[row])(ids[index : index + 1], (state[0][index : index + 1],), [row])
            for index, row in enumerate(rows)
        ]
        log_probs = np.concatenate([part[0] for part in parts])
        return log_probs, (np.concatenate([part[1][0] for part in parts]),)

    options = {"start": START, "end": END, "max_length": 8, "beam_width": 3}
    together = beam_search(step, empty_state(5), **options)
    alone = [beam_search(step_of(table), empty_state(1), **options)[0] for table in tables]
    assert [[one.ids for one in row] for row in together] == [
        [one.ids for one in row] for row in alone
    ]
    assert len({row[0].ids for row in together}) > 1


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


def test_a_decided_row_is_not_run_any_longer():
    rows_run = []

    def table(sequence):
        rows_run.append(sequence)
        return [1.0, 0.0, 0.0, 0.0, 0.0]

    search(table, rows=3, beam_width=1, max_length=50)
    assert len(rows_run) == 3


def test_each_word_costs_one_step():
    lengths = []

    def table(sequence):
        lengths.append(len(sequence))
        return spell_abca(sequence)

    search(table, beam_width=1)
    assert lengths == [0, 1, 2, 3, 4]


def test_a_row_begins_with_one_beam_and_goes_on_with_as_many_as_asked_for():
    beams = []

    def step(ids, state, rows):
        beams.append(ids.shape)
        return step_of(spell_abca)(ids, state, rows)

    beam_search(step, empty_state(2), start=START, end=END, max_length=2, beam_width=3)
    assert beams == [(2, 1), (2, 3), (2, 3)]


def test_a_sentence_that_has_ended_does_not_go_on_though_there_are_fewer_ids_than_beams():
    def table(sequence):
        return [0.4, 0.3, 0.2, 0.1, 0.0]

    found = search(table, beam_width=9, max_length=3)[0]
    assert len(found) == 9
    assert all(END not in one.ids for one in found)


def test_no_rows_give_no_hypotheses():
    assert search(spell_abca, rows=0) == []


@pytest.mark.parametrize("options", [{"beam_width": 0}, {"max_length": 0}])
def test_a_beam_or_length_of_nothing_is_refused(options):
    with pytest.raises(ValueError, match="at least 1.*Received"):
        search(spell_abca, **options)
