import csv
import json
import sys
import tracemalloc
from pathlib import Path

import pytest

from captioning.inference.networks import Caption
from captioning.output.caption_files import CaptionFile, CaptionPrinter
from captioning.output.caption_formats import BARE, FORMATS, image_name

ONE = [Caption("a dog runs", -7.25)]
OTHER = [Caption("a cat, it's asleep", -11.123456)]
THREE = [Caption("a dog runs", -7.25), Caption("a dog", -8.0), Caption("dogs", -12.0)]
ODD_NAME = 'photos/a: "dog", (-1.0) Ünïcödé 犬 \u2028.jpg'


@pytest.fixture(params=["text", "jsonl", "csv"])
def form(request):
    return FORMATS[request.param]


def write(path, form, results, top=None):
    file = CaptionFile(path, form, top)
    for image, captions in results.items():
        file.add(image, captions)
    return path.read_bytes()


def test_text_names_the_image_and_says_the_caption():
    assert FORMATS["text"].write("a.jpg", ONE, False) == "a.jpg: a dog runs\n"
    assert FORMATS["text"].write("a.jpg", THREE[:2], True) == (
        "a.jpg: a dog runs (-7.2500)\na.jpg: a dog (-8.0000)\n"
    )


def test_the_bare_form_leaves_the_image_out():
    assert BARE.write("a.jpg", ONE, False) == "a dog runs\n"
    assert BARE.write("a.jpg", THREE[:2], True) == "a dog runs (-7.2500)\na dog (-8.0000)\n"


def test_a_line_of_json_holds_the_best_caption_and_with_top_the_list():
    line = FORMATS["jsonl"].write(ODD_NAME, OTHER, False)
    best = {"caption": "a cat, it's asleep", "log_prob": -11.1235}
    assert json.loads(line) == {"image": ODD_NAME, **best}
    assert line.endswith("\n") and line.count("\n") == 1
    assert json.loads(FORMATS["jsonl"].write("a.jpg", THREE, True)) == {
        "image": "a.jpg",
        "caption": "a dog runs",
        "log_prob": -7.25,
        "captions": [
            {"caption": "a dog runs", "log_prob": -7.25},
            {"caption": "a dog", "log_prob": -8.0},
            {"caption": "dogs", "log_prob": -12.0},
        ],
    }


def test_csv_has_a_header_and_a_row_for_each_caption(tmp_path):
    path = tmp_path / "captions.csv"
    write(path, FORMATS["csv"], {ODD_NAME: THREE[:2]}, top=2)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"image": ODD_NAME, "caption": "a dog runs", "log_prob": "-7.2500"},
        {"image": ODD_NAME, "caption": "a dog", "log_prob": "-8.0000"},
    ]


@pytest.mark.parametrize(("results", "top"), [({"b": ONE, "a": OTHER}, None), ({"b": THREE}, 3)])
def test_a_file_that_is_gone_on_with_holds_what_an_uninterrupted_run_writes(
    tmp_path, form, results, top
):
    results = {ODD_NAME: THREE[: top or 1], **results}
    expected = write(tmp_path / "whole", form, results, top)
    write(tmp_path / "parts", form, dict(list(results.items())[:1]), top)
    second = CaptionFile(tmp_path / "parts", form, top)
    assert list(second.captions) == [ODD_NAME]
    assert [str(caption) for caption in second.captions[ODD_NAME]] == [
        str(caption) for caption in results[ODD_NAME]
    ]
    assert write(tmp_path / "parts", form, dict(list(results.items())[1:]), top) == expected


def test_an_image_that_nothing_is_said_of_is_not_asked_about_again(tmp_path, form):
    write(tmp_path / "file", form, {"a.jpg": [Caption("", -9.5)]}, top=1)
    (caption,) = CaptionFile(tmp_path / "file", form, top=1).captions["a.jpg"]
    assert (caption.text, caption.log_prob) == ("", -9.5)


def test_an_image_of_which_fewer_captions_were_found_takes_its_place_in_the_order(tmp_path, form):
    write(tmp_path / "file", form, {"b.jpg": THREE}, top=3)
    results = CaptionFile(tmp_path / "file", form, top=3)
    results.add("a.jpg", THREE[:2])
    results.finish(["a.jpg", "b.jpg"])
    expected = write(tmp_path / "at once", form, {"a.jpg": THREE[:2], "b.jpg": THREE}, top=3)
    assert (tmp_path / "file").read_bytes() == expected


@pytest.mark.parametrize("images", [["c.jpg"], ["a.jpg"], ["c.jpg", "b.jpg"]])
def test_a_file_that_another_program_wrote_to_is_left_as_it_is(tmp_path, form, images):
    path = tmp_path / "file"
    write(path, form, {"b.jpg": THREE}, top=3)
    results = CaptionFile(path, form, top=3)
    results.add("a.jpg", THREE)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.writelines(form.write(image, THREE, True) for image in images)
    content = path.read_bytes()
    with pytest.raises(ValueError, match="was written to meanwhile: it stays as it is"):
        results.finish(["a.jpg", "b.jpg"])
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", [b"my notes\n", b"[1]\n", b'{"x": 1}\n', b"a,b\r\n", b"\xff\n"])
def test_a_file_in_which_somebody_took_notes_is_left_as_it_is(tmp_path, form, line):
    path = tmp_path / "file"
    results = CaptionFile(path, form, None)
    results.add("b.jpg", ONE)
    results.add("a.jpg", ONE)
    content = path.read_bytes() + line
    path.write_bytes(content)
    with pytest.raises(ValueError, match="was written to meanwhile: it stays as it is"):
        results.finish(["a.jpg", "b.jpg"])
    assert path.read_bytes() == content


def test_of_captions_that_a_file_holds_memory_holds_little(tmp_path):
    path = tmp_path / "captions.csv"
    images = [f"all/of/my/photos/{number:06}.jpg" for number in range(3_000)]
    path.write_text("image,caption,log_prob\n" + "".join(f"{i},a dog,-7.2500\n" for i in images))
    CaptionFile(path, FORMATS["csv"], None)  # what is held once, for any file
    tracemalloc.start()
    file = CaptionFile(path, FORMATS["csv"], None)
    file.finish(images)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(file.captions) == images
    assert kept / 3_000 < 170  # bytes an image: the name, and where its captions begin
    assert peak / 3_000 < 300


def test_captions_are_those_of_the_image_or_none_if_the_file_changed_meanwhile(tmp_path, form):
    path = tmp_path / "file"
    write(path, form, {"a.jpg": ONE, "b.jpg": OTHER})
    captions = CaptionFile(path, form, None).captions
    assert captions["b.jpg"][0].text == "a cat, it's asleep"
    CaptionFile(path, form, None).finish(["b.jpg", "a.jpg"])
    for content in (path.read_bytes(), b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="was written to meanwhile"):
            captions["b.jpg"]


def test_a_file_that_is_in_order_is_not_written_anew(tmp_path, form):
    path = tmp_path / "file"
    write(path, form, {"of another run": OTHER, "a": ONE, "b": ONE})
    file = CaptionFile(path, form, None)
    before = path.stat().st_ino
    file.finish(["a", "failed", "a", "b"])
    assert path.stat().st_ino == before
    file.finish(["b", "a"])
    assert list(CaptionFile(path, form, None).captions) == ["of another run", "b", "a"]


@pytest.mark.skipif(sys.platform == "win32", reason="links are for administrators there")
def test_what_a_link_leads_to_is_written(tmp_path, form):
    path = tmp_path / "link"
    path.symlink_to(tmp_path / "file")
    write(path, form, {"b": ONE, "a": OTHER})
    CaptionFile(path, form, None).finish(["a", "b"])
    expected = write(tmp_path / "expected", form, {"a": OTHER, "b": ONE})
    assert path.is_symlink() and (tmp_path / "file").read_bytes() == expected


def test_an_image_that_comes_twice_is_of_another_program(tmp_path, form):
    path = tmp_path / "file"
    content = write(path, form, {"a": ONE, "b": ONE}) + form.write("a", ONE, False).encode()
    path.write_bytes(content)
    with pytest.raises(ValueError, match="was not written by a run like this one"):
        CaptionFile(path, form, None)
    assert path.read_bytes() == content


def test_wherever_a_run_is_killed_the_next_one_goes_on_from_whole_results(tmp_path, form):
    results = {"a.jpg": THREE, "b.jpg": THREE, "c.jpg": THREE}
    whole = write(tmp_path / "whole", form, results, top=3)
    ends = len(write(tmp_path / "first", form, {"a.jpg": THREE}, top=3))
    for length in range(ends, len(whole)):
        path = tmp_path / "cut"
        path.write_bytes(whole[:length])
        file = CaptionFile(path, form, top=3)
        assert list(file.captions) == ["a.jpg", "b.jpg", "c.jpg"][: len(file.captions)]
        assert write(path, form, dict(list(results.items())[len(file.captions) :]), 3) == whole


def test_images_that_failed_before_come_into_their_places(tmp_path, form):
    path = tmp_path / "file"
    write(path, form, {"of another run": OTHER, "a": ONE, "c": ONE})
    file = CaptionFile(path, form, None)
    file.add("b", OTHER)
    file.finish(["a", "b", "failed again", "c"])
    expected = {"of another run": OTHER, "a": ONE, "b": OTHER, "c": ONE}
    assert path.read_bytes() == write(tmp_path / "expected", form, expected)


@pytest.mark.parametrize(("before", "now"), [(3, None), (None, 3), (3, 2), (2, 3)])
def test_another_number_of_captions_is_refused(tmp_path, form, before, now):
    path = tmp_path / "file"
    captions = THREE[: before or 1]
    content = write(path, form, {"a": captions, "b": captions}, before)
    wanted = f"with --top {now}" if now else "without --top"
    with pytest.raises(ValueError, match=f"Wanted: --format {form.name} {wanted}"):
        CaptionFile(path, form, now)
    assert path.read_bytes() == content


@pytest.mark.parametrize("image", ["3", "null", '["a.jpg"]'])
def test_captions_of_what_is_no_name_are_refused(tmp_path, image):
    path = tmp_path / "captions.jsonl"
    content = f'{{"image": {image}, "caption": "a dog runs", "log_prob": -7.25}}\n'
    path.write_text(content)
    with pytest.raises(ValueError, match="was not written by a run like this one"):
        CaptionFile(path, FORMATS["jsonl"], None)
    assert path.read_text() == content


@pytest.mark.parametrize("other", ["text", "jsonl", "csv"])
def test_another_format_is_refused(tmp_path, form, other):
    path = tmp_path / "file"
    content = write(path, FORMATS[other], {"a": ONE, "b": OTHER})
    if other != form.name:
        with pytest.raises(ValueError, match=f"cannot go on .* Wanted: --format {form.name}"):
            CaptionFile(path, form, None)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"my notes", b"my notes\n", b"[1]\n", b'{"a": 1}\n', b"a,b\n", b"\xff\xd8\xff\n\n"]
)
def test_a_file_of_somebody_else_is_refused_and_left_alone(tmp_path, form, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="was not written by a run like this one"):
        CaptionFile(path, form, None)
    assert path.read_bytes() == content


def test_a_folder_is_no_file_of_results(tmp_path, form):
    with pytest.raises(ValueError, match="it is no file"):
        CaptionFile(tmp_path, form, None)


def test_an_empty_file_is_begun(tmp_path, form):
    path = tmp_path / "file"
    path.touch()
    assert CaptionFile(path, form, None).captions == {}


@pytest.mark.parametrize("above_bar", [False, True])
def test_what_is_printed_is_what_is_written(tmp_path, form, capsys, above_bar):
    printout = CaptionPrinter(form, None, above_bar)
    printout.add("a.jpg", ONE)
    printout.add("b.jpg", OTHER)
    expected = write(tmp_path / "file", form, {"a.jpg": ONE, "b.jpg": OTHER})
    assert capsys.readouterr().out.encode() == expected


def test_the_name_of_an_image_is_one_line_that_can_be_encoded():
    assert image_name(Path("photos/犬.jpg")) == str(Path("photos/犬.jpg"))
    name = image_name(Path("two\nlines\rand \udcff.jpg"))
    assert name.encode("utf-8") == rb"two\nlines\rand \udcff.jpg"
    assert image_name(name) == name
