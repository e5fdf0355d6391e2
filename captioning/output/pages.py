"""Writes HTML pages from the templates beside this module, such as the gallery of captioned images.

A page is one file without scripts. It is light or dark as the reader's system is, and links to the
images in their folders. `captioning.output.report` writes the report of a training run.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader

from captioning.errors import printable
from captioning.files import require_mark, write_atomically


def refuse_to_overwrite(page_path: Path) -> None:
    """Raises FileExistsError if `page_path` is a file that this module did not write."""
    require_mark(page_path, '<meta name="generator" content="caption generator">')


def write_gallery(page_path: Path, captions: Mapping[Path, str]) -> None:
    """Writes a page that shows all images in order, with their `captions` (image path -> caption)
    as text and as alt texts. Replaces an older page."""
    write_page(
        page_path,
        "gallery.html",
        title=f"Captions ({len(captions)})",
        images=(
            {"path": path, "name": printable(path), "caption": caption}
            for path, caption in captions.items()
        ),
    )


def write_page(page_path: Path, template: str, **values: object) -> None:
    """Fills a template with `values`, and writes the page. Replaces an older page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["link"] = _link
    page = environment.get_template(template)
    with write_atomically(page_path, "w") as file:
        file.writelines(page.generate(page_path=page_path, **values))


def _link(image_path: Path, page_path: Path) -> str:
    """The URL that leads from the page to the image; relative if both are on the same drive."""
    try:
        relative = os.path.relpath(image_path, page_path.parent)
    except ValueError:  # Windows has several drives
        return image_path.absolute().as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))
