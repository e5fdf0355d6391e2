"""Writes HTML pages from the templates beside this module.

A page is one file without scripts, light or dark as the reader's system is. It links to the images
where they lie. What the pages show: see `captioning.output.gallery` and `captioning.output.report`.
"""

import os
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader

from captioning.files import require_mark, write_atomically


def refuse_to_overwrite(page_path: Path) -> None:
    """Raises FileExistsError if `page_path` holds anything but a page of this program."""
    require_mark(page_path, '<meta name="generator" content="caption generator">')


def write_page(page_path: Path, template: str, **values: object) -> None:
    """Fills the template with the values and writes the page. Replaces an older page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["link"] = link
    page = environment.get_template(template)
    with write_atomically(page_path, "w") as file:
        file.writelines(page.generate(page_path=page_path, **values))


def link(image_path: Path, page_path: Path) -> str:
    """The URL that leads from the page to the image: relative, if both lie on the same drive."""
    try:
        relative = os.path.relpath(image_path, page_path.parent)
    except ValueError:  # Windows has several drives
        return image_path.absolute().as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))
