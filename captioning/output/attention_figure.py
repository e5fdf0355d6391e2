"""Draws a photograph, its caption, and a heat map of the attention of each word.

The figure is a matplotlib figure, or a PNG or JPEG file. `captioning.inference.attention` computes
the attention maps.
"""

from math import ceil
from pathlib import Path
from textwrap import fill, wrap

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.ticker import PercentFormatter
from PIL import ExifTags, Image

from captioning.data.images import ImageLike, open_image
from captioning.errors import UserError
from captioning.files import require_mark, write_atomically
from captioning.inference.attention import ATTENTION, OCCLUSION, AttentionMaps

# In inches. The figure is as wide as the text on an A4 page.
_WIDTH, _MARGIN = 6.7, 0.2
_TITLE_LINE, _BELOW_TITLE = 0.28, 0.1
_BETWEEN_TILES, _BELOW_TILE = 0.12, 0.27  # the space below a tile holds its word
_BAR_HEIGHT = 0.08
_DOTS_PER_INCH = 300

_MIN_ROWS = 3  # the photograph spans two rows, and the colour bar needs the third
_MIN_ASPECT, _MAX_ASPECT = 1 / 2, 5 / 2  # width to height of a tile, for any photograph

_TITLE = {"fontsize": 14, "color": "#22211f"}  # in points; an inch has 72
_WORD = {"fontsize": 8, "color": "#22211f"}
_NOTE = {"fontsize": 6.5, "color": "#66635d"}
_TITLE_LETTERS, _NOTE_LETTERS = 62, 40  # that fit in a line

_FONT = "DejaVu Sans"  # comes with matplotlib
_PLACEHOLDER_FONT = "Last Resort High-Efficiency"  # draws a box in place of every letter

_INK = "#c41e00"
# One hue, from transparent to nearly opaque, so that more attention is darker in grey print, too.
_HEAT = LinearSegmentedColormap.from_list("heat", [f"{_INK}00", f"{_INK}d9"])
_CONTRAST = 0.45  # of the grey photograph below the heat

_UNITS = {
    ATTENTION: "Share of the word's attention, which the decoder divides among the {rows} × "
    "{columns} cells of the feature map.",
    OCCLUSION: "Share of the log-probability that the word loses when one of the {rows} × "
    "{columns} cells of the feature map is left out (occlusion).",
}

_SOFTWARE = "caption generator"  # marks the files that this module wrote


def refuse_to_overwrite(path: Path) -> None:
    """Raises FileExistsError if `path` is a file that this module did not write."""
    require_mark(path, _SOFTWARE)


def write_attention_figure(path: Path, image: ImageLike, attention: AttentionMaps) -> None:
    """Writes the figure at 300 dots per inch, with the caption as its description (EXIF).

    The format is PNG if `path` ends in .png, else JPEG. An older file is replaced. Raises the
    errors of `draw_attention_figure`, and those of `captioning.data.images.open_image`.
    """
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = _SOFTWARE
    caption = " ".join(attention.words)
    exif[ExifTags.Base.ImageDescription] = caption.encode()  # Pillow would drop non-ASCII text
    figure = draw_attention_figure(open_image(image), attention)
    file_format = "png" if path.suffix.lower() == ".png" else "jpeg"
    with write_atomically(path) as file:
        figure.savefig(
            file,
            format=file_format,
            dpi=_DOTS_PER_INCH,
            pil_kwargs={"exif": exif, "quality": 85},
        )


def draw_attention_figure(photograph: Image.Image, attention: AttentionMaps) -> Figure:
    """Draws the caption, the photograph and a tile for each word. All tiles have the same scale.

    Raises UserError if the cells of the feature map do not form a square, or if no font on this
    computer has the letters of the caption.
    """
    caption = " ".join(attention.words)
    fonts = {"fontfamily": find_fonts(caption)}
    title = wrap(caption, _TITLE_LETTERS)
    columns = 3 if len(attention.words) <= 9 else 4  # beside the photograph, which spans two
    rows = max(ceil(len(attention.words) / columns), _MIN_ROWS)
    tile_width = (_WIDTH - 2 * _MARGIN - (columns + 1) * _BETWEEN_TILES) / (columns + 2)
    photograph = photograph.copy()
    photograph.thumbnail(2 * [round(2 * tile_width * _DOTS_PER_INCH)])
    aspect = min(max(photograph.width / photograph.height, _MIN_ASPECT), _MAX_ASPECT)
    tile_height = tile_width / aspect
    header = _MARGIN + _TITLE_LINE * len(title) + _BELOW_TITLE
    height = header + rows * (tile_height + _BELOW_TILE) + _MARGIN

    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    left, top = _MARGIN / _WIDTH, 1 - _MARGIN / height
    figure.text(left, top, "\n".join(title), va="top", **_TITLE, **fonts)
    grid = figure.add_gridspec(
        rows,
        columns + 2,
        left=left,
        right=1 - left,
        top=1 - header / height,
        bottom=(_BELOW_TILE + _MARGIN) / height,
        wspace=_BETWEEN_TILES / tile_width,
        hspace=_BELOW_TILE / tile_height,
    )
    _show(figure.add_subplot(grid[:2, :2]), photograph)
    tiles = zip(attention.words, draw_overlays(photograph, attention), strict=True)
    for number, (word, overlay) in enumerate(tiles):
        axes = figure.add_subplot(grid[number // columns, 2 + number % columns])
        _show(axes, overlay)
        axes.set_xlabel(word, loc="left", labelpad=3, **_WORD, **fonts)
    box = grid[:2, :2].get_position(figure)
    _add_colour_bar(figure.add_axes((box.x0, box.y0, box.width, _BAR_HEIGHT / height)), attention)
    return figure


def draw_overlays(photograph: Image.Image, attention: AttentionMaps) -> list[Image.Image]:
    """Draws the attention of each word over the photograph in pale grey. Returns an RGB image of
    the size of the photograph for each word; all have the same scale.

    Raises UserError if the cells of the feature map do not form a square.
    """
    background = photograph.convert("L").point(lambda grey: round(255 - _CONTRAST * (255 - grey)))
    background = background.convert("RGBA")
    maps = attention.maps
    colours = _HEAT(maps / maps.max(initial=0), bytes=True)  # (words, rows, columns, RGBA)
    overlays = []
    for word_colours in colours:
        heat = Image.fromarray(word_colours).resize(background.size, Image.Resampling.BICUBIC)
        overlays.append(Image.alpha_composite(background, heat).convert("RGB"))
    return overlays


def explain_scale(attention: AttentionMaps) -> str:
    """Returns a sentence that names the unit of the maps and the method that computed them."""
    _, rows, columns = attention.maps.shape
    return _UNITS[attention.method].format(rows=rows, columns=columns)


def find_fonts(text: str) -> list[str]:
    """Returns font families that together have all letters of the text. Raises UserError if the
    fonts of this computer lack a letter: matplotlib would draw a box in its place."""
    missing = {letter for letter in text if not letter.isspace()}
    families = []
    for font in sorted(fontManager.ttflist, key=lambda font: font.name != _FONT):
        if not missing:
            break
        if font.name == _PLACEHOLDER_FONT or (font.style, font.weight) != ("normal", 400):
            continue
        has_glyph = get_font(font.fname).get_char_index
        if letters := {letter for letter in missing if has_glyph(ord(letter))}:
            families.append(font.name)
            missing -= letters
    if missing:
        raise UserError(
            f"Expected a font with the letters {' '.join(sorted(missing))}, got none on this "
            "computer. Install one, such as Noto Sans for that script."
        )
    return families or [_FONT]


def _show(axes: Axes, image: Image.Image) -> None:
    axes.imshow(image)
    axes.set(xticks=[], yticks=[], frame_on=False, anchor="NW")


def _add_colour_bar(axes: Axes, attention: AttentionMaps) -> None:
    """Fills the axes with the scale of the tiles, and writes the unit below it."""
    highest = attention.maps.max(initial=0) or 1
    scale = ScalarMappable(Normalize(0, highest), _HEAT)
    bar = axes.figure.colorbar(scale, axes, orientation="horizontal", ticks=[0, highest])
    bar.outline.set_visible(False)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.tick_params(length=0, pad=3, labelsize=_NOTE["fontsize"], labelcolor=_NOTE["color"])
    for label, side in zip(axes.get_xticklabels(), ("left", "right"), strict=True):
        label.set_horizontalalignment(side)
    axes.set_xlabel(fill(explain_scale(attention), _NOTE_LETTERS), loc="left", **_NOTE)
