"""A page that shows images with their captions, which are their `alt` texts as well.

To be read over in a browser, or moved together with the images.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template

from captioning.output.caption_formats import image_name
from captioning.output.page import figure, write_page

# Who hears the page hears the alt text; the same words below it are for who sees it.
_BELOW = Template('<span aria-hidden="true">$caption</span> <small>$name</small>')


def write_gallery(page_path: Path, captions: Mapping[Path, str]) -> None:
    """Writes the page with all images (path -> caption), in their order; an older one gives way."""
    figures = "".join(
        figure(
            image_path,
            page_path,
            caption,
            _BELOW.substitute(caption=escape(caption), name=escape(image_name(image_path))),
        )
        for image_path, caption in captions.items()
    )
    write_page(
        page_path,
        f"Captions ({len(captions)})",
        "A program wrote them, and it errs: read an alt text over before you use it.",
        f'<main class="images">\n{figures}</main>\n',
    )
