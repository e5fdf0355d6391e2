import random
import tracemalloc

import pytest

from captioning.data.names import Names

FEW = ["b.jpg", "a.jpg", "", "photos/a.jpg", "photos/2.jpg", "Ünïcödé 犬.jpg", "\udcff.jpg"]


def of_folders(count):
    return [f"photos/{number // 1000}/IMG_{number:06}.jpg" for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 1000])
def test_names_behave_as_a_dict_of_their_numbers(count):
    names = of_folders(count)
    numbered = Names(names)
    assert list(numbered) == names
    assert len(numbered) == count
    assert numbered == {name: number for number, name in enumerate(names)}
    assert not {"photos", "photos/0/IMG_000000", "IMG_000000.jpg"} & numbered.keys()


def test_any_text_that_a_file_system_holds_is_a_name():
    names = Names(FEW)
    assert list(names) == FEW
    assert [names[name] for name in FEW] == [0, 1, 2, 3, 4, 5, 6]


def test_a_name_that_comes_again_keeps_its_number():
    names = Names()
    assert [names.add(name) for name in ("b", "a", "b", "c", "a")] == [
        True,
        True,
        False,
        True,
        False,
    ]
    assert names == {"b": 0, "a": 1, "c": 2}


def test_a_name_that_was_not_added_is_a_key_error():
    with pytest.raises(KeyError, match="c.jpg"):
        Names(FEW)["c.jpg"]
    assert Names(FEW).get("c.jpg") is None


def test_the_last_names_are_forgotten_one_after_the_other():
    names = Names(of_folders(100))
    assert [names.pop() for _ in range(70)] == of_folders(100)[:29:-1]
    assert names == Names(of_folders(30))
    assert [names.add(name) for name in of_folders(100)] == 30 * [False] + 70 * [True]
    assert list(names) == of_folders(100)


def test_of_no_names_none_can_be_forgotten():
    with pytest.raises(IndexError):
        Names().pop()


def test_adding_and_forgetting_in_any_turn_is_as_with_a_dict():
    chance = random.Random(0)
    names, expected = Names(), {}
    for _ in range(3000):
        if expected and chance.random() < 0.4:
            last, _ = expected.popitem()
            assert names.pop() == last
        else:
            name = str(chance.randrange(200))
            assert names.add(name) == (name not in expected)
            expected.setdefault(name, len(expected))
    assert names == expected


@pytest.mark.parametrize("name", ["a\0b", None, 3, b"a.jpg", ["a.jpg"]])
def test_what_is_no_name_is_refused_and_leaves_the_others_as_they_are(name):
    names = Names(FEW)
    with pytest.raises((TypeError, ValueError)):
        names.add(name)
    assert list(names) == FEW


def test_a_name_among_very_many_takes_forty_bytes():
    tracemalloc.start()
    names = Names(f"all/of/my/photos/{number:06}.jpg" for number in range(5_000))
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(names) == 5_000
    assert kept / 5_000 < 40  # as a dict 123
    assert peak / 5_000 < 60
