import hashlib
import zipfile

import pytest
from tiny_world import write_archives

from captioning.data import flickr8k
from captioning.data.flickr8k import download_flickr8k, read_captions, read_splits
from captioning.paths import Paths


@pytest.fixture
def paths(tmp_path):
    return Paths(tmp_path / "root")


def digests_of(folder):
    return {
        path.name: ("sha256", hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.glob("*.zip")
    }


def test_a_folder_of_archives_is_unpacked_into_the_official_folders(archives, paths):
    download_flickr8k(paths, archives)
    assert len(list(paths.images.glob("*.jpg"))) == 36
    captions = read_captions(paths.texts / "Flickr8k.token.txt")
    assert captions["000_drawing.jpg"][:2] == ["A red circle .", "A red circle on white ."]
    splits = read_splits(paths.texts)
    assert {split: len(names) for split, names in splits.items()} == {
        "train": 24,
        "development": 6,
        "test": 6,
    }


def test_an_archive_missing_in_the_source_is_downloaded(archives, paths, monkeypatch):
    urls = []

    def download(url, path):
        urls.append(url)
        return archives / path.name

    monkeypatch.setattr(flickr8k, "download", download)
    monkeypatch.setattr(flickr8k, "DIGESTS", digests_of(archives))
    download_flickr8k(paths, archives / "Flickr8k_Dataset.zip")
    assert urls == [
        "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/Flickr8k_text.zip"
    ]
    assert len(list(paths.images.glob("*.jpg"))) == 36


def test_a_complete_data_set_is_not_unpacked_again(archives, paths, monkeypatch):
    download_flickr8k(paths, archives)
    monkeypatch.setattr(flickr8k, "unpack", lambda *arguments: pytest.fail("unpacked again"))
    download_flickr8k(paths)


def test_another_archive_than_the_official_one_is_refused_after_its_download(
    archives, paths, monkeypatch
):
    monkeypatch.setattr(flickr8k, "download", lambda url, path: archives / path.name)
    message = "official archive in .*Flickr8k_text.zip, sha256 4992ddc8.*--source"
    with pytest.raises(ValueError, match=message):
        download_flickr8k(paths)
    assert not paths.root.exists()


def test_another_archive_than_the_official_one_is_reported_if_you_name_it(
    archives, paths, capsys, monkeypatch
):
    download_flickr8k(paths, archives)
    text, images = (line for line in capsys.readouterr().err.splitlines() if "official" in line)
    assert "Flickr8k_text.zip, sha256 4992ddc8" in text and text.endswith("texts are unpacked.")
    assert "Flickr8k_Dataset.zip, md5 f18a1e29" in images
    monkeypatch.setattr(flickr8k, "DIGESTS", digests_of(archives))
    download_flickr8k(Paths(paths.root / "other"), archives)
    assert "official" not in capsys.readouterr().err


def test_texts_of_absurd_size_are_refused(archives, paths, monkeypatch):
    monkeypatch.setattr(flickr8k, "MAX_TEXT_BYTES", 1000)
    with pytest.raises(ValueError, match="Expected at most 1,000 bytes in .*Flickr8k_text.zip"):
        download_flickr8k(paths, archives)


def test_a_source_that_does_not_exist_is_refused(tmp_path, paths):
    with pytest.raises(FileNotFoundError, match="no archive in .*gone. Name a folder"):
        download_flickr8k(paths, tmp_path / "gone")


def test_an_unfinished_file_count_is_replaced(archives, paths):
    download_flickr8k(paths, archives)
    (paths.images / ".unpacked").write_text("")
    download_flickr8k(paths, archives)
    assert (paths.images / ".unpacked").read_text() == "36"


def test_images_that_were_deleted_are_unpacked_again(archives, paths):
    download_flickr8k(paths, archives)
    (paths.images / "003_drawing.jpg").unlink()
    download_flickr8k(paths, archives)
    assert len(list(paths.images.glob("*.jpg"))) == 36


def test_a_damaged_archive_leaves_the_data_set_incomplete(archives, paths):
    (archives / "Flickr8k_Dataset.zip").write_bytes(b"no zip at all")
    with pytest.raises(ValueError, match="Expected a whole zip archive"):
        download_flickr8k(paths, archives)
    write_archives(archives)
    download_flickr8k(paths, archives)
    assert len(list(paths.images.glob("*.jpg"))) == 36


@pytest.mark.parametrize("archive_name", ["Flickr8k_Dataset.zip", "Flickr8k_text.zip"])
def test_only_images_and_texts_are_unpacked(archives, paths, archive_name):
    harmful = (
        "tokenizer.p", "models/encoder.xml", "captioning/__init__.py", "Flicker8k_Dataset/run.py",
        "Flicker8k_Dataset/more/dog.jpg", "other/dog.jpg", "dog.jpg", "Flicker8k_Dataset/._1.jpg",
        "__MACOSX/Flicker8k_Dataset/._1.jpg", "more/Flickr8k.token.txt", "Flickr8k.token.txt/a",
    )  # fmt: skip
    with zipfile.ZipFile(archives / archive_name, "a") as archive:
        for name in harmful:
            archive.writestr(name, "print('unwanted')")
    for name in harmful[:3]:
        (paths.root / name).parent.mkdir(parents=True, exist_ok=True)
        (paths.root / name).write_text("of the user")
    download_flickr8k(paths, archives)
    assert [(paths.root / name).read_text() for name in harmful[:3]] == ["of the user"] * 3
    assert {path.name for path in paths.root.iterdir()} == {
        "Flicker8k_Dataset",
        "Flickr_8k_text",
        "captioning",
        "models",
        "tokenizer.p",
    }
    assert sorted(path.name for path in paths.texts.iterdir()) == [
        ".unpacked",
        "Flickr8k.token.txt",
        "Flickr_8k.devImages.txt",
        "Flickr_8k.testImages.txt",
        "Flickr_8k.trainImages.txt",
    ]
    assert len(list(paths.images.rglob("*"))) == 37  # 36 images, .unpacked


def test_an_archive_of_other_files_is_refused(archives, paths):
    with zipfile.ZipFile(archives / "Flickr8k_Dataset.zip", "w") as archive:
        archive.writestr("Images/dog.jpg", "")
    with pytest.raises(ValueError, match="Expected Flickr8k's files in .*got others. Delete the"):
        download_flickr8k(paths, archives)


def test_a_caption_keeps_its_tabs_and_an_image_name_its_hash_signs(tmp_path):
    path = tmp_path / "captions"
    path.write_text("a#b.jpg#0\tone\ttwo\nc\td.jpg#1\tthree\n")
    assert read_captions(path) == {"a#b.jpg": ["one\ttwo"], "c\td.jpg": ["three"]}


@pytest.mark.parametrize("line", ["no tab here", "a.jpg\tno number", "a.jpg#one\tno number"])
def test_the_message_for_a_malformed_caption_names_its_line(tmp_path, line):
    path = tmp_path / "captions"
    path.write_text(f"a.jpg#0\ta dog\n{line}\n")
    with pytest.raises(ValueError, match=f"line 2: Expected .*{line.split()[0]}"):
        read_captions(path)


def test_the_message_for_a_missing_caption_file_names_the_step_that_writes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="`captioning download"):
        read_captions(tmp_path / "Flickr8k.token.txt")


def test_only_existing_lists_are_read(tmp_path):
    (tmp_path / "Flickr_8k.testImages.txt").write_text("b.jpg\na.jpg\n")
    assert read_splits(tmp_path) == {"test": ["b.jpg", "a.jpg"]}


def test_a_caption_file_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "captions"
    path.write_bytes("a.jpg#0\tun café".encode("latin-1"))
    with pytest.raises(ValueError, match="Expected text in UTF-8 in .*captions"):
        read_captions(path)


@pytest.mark.real
def test_the_official_text_archive_is_read_whole(shared, tmp_path):
    path = shared / "flickr8k" / "Flickr8k_text.zip"
    assert digests_of(path.parent)[path.name] == flickr8k.DIGESTS[path.name]
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    captions = read_captions(tmp_path / "Flickr8k.token.txt")
    assert (len(captions), sum(map(len, captions.values()))) == (8092, 40460)
    sizes = {split: len(names) for split, names in read_splits(tmp_path).items()}
    assert sizes == {"train": 6000, "development": 1000, "test": 1000}


def test_blank_lines_and_blanks_at_the_end_of_names_do_no_harm(tmp_path):
    captions = tmp_path / "captions.txt"
    captions.write_text("a.jpg#0\tA dog .\n  \nb.jpg#0\tA cat .\n")
    assert read_captions(captions) == {"a.jpg": ["A dog ."], "b.jpg": ["A cat ."]}
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("a.jpg \n \nb.jpg\n")
    assert read_splits(tmp_path) == {"train": ["a.jpg", "b.jpg"]}
