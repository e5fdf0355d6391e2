"""Writes a page that shows images with their captions, which are their alt texts as well.

You can check the captions in a browser, or move the page together with the images.
"""

from collections.abc import Mapping
from pathlib import Path

from captioning.output.caption_formats import image_name
from captioning.output.pages import write_page


def write_gallery(page_path: Path, captions: Mapping[Path, str]) -> None:
    """Writes the page with all images (path -> caption), in their order. Replaces an older page."""
    write_page(
        page_path,
        "gallery.html",
        title=f"Captions ({len(captions)})",
        images=(
            {"path": path, "name": image_name(path), "caption": caption}
            for path, caption in captions.items()
        ),
    )
