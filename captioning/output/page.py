"""The pages that the program writes: their frame, their look, their pieces, their links to images.

One file without scripts, light or dark as the reader likes it, that links to the images where they
are. Not about what a page shows: see `captioning.output.gallery` and `captioning.output.report`.
"""

import os
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from captioning.files import write_atomically

_OURS = '<meta name="generator" content="caption generator">'

LIGHT = {
    "page": "#f6f5f2",
    "card": "#fff",
    "behind": "#e9e7e1",
    "text": "#22211f",
    "quiet": "#66635d",
}
DARK = {
    "page": "#171614",
    "card": "#24221f",
    "behind": "#0f0e0d",
    "text": "#ecebe7",
    "quiet": "#a5a199",
}

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="caption generator">
<title>$title</title>
<style>
:root { $light }
@media (prefers-color-scheme: dark) {
  :root { $dark }
}
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 1rem/1.45 system-ui, sans-serif;
}
header, main { max-width: 80rem; margin: auto; padding: 1rem 1.5rem; }
h1 { margin: 1rem 0 0; font-size: 1.6rem; }
header p, small { color: var(--quiet); }
.images {
  display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr));
}
figure {
  margin: 0; overflow: hidden; border-radius: .6rem; background: var(--card);
  box-shadow: 0 1px 4px #0003;
}
figure a { display: block; background: var(--behind); color: inherit; }
figure a:focus-visible { outline: 3px solid #4a8fe7; outline-offset: -3px; }
img { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; }
figcaption { padding: .8rem 1rem 1rem; }
small { display: block; margin-top: .3rem; overflow-wrap: anywhere; }
$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p>$introduction</p>
</header>
$content</body>
</html>
""")


def refuse_other_page(page_path: Path) -> None:
    """Raises ValueError where a page lies that is not of this making."""
    if page_path.exists() and _OURS not in page_path.read_text("utf-8", errors="replace"):
        raise ValueError(
            f"{page_path} is another page, which is not overwritten. Name a file that is not there."
        )


def write_page(
    page_path: Path, title: str, introduction: str, content: str, style: str = ""
) -> None:
    """Writes a page; an older one gives way. `title` and `introduction` are text, `content` is the
    HTML of `<main>`, and `style` the CSS that it wants besides that of every page."""
    page = _PAGE.substitute(
        title=escape(title),
        introduction=escape(introduction),
        content=content,
        style=style,
        light=_variables(LIGHT),
        dark=_variables(DARK),
    )
    with write_atomically(page_path, "w") as file:
        file.write(page)


def link(image_path: Path, page_path: Path) -> str:
    """What leads from the page to the image, for an attribute: relative, where both lie on the same
    drive."""
    try:
        relative = os.path.relpath(image_path, page_path.parent)
    except ValueError:  # Windows has several drives
        return escape(image_path.absolute().as_uri())
    return escape(quote(os.fsencode(relative.replace(os.sep, "/"))))


def section(title: str, introduction: str, *parts: str) -> str:
    """A part of a page: `title` and `introduction` are text, `parts` HTML."""
    return (
        f"<section>\n<h2>{escape(title)}</h2>\n<p>{escape(introduction)}</p>\n"
        f"{''.join(parts)}</section>\n"
    )


def definitions(style: str, values: Mapping) -> str:
    """Names and what they stand for, as a list of the class `style`."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>\n"
        for name, value in values.items()
    )
    return f'<dl class="{style}">\n{items}</dl>\n'


def figure(image_path: Path, page_path: Path, alt: str, caption: str) -> str:
    """An image that leads to itself: `alt` is text, `caption` the HTML below it."""
    url = link(image_path, page_path)
    return (
        f'<figure>\n<a href="{url}"><img src="{url}" alt="{escape(alt)}" loading="lazy"></a>\n'
        f"<figcaption>{caption}</figcaption>\n</figure>\n"
    )


def images(figures: Iterable[str]) -> str:
    """Figures side by side, as many as there is room for."""
    return f'<div class="images">\n{"".join(figures)}</div>\n'


def _variables(colours: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
