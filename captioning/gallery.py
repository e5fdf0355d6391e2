"""A page that shows images with their captions, which are their `alt` texts as well.

One file without scripts that links to the images where they are: to be read over in a browser, or
moved together with them.
"""

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from captioning.files import write_atomically
from captioning.result_formats import image_name

_OURS = '<meta name="generator" content="caption generator">'

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="caption generator">
<title>Captions ($count)</title>
<style>
:root {
  --page: #f6f5f2; --card: #fff; --behind: #e9e7e1; --text: #22211f; --quiet: #66635d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #171614; --card: #24221f; --behind: #0f0e0d; --text: #ecebe7; --quiet: #a5a199;
  }
}
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 1rem/1.45 system-ui, sans-serif;
}
header, main { max-width: 80rem; margin: auto; padding: 1rem 1.5rem; }
h1 { margin: 1rem 0 0; font-size: 1.6rem; }
header p, small { color: var(--quiet); }
main {
  display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr));
}
figure {
  margin: 0; overflow: hidden; border-radius: .6rem; background: var(--card);
  box-shadow: 0 1px 4px #0003;
}
a { display: block; background: var(--behind); color: inherit; }
a:focus-visible { outline: 3px solid #4a8fe7; outline-offset: -3px; }
img { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; }
figcaption { padding: .8rem 1rem 1rem; }
small { display: block; margin-top: .3rem; overflow-wrap: anywhere; }
</style>
</head>
<body>
<header>
<h1>Captions ($count)</h1>
<p>A program wrote them, and it errs: read an alt text over before you use it.</p>
</header>
<main>
$figures</main>
</body>
</html>
""")

# Who hears the page hears the alt text; the same words below it are for who sees it.
_FIGURE = Template("""\
<figure>
<a href="$link"><img src="$link" alt="$caption" loading="lazy"></a>
<figcaption><span aria-hidden="true">$caption</span> <small>$name</small></figcaption>
</figure>
""")


def refuse_other_page(page_path: Path) -> None:
    """Raises ValueError where a page lies that is not of this making."""
    if page_path.exists() and _OURS not in page_path.read_text("utf-8", errors="replace"):
        raise ValueError(
            f"{page_path} is another page, which is not overwritten. Name a file that is not there."
        )


def write_gallery(page_path: Path, captions: Mapping[Path, str]) -> None:
    """Writes the page with all images (path -> caption), in their order; an older one gives way.
    Links are relative to the page, where it lies on the same drive as the image."""
    figures = [
        _FIGURE.substitute(
            link=escape(_link(image_path, page_path)),
            caption=escape(caption),
            name=escape(image_name(image_path)),
        )
        for image_path, caption in captions.items()
    ]
    page = _PAGE.substitute(count=len(figures), figures="".join(figures))
    with write_atomically(page_path, "w") as file:
        file.write(page)


def _link(image_path: Path, page_path: Path) -> str:
    try:
        relative = os.path.relpath(image_path, page_path.parent)
    except ValueError:  # Windows has several drives
        return image_path.absolute().as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))
