import pytest

from tools.judge_captions import count_verdicts

CAPTIONS = [
    {"caption": caption, "decoding": decoding}
    for caption, decoding in (
        ("1a", "beam"),
        ("1b", "consensus"),
        ("2a", "consensus"),
        ("2b", "beam"),
    )
]


def reading(*verdicts):
    """One reader's rows, from (caption, verdict, kinds)."""
    return [dict(zip(("caption", "verdict", "kinds"), row, strict=True)) for row in verdicts]


FIRST = reading(("1a", "right", ""), ("1b", "wrong", "action place"), ("2a", "minor", "colour"),
                ("2b", "wrong", "action"))  # fmt: skip
SECOND = reading(("1a", "right", ""), ("1b", "wrong", "place"), ("2a", "right", ""),
                 ("2b", "wrong", "object"))  # fmt: skip


def test_verdicts_are_counted_for_each_decoding():
    assert list(count_verdicts(CAPTIONS, [FIRST])) == [
        "reader 1, beam: 1 right, 0 minor, 1 wrong of 2; errors: action 1",
        "reader 1, consensus: 0 right, 1 minor, 1 wrong of 2; errors: action 1, place 1, colour 1",
    ]


def test_the_agreement_of_two_readers_is_stated_beyond_chance():
    """Three of four verdicts are equal. By chance they would be with (1·2 + 1·0 + 2·2) / 16."""
    *_, agreement = count_verdicts(CAPTIONS, [FIRST, SECOND])
    assert agreement == "agreement: 75% of the verdicts, Cohen's kappa 0.60"


def test_the_confidence_is_scored_by_captions_that_no_reader_finds_wrong():
    confidences = ("0.9", "0.3", "0.5", "0.9")  # of 1a, right, and of 2b, wrong, the same
    captions = [row | {"confidence": c} for row, c in zip(CAPTIONS, confidences, strict=True)]
    *_, beam, consensus = count_verdicts(captions, [FIRST, SECOND])
    ending = "for captions that no reader finds wrong"
    assert beam == f"confidence, beam: AUROC 0.500 {ending}"
    assert consensus == f"confidence, consensus: AUROC 1.000 {ending}"


def test_a_missing_or_misspelt_verdict_is_refused():
    with pytest.raises(ValueError, match="Expected verdicts on all 4 captions, got 3 .* 2b"):
        list(count_verdicts(CAPTIONS, [FIRST[:3]]))
    with pytest.raises(ValueError, match="Expected right, minor or wrong, got fine"):
        list(count_verdicts(CAPTIONS, [[*FIRST[:3], {**FIRST[3], "verdict": "fine"}]]))
