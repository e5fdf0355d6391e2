from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image, ImageCms

from captioning.errors import UserError
from captioning.output.image_metadata import choose_copy_paths, write_with_description
from tests.bombs import chunk

ORIENTATION, MAKER, DESCRIPTION = 0x0112, 0x010F, 0x010E
CAPTION = "a dog runs"
TWO_LANGUAGES = """
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt><rdf:li
xml:lang="x-default">a cat</rdf:li><rdf:li xml:lang="de">ein Hund</rdf:li></rdf:Alt>
</dc:description></rdf:Description></rdf:RDF></x:xmpmeta>"""


@pytest.fixture
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype="uint8")
    return Image.fromarray(noise)


def open_image(path):
    with Image.open(path) as image:
        image.load()
        return image


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.jp2"])
def test_the_copy_has_the_description_and_the_pixels(tmp_path, picture, name):
    picture.save(tmp_path / name)
    original = (tmp_path / name).read_bytes()
    copy_path = tmp_path / "copies" / "deep" / name
    write_with_description(tmp_path / name, CAPTION, copy_path)
    copy = open_image(copy_path)
    np.testing.assert_array_equal(np.asarray(copy), np.asarray(open_image(tmp_path / name)))
    assert f'<rdf:li xml:lang="x-default">{CAPTION}</rdf:li>'.encode() in copy_path.read_bytes()
    if name != "a.jp2":  # Pillow reads no EXIF there
        assert copy.getexif()[DESCRIPTION] == CAPTION
    assert (tmp_path / name).read_bytes() == original


def test_a_jpeg_is_not_recompressed(tmp_path, picture):
    picture.save(tmp_path / "a.jpg", quality=30)
    write_with_description(tmp_path / "a.jpg", CAPTION, tmp_path / "copy.jpg")
    original, copy = ((tmp_path / name).read_bytes() for name in ("a.jpg", "copy.jpg"))
    assert copy.endswith(original[original.index(b"\xff\xda") :])  # start of scan, to the end


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_other_metadata_and_the_colour_profile_stay(tmp_path, picture, name):
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKER], exif[DESCRIPTION] = 6, "Some Camera", "OLYMPUS DIGITAL CAMERA"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(tmp_path / name, exif=exif, icc_profile=profile)
    write_with_description(tmp_path / name, CAPTION, tmp_path / f"copy_{name}")
    with Image.open(tmp_path / f"copy_{name}") as copy:
        metadata = copy.getexif()
        assert copy.info["icc_profile"] == profile
    assert (metadata[ORIENTATION], metadata[MAKER], metadata[DESCRIPTION]) == (
        6,
        "Some Camera",
        CAPTION,
    )


def test_an_animation_keeps_its_frames(tmp_path, picture):
    picture.save(tmp_path / "a.webp", save_all=True, append_images=[picture.rotate(90)])
    write_with_description(tmp_path / "a.webp", CAPTION, tmp_path / "copy.webp")
    assert open_image(tmp_path / "copy.webp").n_frames == 2


def insert_segment(jpeg, marker, content):
    """Inserts a segment of metadata before the others of a JPEG file."""
    return jpeg[:2] + marker + (len(content) + 2).to_bytes(2, "big") + content + jpeg[2:]


IPTC = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00\x00\x00"
DAMAGED = {
    "EXIF that is cut off": (b"\xff\xe1", b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x09\x00\x12\x01"),
    "EXIF without a header": (b"\xff\xe1", b"Exif\x00\x00not a TIFF header"),
    "IPTC of a wrong length": (b"\xff\xed", IPTC + b"\xff\xff\x1c\x02xx"),
    "XMP that is cut off": (b"\xff\xe1", b"http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_metadata_are_replaced(tmp_path, picture, kind):
    picture.save(tmp_path / "a.jpg", comment=b"made by hand")
    original = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(insert_segment(original, *DAMAGED[kind]))
    write_with_description(tmp_path / "a.jpg", CAPTION, tmp_path / "copy.jpg")
    copy = open_image(tmp_path / "copy.jpg")
    assert copy.getexif()[DESCRIPTION] == CAPTION
    assert copy.info["comment"].rstrip(b"\x00") == b"made by hand"
    np.testing.assert_array_equal(np.asarray(copy), np.asarray(open_image(tmp_path / "a.jpg")))


def test_several_damaged_segments_are_replaced(tmp_path, picture):
    picture.save(tmp_path / "a.jpg", comment=b"made by hand")
    content = (tmp_path / "a.jpg").read_bytes()
    for _ in range(3):
        content = insert_segment(content, b"\xff\xe1", b"Exif\0\0no TIFF header")
    (tmp_path / "a.jpg").write_bytes(content)
    write_with_description(tmp_path / "a.jpg", CAPTION, tmp_path / "copy.jpg")
    assert open_image(tmp_path / "copy.jpg").getexif()[DESCRIPTION] == CAPTION
    assert b"no TIFF header" not in (tmp_path / "copy.jpg").read_bytes()


@pytest.mark.parametrize(
    "damaged",
    [
        chunk(b"eXIf", b"no TIFF header"),
        chunk(b"zTXt", b"Raw profile type exif\0\0not compressed"),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<<<"),
    ],
)
@pytest.mark.parametrize("is_cut", [False, True])
def test_damaged_chunks_of_a_png_are_replaced(tmp_path, picture, damaged, is_cut):
    picture.save(tmp_path / "a.png", dpi=(72, 72))
    content = (tmp_path / "a.png").read_bytes()
    pixels = content.index(b"IDAT") - 4
    content = content[:pixels] + damaged + content[pixels:]
    (tmp_path / "a.png").write_bytes(content[:-12] if is_cut else content)  # without its last chunk
    write_with_description(tmp_path / "a.png", CAPTION, tmp_path / "copy.png")
    copy = open_image(tmp_path / "copy.png")
    assert copy.getexif()[DESCRIPTION] == CAPTION
    assert round(copy.info["dpi"][0]) == 72
    np.testing.assert_array_equal(np.asarray(copy), np.asarray(picture))


def test_names_of_254_bytes_are_copied(tmp_path, picture):
    for name in ("x" * 250 + ".jpg", "é" * 125 + ".jpg"):
        picture.save(tmp_path / name)
        write_with_description(tmp_path / name, CAPTION, tmp_path / "copies" / name)
        assert open_image(tmp_path / "copies" / name).getexif()[DESCRIPTION] == CAPTION


def test_descriptions_in_other_languages_stay(tmp_path, picture):
    picture.save(tmp_path / "a.jpg", xmp=TWO_LANGUAGES.encode())
    write_with_description(tmp_path / "a.jpg", CAPTION, tmp_path / "copy.jpg")
    content = (tmp_path / "copy.jpg").read_bytes()
    assert f'<rdf:li xml:lang="x-default">{CAPTION}</rdf:li>'.encode() in content
    assert b'<rdf:li xml:lang="de">ein Hund</rdf:li>' in content


def test_the_same_copy_may_be_written_twice_but_no_other_file_is_overwritten(tmp_path, picture):
    picture.save(tmp_path / "a.jpg")
    for _ in range(2):
        write_with_description(tmp_path / "a.jpg", CAPTION, tmp_path / "copy.jpg")
    content = (tmp_path / "copy.jpg").read_bytes()
    with pytest.raises(FileExistsError, match="copy.jpg, got another file"):
        write_with_description(tmp_path / "a.jpg", "a cat sleeps", tmp_path / "copy.jpg")
    assert (tmp_path / "copy.jpg").read_bytes() == content


def test_the_original_is_not_overwritten(tmp_path, picture):
    picture.save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    with pytest.raises(FileExistsError, match="a.jpg, got another file"):
        write_with_description(tmp_path / "a.jpg", CAPTION, tmp_path / "a.jpg")
    assert (tmp_path / "a.jpg").read_bytes() == content


@pytest.mark.parametrize("name", ["a.gif", "a.bmp", "a.ppm", "a.tga"])
def test_a_format_that_cannot_hold_a_description_is_refused(tmp_path, picture, name):
    picture.save(tmp_path / name)
    with pytest.raises(ValueError, match=f"Expected JPEG, .*, got .*{name} "):
        write_with_description(tmp_path / name, CAPTION, tmp_path / "copies" / name)
    assert not (tmp_path / "copies").exists()


def test_copies_keep_their_places_below_the_folder_that_holds_all_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a, b, c = "photos/a.jpg", "photos/2024/a.jpg", str(tmp_path / "more/../photos/c.jpg")
    assert choose_copy_paths([a], Path("out")) == {a: Path("out/a.jpg")}
    assert choose_copy_paths([a, b, c], Path("out")) == {
        a: Path("out/a.jpg"),
        b: Path("out/2024/a.jpg"),
        c: Path("out/c.jpg"),
    }
    assert choose_copy_paths([], Path("out")) == {}


def test_images_on_several_drives_are_refused(monkeypatch):
    monkeypatch.setattr("os.path.commonpath", Mock(side_effect=ValueError))  # as on Windows
    with pytest.raises(UserError, match="Expected images on one drive to copy, got"):
        choose_copy_paths(["a.jpg"], Path("out"))
