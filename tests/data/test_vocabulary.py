import hashlib
import pickle
import random
import zipfile

import pytest

from captioning.data.vocabulary import (
    END,
    PADDING,
    RESERVED,
    START,
    UNKNOWN,
    Vocabulary,
    clean_caption,
    has_spaces,
)

CAPTIONS = ["a dog runs", "a dog sleeps", "a cat"]


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("A child in a pink dress .", "a child in a pink dress"),
        ("A man in a T-shirt", "a man in a t shirt"),
        ("A black-and-white dog", "a black and white dog"),
        ("dogs — two of them–play", "dogs two of them play"),
        ("a man/woman", "a man woman"),
        ("A dog's ball , isn't it ?", "a dogs ball isnt it"),
        ('The sign says " stop "', "the sign says stop"),
        ("Player #7 of 11", "player 7 of 11"),
        ("  many \t blanks  ", "many blanks"),
        ("un café", "un café"),
        ("snake_case", "snake case"),
        ("grass.The man,a boy", "grass the man a boy"),
        ("Washington D.C.", "washington d c"),
        (" . ", ""),
        ("", ""),
        ("<start> end <END>", "start end end"),
    ],
)
def test_cleaning_keeps_every_word(caption, cleaned):
    assert clean_caption(caption) == cleaned


def test_cleaning_a_cleaned_caption_changes_nothing():
    random.seed(0)
    letters = "abcXYZ019 -–'’.,#\"/&()éß\t"
    for _ in range(300):
        cleaned = clean_caption("".join(random.choices(letters, k=30)))
        assert clean_caption(cleaned) == cleaned


def test_reserved_ids_come_first_and_are_not_words():
    vocabulary = Vocabulary.from_captions(CAPTIONS, min_word_count=1)
    assert (PADDING, START, END, UNKNOWN) == (0, 1, 2, 3)
    assert tuple(vocabulary.words[:4]) == RESERVED
    assert not any(clean_caption(reserved) == reserved for reserved in RESERVED)


def test_words_are_sorted_by_frequency_then_by_alphabet():
    vocabulary = Vocabulary.from_captions(CAPTIONS, min_word_count=1)
    assert vocabulary.words[4:] == ["a", "dog", "cat", "runs", "sleeps"]
    assert len(vocabulary) == 9


def test_rare_words_are_left_out_and_encoded_as_unknown():
    vocabulary = Vocabulary.from_captions(CAPTIONS, min_word_count=2)
    assert vocabulary.words[4:] == ["a", "dog"]
    assert vocabulary.encode("a cat") == [START, 4, UNKNOWN, END]


def test_decoding_is_the_inverse_of_encoding():
    vocabulary = Vocabulary.from_captions(CAPTIONS, min_word_count=1)
    for caption in [*CAPTIONS, ""]:
        assert vocabulary.decode(vocabulary.encode(caption)) == caption


def test_decoding_stops_at_the_end_and_skips_padding():
    vocabulary = Vocabulary.from_captions(CAPTIONS, min_word_count=1)
    assert vocabulary.decode([START, 4, 5, END, 6, PADDING]) == "a dog"


def test_start_and_end_are_also_ordinary_words():
    vocabulary = Vocabulary.from_captions(["start of a race", "end of a race"], min_word_count=1)
    assert vocabulary.decode(vocabulary.encode("start and end of a race")) == "start end of a race"


def test_a_saved_vocabulary_is_loaded_with_the_same_ids(tmp_path):
    vocabulary = Vocabulary.from_captions(CAPTIONS, min_word_count=1)
    vocabulary.save(tmp_path / "tokenizer.p")
    loaded = Vocabulary.load(tmp_path / "tokenizer.p")
    assert loaded.ids == vocabulary.ids
    assert loaded.fingerprint == vocabulary.fingerprint


def test_the_vocabulary_is_saved_as_a_plain_list(tmp_path):
    Vocabulary(["a", "dog"]).save(tmp_path / "tokenizer.p")
    assert pickle.loads((tmp_path / "tokenizer.p").read_bytes()) == ["a", "dog"]


def test_the_fingerprint_depends_on_the_order_of_the_words():
    assert Vocabulary(["a", "dog"]).fingerprint != Vocabulary(["dog", "a"]).fingerprint


def test_a_repeated_word_is_refused():
    with pytest.raises(ValueError, match="every word of a vocabulary once, got \\['dog'\\]"):
        Vocabulary(["dog", "a", "dog"])


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("ශ්\u200dරී ලංකා", "ශ්\u200dරී ලංකා"),  # Sinhala, with a joiner
        ("র\u200d্যাব আসে", "র\u200d্যাব আসে"),  # Bengali
        ("مرد می\u200cدود", "مرد می\u200cدود"),  # Persian, with a non-joiner
        ("\u200da dog\u200d , \u200c .", "a dog"),
        ("İki köpek", "iki köpek"),  # Turkish
        ("I\u0307ki", "iki"),
        ("a dog ❤️ runs", "a dog runs"),
        ("1️⃣ dog", "1 dog"),
        ("👨\u200d👩\u200d👧 👍🏽 a family", "a family"),
        ("soft\u00adhyphen", "softhyphen"),
        ("\u3164 \ufeffa\u2060 dog\u200f", "a dog"),
        ("\u0301 a", "a"),  # a mark without a letter
        ("ក\u200bខ", "ក ខ"),  # the zero-width space separates words
    ],
)
def test_joiners_stay_in_words_and_invisible_characters_vanish(caption, cleaned):
    assert clean_caption(caption) == cleaned
    assert clean_caption(cleaned) == cleaned


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("L'homme près de l'eau", "l homme près de l eau"),
        ("C’est l’été , qu'il n'aime", "c est l été qu il n aime"),
        ("jusqu'à aujourd'hui", "jusqu à aujourdhui"),
        ("un'auto all'ombra dell'albero", "un auto all ombra dell albero"),  # Italian
        ("it's o'clock , y'all could've", "its oclock yall couldve"),  # English
        ("rock'n'roll , the dogs' owner 's ball", "rocknroll the dogs owner s ball"),
        ("п'ять п’ять пʼять", "пять пять пять"),  # Ukrainian
    ],
)
def test_apostrophes_divide_the_words_of_french_but_not_of_english(caption, cleaned):
    assert clean_caption(caption) == cleaned


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("一只棕色的狗在草地上奔跑", False),
        ("一只 棕色 的 狗", True),
        ("สุนัขสีน้ำตาลวิ่งบนหญ้า", False),
        ("犬が芝生の上を走っている", False),
        ("မြန်မာစာသည်ကောင်း", False),
        ("어린 소년이 달린다", True),  # Korean has spaces
        ("a very long word is incomprehensibilities", True),
        ("a dog called 狗", True),
        ("", True),
    ],
)
def test_captions_of_languages_without_spaces_are_recognised(caption, expected):
    assert has_spaces(caption) == expected


@pytest.mark.real
def test_the_descriptions_of_flickr8k_are_cleaned_to_the_shipped_vocabulary(shared):
    with zipfile.ZipFile(shared / "flickr8k" / "Flickr8k_text.zip") as archive:
        lines = archive.read("Flickr8k.token.txt").decode().splitlines()
    cleaned = "\n".join(clean_caption(line.partition("\t")[2]) for line in lines)
    digest = hashlib.sha256(cleaned.encode()).hexdigest()
    assert digest == "9179c122f0c74eaf4141ba34e550553baea87a8fc50a21994eb1dbe5597ad16a"


def test_marks_above_and_below_letters_stay_in_words():
    assert clean_caption("हिन्दी में एक कुत्ता ।") == "हिन्दी में एक कुत्ता"
    assert clean_caption("E\u0301te\u0301 !") == "\u00e9t\u00e9"  # composed, as most write it
