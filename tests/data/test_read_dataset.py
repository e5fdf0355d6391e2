"""The same ten images, captioned in every format; and the matching of image names."""

import json
import unicodedata
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from captioning.data.dataset import Dataset
from captioning.data.read_dataset import match_image_names, read_dataset, similar_images

NAMES = [f"{number}.jpg" for number in range(10)]
CAPTIONS = {name: [f"Image {name} .", f'It is , "yes" , {name} .'] for name in NAMES}
SPLITS = {"train": NAMES[:6], "development": NAMES[6:8], "test": NAMES[8:]}
FIELD_NAMES = {"train": "train", "development": "val", "test": "test"}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        Image.new("RGB", (4, 4)).save(folder / name)
    return folder


def flickr8k(folder):
    path = folder / "Flickr8k.token.txt"
    lines = [f"{name}#{n}\t{caption}" for name in NAMES for n, caption in enumerate(CAPTIONS[name])]
    path.write_text("\n".join(lines) + "\n")
    for split, word in (("train", "train"), ("development", "dev"), ("test", "test")):
        (folder / f"Flickr_8k.{word}Images.txt").write_text("\n".join(SPLITS[split]))
    return folder


def table(folder, names=NAMES, file_name="my.csv", with_splits=True):
    path = folder / file_name
    lines = ["image,caption,split" if with_splits else "image,caption"]
    for split, split_names in SPLITS.items():
        for name in split_names:
            for caption in CAPTIONS[name] if name in names else ():
                quoted = caption.replace('"', '""')
                word = f",{FIELD_NAMES[split]}" if with_splits else ""
                lines.append(f'{name},"{quoted}"{word}')
    path.write_text("\n".join(lines))
    return path


def coco(folder, names=NAMES, file_name="captions.json"):
    path = folder / file_name
    images = [{"id": int(name[0]), "file_name": name} for name in names]
    annotations = [
        {"image_id": int(name[0]), "caption": caption}
        for number in range(2)  # COCO's captions of one image lie apart
        for name in names
        for caption in CAPTIONS[name][number : number + 1]
    ]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def karpathy(folder):
    path = folder / "dataset.json"
    entries = [
        {
            "filename": name,
            "split": FIELD_NAMES[split],
            "sentences": [{"raw": caption, "tokens": []} for caption in CAPTIONS[name]],
        }
        for split, names in SPLITS.items()
        for name in names
    ]
    path.write_text(json.dumps({"images": entries, "dataset": "mine"}))
    return path


@pytest.mark.parametrize("write", [flickr8k, table, karpathy])
def test_all_formats_with_splits_give_the_same_data_set(write, tmp_path, images):
    assert read_dataset([write(tmp_path)], images) == Dataset(images, CAPTIONS, SPLITS)


@pytest.mark.parametrize("write", [table, coco])
def test_a_file_for_each_split_gives_the_same_data_set(write, tmp_path, images):
    paths = [
        write(tmp_path, SPLITS[split], f"captions_{FIELD_NAMES[split]}2017.json")
        for split in SPLITS
    ]
    assert read_dataset(paths, images) == Dataset(images, CAPTIONS, SPLITS)


def test_missing_splits_are_drawn(tmp_path, images):
    dataset = read_dataset([coco(tmp_path, file_name="captions_val2017.json")], images)
    assert dataset.captions == CAPTIONS
    assert sorted(sum(dataset.splits.values(), [])) == NAMES
    assert all(dataset.splits.values())
    again = read_dataset([table(tmp_path, with_splits=False)], images)
    assert again.splits == dataset.splits


def test_the_third_split_is_drawn_from_the_training_images(tmp_path, images):
    paths = [coco(tmp_path, SPLITS[split], f"{split}.json") for split in ("train", "test")]
    splits = read_dataset(paths, images).splits
    assert splits["test"] == NAMES[8:]
    assert sorted(splits["train"] + splits["development"]) == NAMES[:6]


def test_splits_in_only_some_of_the_files_are_refused(tmp_path, images):
    paths = [coco(tmp_path, NAMES[:6], "train.json"), coco(tmp_path, NAMES[6:], "more.json")]
    with pytest.raises(ValueError, match="more.json: Expected splits in all of the 2 caption"):
        read_dataset(paths, images)
    with pytest.raises(ValueError, match="train.json: Expected splits in all of the 2"):
        read_dataset(paths[::-1], images)


def test_images_without_a_split_stay_without_if_others_have_one(tmp_path, images):
    path = table(tmp_path)
    path.write_text(path.read_text().replace(",test", ","))
    splits = read_dataset([path], images).splits
    assert not set(NAMES[8:]) & set(sum(splits.values(), []))


def test_missing_images_keep_their_captions_but_are_not_drawn(tmp_path, images):
    for name in NAMES[3:]:
        (images / name).unlink()
    dataset = read_dataset([table(tmp_path, with_splits=False)], images)
    assert list(dataset.captions) == NAMES
    assert sorted(sum(dataset.splits.values(), [])) == NAMES[:3]


@pytest.mark.parametrize(
    "written", ["0.jpg", "./0.jpg", "photos/0.jpg", r"C:\photos\0.jpg", "/photos/0.jpg"]
)
def test_an_image_in_a_subfolder_is_found_by_its_file_name(written, tmp_path, images):
    (images / "below").mkdir()
    (images / "0.jpg").rename(images / "below" / "0.jpg")
    path = table(tmp_path)
    path.write_text(path.read_text().replace("\n0.jpg", f"\n{written}"))
    dataset = read_dataset([path], images)
    assert dataset.captions["below/0.jpg"] == CAPTIONS["0.jpg"]
    assert dataset.splits["train"] == ["below/0.jpg", *NAMES[1:6]]


def test_the_names_that_the_command_writes_for_a_folder_are_those_of_its_images(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    names = ["1/a.jpg", "2/a.jpg", "a.jpg"]
    for name in names:
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(f"photos/{name}")
    lines = [f"photos/{name},A dog ." for name in names]
    Path("my.csv").write_text("\n".join(["image,caption", *lines]))
    assert [*read_dataset([Path("my.csv")], Path("photos")).captions] == names


def test_images_with_the_same_file_name_are_distinguished_by_their_folders(tmp_path, images):
    lines = ["image,caption"]
    for folder in ("cat", "dog"):
        (images / folder).mkdir()
        for name in ("a.jpg", "b.jpg"):
            Image.new("RGB", (4, 4)).save(images / folder / name)
            lines.append(f"{folder}\\{name},A {folder} .")
    lines += ["fish/a.jpg,A fish .", "b.jpg,Unknown ."]
    (tmp_path / "my.csv").write_text("\n".join(lines))
    captions = read_dataset([tmp_path / "my.csv"], images).captions
    assert captions == {
        "cat/a.jpg": ["A cat ."],
        "cat/b.jpg": ["A cat ."],
        "dog/a.jpg": ["A dog ."],
        "dog/b.jpg": ["A dog ."],
        "fish/a.jpg": ["A fish ."],
        "b.jpg": ["Unknown ."],
    }


def test_captions_without_any_image_in_the_folder_are_refused(tmp_path, images):
    path = tmp_path / "my.csv"
    path.write_text("image,caption\ndog.jpg,A dog .\n")
    message = "an image of the 1 captioned ones in .*photos, such as 'dog.jpg', got '0.jpg'. Name"
    with pytest.raises(ValueError, match=message):
        read_dataset([path], images)


@pytest.mark.parametrize("change", [str.upper, lambda name: name.removesuffix(".jpg")])
def test_images_are_found_despite_other_case_or_missing_ending(change, tmp_path, images):
    lines = [f"{change(name)},It is {name} ." for name in NAMES]
    (tmp_path / "my.csv").write_text("\n".join(["image,caption", *lines]))
    assert list(read_dataset([tmp_path / "my.csv"], images).captions) == NAMES


def test_images_are_found_despite_another_unicode_form_of_accents(tmp_path, images):
    """Typed names are composed (NFC), names in a zip archive of macOS are decomposed (NFD)."""
    lines = ["image,caption"]
    for name in NAMES:
        (images / name).rename(images / unicodedata.normalize("NFD", f"Café_é_{name}"))
        lines.append(unicodedata.normalize("NFC", f"Café_é_{name},A plain colour ."))
    (tmp_path / "my.csv").write_text("\n".join(lines), encoding="utf-8")
    dataset = read_dataset([tmp_path / "my.csv"], images)
    expected = [unicodedata.normalize("NFD", f"Café_é_{name}") for name in NAMES]
    assert list(dataset.captions) == expected
    assert sorted(sum(dataset.splits.values(), [])) == sorted(expected)


def test_the_message_states_that_the_endings_differ(tmp_path, images):
    (tmp_path / "my.csv").write_text("image,caption\n0.png,A dog .\n")
    with pytest.raises(ValueError, match="such as '0.png', got '0.jpg'. They differ in the ending"):
        read_dataset([tmp_path / "my.csv"], images)


@pytest.mark.parametrize("text", ["", "0.jpg,A dog .\n", "[1, 2]", "%PDF-1.4\n"])
def test_the_message_for_an_unknown_format_lists_the_known_ones(text, tmp_path, images):
    path = tmp_path / "my.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="my.csv, line 1: Expected a header .*COCO.*Karpathy"):
        read_dataset([path], images)


def test_a_file_in_another_encoding_is_refused(tmp_path, images):
    path = tmp_path / "my.csv"
    path.write_bytes("image,caption\n0.jpg,Un été .\n".encode("latin-1"))
    with pytest.raises(ValueError, match="Expected text in UTF-8 in .*my.csv.*Save it as UTF-8"):
        read_dataset([path], images)


def test_a_missing_caption_file_is_an_error_with_advice(tmp_path, images):
    with pytest.raises(FileNotFoundError, match="There is no .*gone.csv. Name the file of your"):
        read_dataset([tmp_path / "gone.csv"], images)


@pytest.mark.parametrize(
    ("name", "images", "match"),
    [
        ("a.jpg", ["a.jpg", "b.jpg"], "a.jpg"),
        ("./x/a.jpg", ["x/a.jpg", "y/a.jpg"], "x/a.jpg"),
        ("C:\\photos\\a.jpg", ["x/a.jpg"], "x/a.jpg"),  # the only file of that name
        ("x\\a.jpg", ["x\\a.jpg", "x/a.jpg"], "x\\a.jpg"),  # not on Windows
        ("a\x1bb.jpg", ["a\x1bb.jpg"], "a\x1bb.jpg"),
        (r"a\x1bb.jpg", ["a\x1bb.jpg"], "a\x1bb.jpg"),  # as it was printed
        ("a.jpg", ["x/a.jpg", "y/a.jpg"], "a.jpg"),  # two files of that name
        ("A.JPG", ["a.jpg", "b.jpg"], "a.jpg"),
        ("a.jpg", ["A.jpg", "a.JPG"], "a.jpg"),
        ("X/a.jpg", ["x/a.JPG", "y/a.JPG"], "x/a.JPG"),
        ("caf\u00e9.jpg", ["cafe\u0301.jpg"], "cafe\u0301.jpg"),
        ("CAF\u00c9.jpg", ["cafe\u0301.jpg"], "cafe\u0301.jpg"),
        ("a", ["a.jpg", "b.jpg"], "a.jpg"),
        ("x/a", ["x/a.jpg", "y/a.jpg"], "x/a.jpg"),
        ("a", ["a.jpg", "a.png"], "a"),
        ("1.5", ["1.5.jpg", "1.jpg"], "1.5.jpg"),
        ("a.png", ["a.jpg"], "a.png"),  # possibly another image
        ("a.jpg.1", ["a.jpg"], "a.jpg.1"),
    ],
)
def test_unambiguous_names_are_matched(name, images, match):
    assert match_image_names([name], images) == {name: match}


def test_names_that_fit_the_same_image_are_not_matched():
    assert match_image_names(["x/a.jpg", "y/a.jpg"], ["z/a.jpg"]) == {
        "x/a.jpg": "x/a.jpg",
        "y/a.jpg": "y/a.jpg",
    }
    assert match_image_names(["A.jpg", "a.jpg"], ["A.jpg"]) == {"A.jpg": "A.jpg", "a.jpg": "a.jpg"}


def test_spellings_of_the_same_path_match_the_same_image():
    names = ["x/a.jpg", "./x/a.jpg", "x\\a.jpg"]
    assert match_image_names(names, ["x/A.jpg"]) == dict.fromkeys(names, "x/A.jpg")


def test_similar_images_differ_only_in_case_or_ending():
    images = ["x/A.png", "b.jpg"]
    assert similar_images(["a.jpg", "c.jpg", "B"], images) == {"a.jpg": "x/A.png", "B": "b.jpg"}


@pytest.mark.real
def test_the_official_splits_are_read_whole_and_in_order(shared, tmp_path, images):
    with zipfile.ZipFile(shared / "flickr8k" / "Flickr8k_text.zip") as archive:
        archive.extractall(tmp_path)
    Image.new("RGB", (4, 4)).save(images / "1000268201_693b08cb0e.jpg")
    dataset = read_dataset([tmp_path], images)
    assert (len(dataset.captions), sum(map(len, dataset.captions.values()))) == (8092, 40460)
    assert {split: len(names) for split, names in dataset.splits.items()} == {
        "train": 6000,
        "development": 1000,
        "test": 1000,
    }
    assert dataset.splits["train"][0] == "2513260012_03d33305cf.jpg"


@pytest.mark.parametrize("content", ["image,caption\n", '{"images": []}'])
def test_a_file_without_captions_is_named(images, tmp_path, content):
    path = tmp_path / "empty.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"Expected captions in .*empty\.csv, got none"):
        read_dataset([path], images)


def test_names_that_fit_the_same_image_in_different_ways_are_not_matched():
    names = ["y/a.jpg", "x/A.jpg"]  # by the name of the file, and but for the case of a letter
    assert match_image_names(names, ["x/a.jpg"]) == dict(zip(names, names, strict=True))
