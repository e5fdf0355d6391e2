import csv
import json
import sys
from pathlib import Path

import pytest

from captioning.inference.decoding import Caption
from captioning.output.caption_files import CaptionFile, CaptionPrinter
from captioning.output.caption_formats import FORMATS, WITHOUT_NAMES, mark_unsure

DOG = [Caption("a dog runs", -7.25)]
CAT = [Caption("a cat, it's asleep", -11.123456, 0.123456)]
THREE_DOGS = [Caption("a dog runs", -7.25), Caption("a dog", -8.0), Caption("dogs", -12.0)]
ODD_NAME = 'photos/a: "dog", (-1.0) Ünïcödé 犬 \u2028.jpg'


@pytest.fixture(params=["text", "jsonl", "csv"])
def caption_format(request):
    return FORMATS[request.param]


def write(path, caption_format, captions, top=None):
    """Runs over all images of `captions`, and may resume an earlier run. Returns the content."""
    file = CaptionFile(path, caption_format, top, image_names=captions)
    for image, image_captions in captions.items():
        file.add(image, image_captions)
    file.finish()
    return path.read_bytes()


def test_a_line_of_text_holds_the_name_of_the_image_and_the_caption():
    assert FORMATS["text"].write("a.jpg", DOG, False) == "a.jpg: a dog runs\n"
    assert FORMATS["text"].write("a.jpg", THREE_DOGS[:2], True) == (
        "a.jpg: a dog runs (-7.2500)\na.jpg: a dog (-8.0000)\n"
    )


def test_the_name_of_a_single_image_can_be_left_out():
    assert WITHOUT_NAMES.write("a.jpg", DOG, False) == "a dog runs\n"
    assert (
        WITHOUT_NAMES.write("a.jpg", THREE_DOGS[:2], True)
        == "a dog runs (-7.2500)\na dog (-8.0000)\n"
    )


def test_a_line_of_json_holds_the_best_caption_and_with_top_all_of_them():
    line = FORMATS["jsonl"].write(ODD_NAME, CAT, False)
    best = {"caption": "a cat, it's asleep", "log_prob": -11.1235, "confidence": 0.1235}
    assert json.loads(line) == {"image": ODD_NAME, **best}
    assert line.endswith("\n") and line.count("\n") == 1
    assert json.loads(FORMATS["jsonl"].write("a.jpg", THREE_DOGS, True)) == {
        "image": "a.jpg",
        "caption": "a dog runs",
        "log_prob": -7.25,
        "confidence": None,
        "captions": [
            {"caption": "a dog runs", "log_prob": -7.25, "confidence": None},
            {"caption": "a dog", "log_prob": -8.0, "confidence": None},
            {"caption": "dogs", "log_prob": -12.0, "confidence": None},
        ],
    }


def test_a_caption_of_low_confidence_is_marked_for_people():
    assert mark_unsure(Caption("a cat", -1.0, 0.499)) == "Not sure: a cat"
    assert mark_unsure(Caption("a cat", -1.0, 0.5)) == "a cat"
    assert mark_unsure(Caption("a cat", -1.0, None)) == "a cat"


def test_csv_has_a_header_and_a_row_for_each_caption(tmp_path):
    path = tmp_path / "captions.csv"
    write(path, FORMATS["csv"], {ODD_NAME: [*DOG, *CAT]}, top=2)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    header = ("image", "caption", "log_prob", "confidence")
    assert rows == [
        dict(zip(header, (ODD_NAME, "a dog runs", "-7.2500", ""), strict=True)),
        dict(zip(header, (ODD_NAME, "a cat, it's asleep", "-11.1235", "0.1235"), strict=True)),
    ]


@pytest.mark.parametrize(("rest", "top"), [({"b": DOG, "a": CAT}, None), ({"b": THREE_DOGS}, 3)])
def test_a_resumed_file_holds_what_an_uninterrupted_run_writes(tmp_path, caption_format, rest, top):
    captions = {ODD_NAME: THREE_DOGS[: top or 1], **rest}
    expected = write(tmp_path / "whole", caption_format, captions, top)
    write(tmp_path / "parts", caption_format, {ODD_NAME: captions[ODD_NAME]}, top)
    resumed = CaptionFile(tmp_path / "parts", caption_format, top)
    assert list(resumed.captions) == [ODD_NAME]
    assert list(map(str, resumed.captions[ODD_NAME])) == list(map(str, captions[ODD_NAME]))
    assert write(tmp_path / "parts", caption_format, captions, top) == expected


def test_captions_are_in_the_file_as_soon_as_they_are_added(tmp_path, caption_format):
    file = CaptionFile(tmp_path / "file", caption_format, None)
    for number in range(1, 4):
        file.add(f"{number}.jpg", DOG)
        assert len(CaptionFile(tmp_path / "file", caption_format, None).captions) == number


def test_an_empty_caption_counts_as_captioned(tmp_path, caption_format):
    write(tmp_path / "file", caption_format, {"a.jpg": [Caption("", -9.5)]}, top=1)
    (caption,) = CaptionFile(tmp_path / "file", caption_format, top=1).captions["a.jpg"]
    assert (caption.text, caption.log_prob) == ("", -9.5)


def test_an_image_with_fewer_captions_than_top_is_sorted_into_its_place(tmp_path, caption_format):
    write(tmp_path / "file", caption_format, {"b.jpg": THREE_DOGS}, top=3)
    both = {"a.jpg": THREE_DOGS[:2], "b.jpg": THREE_DOGS}
    resumed = write(tmp_path / "file", caption_format, both, top=3)
    assert resumed == write(tmp_path / "at once", caption_format, both, top=3)


@pytest.mark.parametrize("images", [["c.jpg"], ["a.jpg"], ["c.jpg", "b.jpg"]])
def test_a_file_that_another_program_changed_is_left_as_it_is(tmp_path, caption_format, images):
    path = tmp_path / "file"
    write(path, caption_format, {"b.jpg": THREE_DOGS}, top=3)
    file = CaptionFile(path, caption_format, top=3, image_names=["a.jpg", "b.jpg"])
    file.add("a.jpg", THREE_DOGS)
    with path.open("a", encoding="utf-8", newline="\n") as other:
        other.writelines(caption_format.write(image, THREE_DOGS, True) for image in images)
    content = path.read_bytes()
    with pytest.raises(
        ValueError, match="got a file that another program has changed. It stays as it is"
    ):
        file.finish()
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", [b"my notes\n", b"[1]\n", b'{"x": 1}\n', b"a,b\r\n", b"\xff\n"])
def test_a_file_to_which_a_line_was_added_is_left_as_it_is(tmp_path, caption_format, line):
    path = tmp_path / "file"
    file = CaptionFile(path, caption_format, None, image_names=["a.jpg", "b.jpg"])
    file.add("b.jpg", DOG)
    file.add("a.jpg", DOG)
    content = path.read_bytes() + line
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match="got a file that another program has changed. It stays as it is"
    ):
        file.finish()
    assert path.read_bytes() == content


def test_a_file_in_order_is_not_rewritten(tmp_path, caption_format):
    path = tmp_path / "file"
    write(path, caption_format, {"of another run": CAT, "a": DOG, "b": DOG})
    before = path.stat().st_ino
    CaptionFile(path, caption_format, None, ["a", "failed", "a", "b"]).finish()
    assert path.stat().st_ino == before
    CaptionFile(path, caption_format, None, ["b", "a"]).finish()
    assert list(CaptionFile(path, caption_format, None).captions) == ["of another run", "b", "a"]


@pytest.mark.skipif(sys.platform == "win32", reason="links are for administrators there")
def test_a_link_stays_a_link_to_the_file(tmp_path, caption_format):
    path = tmp_path / "link"
    path.symlink_to(tmp_path / "file")
    write(path, caption_format, {"b": DOG})
    write(path, caption_format, {"a": CAT, "b": DOG})
    expected = write(tmp_path / "expected", caption_format, {"a": CAT, "b": DOG})
    assert path.is_symlink() and (tmp_path / "file").read_bytes() == expected


def test_a_file_that_holds_an_image_twice_is_refused(tmp_path, caption_format):
    path = tmp_path / "file"
    content = write(path, caption_format, {"a": DOG, "b": DOG})
    content += caption_format.write("a", DOG, False).encode()
    path.write_bytes(content)
    with pytest.raises(ValueError, match="which holds other lines"):
        CaptionFile(path, caption_format, None)
    assert path.read_bytes() == content


@pytest.mark.parametrize("top", [None, 3])
def test_a_run_that_is_killed_anywhere_is_resumed(tmp_path, caption_format, top):
    captions = dict.fromkeys(["ä.jpg", "b.jpg", "c.jpg"], THREE_DOGS[: top or 1])
    whole = write(tmp_path / "whole", caption_format, captions, top)
    for length in range(len(whole)):
        path = tmp_path / "cut"
        path.write_bytes(whole[:length])
        known = CaptionFile(path, caption_format, top, captions).captions
        assert list(known) == list(captions)[: len(known)]
        assert path.read_bytes() == whole[: path.stat().st_size]
        assert write(path, caption_format, captions, top) == whole


def test_images_that_failed_before_are_sorted_into_their_places(tmp_path, caption_format):
    path = tmp_path / "file"
    write(path, caption_format, {"of another run": CAT, "a": DOG, "c": DOG})
    file = CaptionFile(path, caption_format, None, ["a", "b", "failed again", "c"])
    file.add("b", CAT)
    file.finish()
    expected = {"of another run": CAT, "a": DOG, "b": CAT, "c": DOG}
    assert path.read_bytes() == write(tmp_path / "expected", caption_format, expected)


@pytest.mark.parametrize(("before", "now"), [(3, None), (None, 3), (3, 2), (2, 3)])
def test_another_number_of_captions_is_refused(tmp_path, caption_format, before, now):
    path = tmp_path / "file"
    captions = THREE_DOGS[: before or 1]
    content = write(path, caption_format, {"a": captions, "b": captions}, before)
    options = f"--format {caption_format.name} {f'--top {now}' if now else 'without --top'}"
    with pytest.raises(ValueError, match=f"Expected captions written with {options}, got"):
        CaptionFile(path, caption_format, now, image_names=["a", "b"])
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        '{"image": 3, "caption": "a dog runs", "log_prob": -7.25, "confidence": null}\n',
        '{"image": null, "caption": "a dog runs", "log_prob": -7.25, "confidence": null}\n',
        '{"image": ["a.jpg"], "caption": "a dog runs", "log_prob": -7.25, "confidence": null}\n',
        '{"image": "a.jpg", "caption": 3, "log_prob": -7.25, "confidence": null}\n',
        '{"image": "a.jpg", "caption": "a dog runs", "log_prob": "-7.25", "confidence": null}\n',
        '{"image": "a.jpg", "caption": "a dog runs", "log_prob": null, "confidence": null}\n',
        '{"image": "a.jpg", "caption": "a dog runs", "log_prob": -7.25, "confidence": "0.5"}\n',
        "[" * 100_000 + "\n",
        "3\n",
    ],
)
def test_json_of_other_types_is_refused(tmp_path, content):
    path = tmp_path / "captions.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match="which holds other lines"):
        CaptionFile(path, FORMATS["jsonl"], None)
    assert path.read_text() == content


@pytest.mark.parametrize("other", ["text", "jsonl", "csv"])
def test_another_format_is_refused(tmp_path, caption_format, other):
    path = tmp_path / "file"
    content = write(path, FORMATS[other], {"a": DOG, "b": CAT})
    if other != caption_format.name:
        with pytest.raises(ValueError, match=f"--format {caption_format.name} without --top, got"):
            CaptionFile(path, caption_format, None, image_names=["a", "b"])
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [b"my notes", b"my notes\n", b"[1]\n", b'{"a": 1}\n', b"a,b\n", b"\xff", b"\xff\xd8\xff\n\n"],
)
def test_a_file_without_captions_is_refused_and_left_as_it_is(tmp_path, caption_format, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="file, which holds other lines. Repeat the options"):
        CaptionFile(path, caption_format, None, image_names=["a.jpg", "b.jpg"])
    assert path.read_bytes() == content


def test_a_folder_is_refused(tmp_path, caption_format):
    with pytest.raises(ValueError, match="which is not a file"):
        CaptionFile(tmp_path, caption_format, None)


def test_an_empty_file_counts_as_a_new_one(tmp_path, caption_format):
    path = tmp_path / "file"
    path.touch()
    assert CaptionFile(path, caption_format, None).captions == {}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_error_of_a_full_disk_names_the_file(tmp_path, caption_format):
    path = tmp_path / "captions"
    file = CaptionFile(path, caption_format)
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        file.add("a.jpg", DOG)


@pytest.mark.parametrize("above_bar", [False, True])
def test_the_printed_text_is_that_of_a_file(tmp_path, caption_format, capsys, above_bar):
    printer = CaptionPrinter(caption_format, None, above_bar)
    printer.add("a.jpg", DOG)
    printer.add("b.jpg", CAT)
    expected = write(tmp_path / "file", caption_format, {"a.jpg": DOG, "b.jpg": CAT})
    assert capsys.readouterr().out.encode() == expected
