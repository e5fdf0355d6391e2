import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from captioning.output.pages import refuse_to_overwrite, write_gallery


class Page(HTMLParser):
    """A page as a browser parses it: its tags with their attributes, and its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        """The attributes of every tag of this name."""
        return [attributes for name, attributes in self.tags if name == tag]


def resolve_link(page_path, link):
    return os.path.normpath(os.path.join(page_path.parent, os.fsdecode(unquote_to_bytes(link))))


def test_every_image_is_shown_in_order_with_its_caption_as_alt_text(tmp_path):
    captions = {tmp_path / "b.jpg": "a dog runs", tmp_path / "a.jpg": "a cat sleeps"}
    write_gallery(tmp_path / "page.html", captions)
    page = Page(tmp_path / "page.html")
    assert [(image["src"], image["alt"]) for image in page.all("img")] == [
        ("b.jpg", "a dog runs"),
        ("a.jpg", "a cat sleeps"),
    ]
    assert {image["loading"] for image in page.all("img")} == {"lazy"}
    assert "a dog runs" in page.text and "a cat sleeps" in page.text


@pytest.mark.parametrize("page_name", ["page.html", "pages/deep/page.html", "../page.html"])
def test_links_are_relative_and_lead_to_the_images(tmp_path, page_name):
    image_path, page_path = tmp_path / "in" / "my photos" / "a.jpg", tmp_path / "in" / page_name
    write_gallery(page_path, {image_path: "a dog runs"})
    (image,) = Page(page_path).all("img")
    assert not image["src"].startswith(("/", "file:"))
    assert resolve_link(page_path, image["src"]) == str(image_path)


@pytest.mark.parametrize(
    "name",
    ["100% & <b>.jpg", "what?#1.jpg", "犬 ünd.jpg", 'it\'s "$count".jpg', "a:b.jpg", "b\\c.jpg"],
)
@pytest.mark.skipif(os.name == "nt", reason="no such file names there")
def test_no_file_name_breaks_the_page_or_its_link(tmp_path, name):
    write_gallery(tmp_path / "page.html", {tmp_path / name: "a dog runs"})
    page = Page(tmp_path / "page.html")
    ((image,), (link,)) = page.all("img"), page.all("a")
    assert resolve_link(tmp_path / "page.html", image["src"]) == str(tmp_path / name)
    assert link["href"] == image["src"]
    assert name in page.text
    assert not page.all("b")


def test_a_name_that_is_not_unicode_is_linked_by_its_bytes(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg"))
    write_gallery(tmp_path / "page.html", {path: "a dog runs"})
    (image,) = Page(tmp_path / "page.html").all("img")
    assert image["src"] == "%FF.jpg"


def test_no_caption_breaks_the_page(tmp_path):
    caption = 'a "dog" & <script>alert(1)</script> $figures'
    write_gallery(tmp_path / "page.html", {tmp_path / "a.jpg": caption})
    page = Page(tmp_path / "page.html")
    assert page.all("img")[0]["alt"] == caption
    assert caption in page.text
    assert not page.all("script")


def test_the_page_loads_nothing_from_elsewhere(tmp_path):
    write_gallery(tmp_path / "page.html", {})
    page = Page(tmp_path / "page.html")
    assert not page.all("script") and not page.all("link")
    assert "://" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_only_a_page_of_this_program_is_overwritten(tmp_path):
    refuse_to_overwrite(tmp_path / "new.html")
    write_gallery(tmp_path / "ours.html", {})
    refuse_to_overwrite(tmp_path / "ours.html")
    (tmp_path / "index.html").write_text("<h1>My page</h1>")
    with pytest.raises(FileExistsError, match="got .*index.html, which is another file"):
        refuse_to_overwrite(tmp_path / "index.html")
