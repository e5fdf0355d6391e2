"""A picture of what each word of a caption looked at: the photograph, then a heat map a word.

In: a photograph and a `AttentionMaps`. Out: a page for a report, drawn with Pillow alone. Not about how the
weights were found.
"""

from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from captioning.data.images import ImageLike, open_image
from captioning.files import write_atomically
from captioning.inference.attention import ATTENTION, OCCLUSION, AttentionMaps
from captioning.output.lettering import break_lines, find_font, text_height, write_lines
from captioning.output.page import LIGHT

# In pixels, of which 300 make an inch: the page is as wide as the text of a report, 17 cm.
_DOTS_PER_INCH = 300
_PAGE_WIDTH = 2000
_MARGIN, _GUTTER = 60, 36
_TILE_AREA = 400 * 300  # about: columns are as many as come near it
_PHOTOGRAPH = (900, 750)  # width and height at most
_KEY = (400, 28)  # width and height of the key to the colours
_TITLE_SIZE, _WORD_SIZE, _NOTE_SIZE = 72, 40, 30

_PAPER, _TEXT, _QUIET = "#ffffff", LIGHT["text"], LIGHT["quiet"]
INK = "#c41e00"  # one hue: more of it is darker, in grey print as well
_COVER = 0.85  # the share of the photograph that the heaviest ink hides
_PALE = 0.55  # how far photographs are lightened below the ink, and lose of their contrast
_KEY_GROUND = 226  # the grey of a pale photograph in its light parts

_NOTES = {
    ATTENTION: "How the attention of each word was divided among the {rows} by {columns} cells of "
    "the feature map.",
    OCCLUSION: "How each word depends on the {rows} by {columns} cells of the feature map: shares "
    "in what it loses of its probability when one is left out.",
}

_SOFTWARE, _DESCRIPTION = 0x0131, 0x010E  # EXIF tags
_OURS = "caption generator"


def refuse_to_overwrite(path: Path) -> None:
    """Raises ValueError where a file lies that is not of this making."""
    try:
        with Image.open(path) as picture:
            is_ours = picture.getexif().get(_SOFTWARE) == _OURS
    except FileNotFoundError:
        return
    except (OSError, ValueError, SyntaxError):
        is_ours = False
    if not is_ours:
        raise ValueError(
            f"{path} is another file, which is not overwritten. Name a file that is not there."
        )


def write_attention_figure(path: Path, image: ImageLike, gaze: AttentionMaps) -> None:
    """Writes what `draw_attention_figure` draws as PNG or JPEG, by the ending of `path`; an older one
    gives way. The caption is in it as description (EXIF)."""
    page = draw_attention_figure(open_image(image), gaze)
    exif = Image.Exif()
    exif[_SOFTWARE] = _OURS
    exif[_DESCRIPTION] = " ".join(gaze.words).encode("utf-8")  # of text, Pillow keeps ASCII only
    form = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    with write_atomically(path) as file:
        page.save(file, form, dpi=(_DOTS_PER_INCH, _DOTS_PER_INCH), exif=exif, quality=80)


def draw_attention_figure(photograph: Image.Image, gaze: AttentionMaps) -> Image.Image:
    """The page, RGB: photograph and caption above, a tile a word below, row by row, all on one
    scale. Raises ValueError where the cells of the feature map make no square, or no font has the
    letters of the caption."""
    header = _header(photograph, gaze, gaze.maps.max(initial=0))
    tiles = _tiles(photograph.size, len(gaze.words))
    page = Image.new("RGB", (_PAGE_WIDTH, header.height + tiles.height + _MARGIN), _PAPER)
    page.paste(header)

    draw, font = ImageDraw.Draw(page), find_font("".join(gaze.words), _WORD_SIZE)
    drawn = draw_words(photograph, gaze, tiles.size)
    for number, (word, tile) in enumerate(zip(gaze.words, drawn, strict=True)):
        left, top = tiles.corner(number)
        top += header.height
        page.paste(tile, (left, top))
        write_lines(draw, (left, top + tiles.size[1] + _WORD_SIZE // 4), [word], font, _TEXT)
    return page


def draw_words(
    photograph: Image.Image, gaze: AttentionMaps, size: tuple[int, int]
) -> list[Image.Image]:
    """A heat map a word, RGB, of `size` (width, height), all on one scale. Raises ValueError where
    the cells of the feature map make no square."""
    maps = gaze.maps / gaze.maps.max(initial=0)
    ground = _pale(photograph.resize(size, Image.Resampling.LANCZOS))
    return [_inked(ground, _spread(strength, size)) for strength in maps]


def draw_key(size: tuple[int, int]) -> Image.Image:
    """The key to the colours of a heat map, RGB, from nothing on the left to the highest weight."""
    width, height = size
    weights = np.broadcast_to(np.linspace(0, 1, width), (height, width))
    return _inked(Image.new("L", size, _KEY_GROUND), weights)


def explain(gaze: AttentionMaps) -> str:
    """What its heat maps show, in a sentence."""
    _, rows, columns = gaze.maps.shape
    return _NOTES[gaze.method].format(rows=rows, columns=columns)


@dataclass(frozen=True)
class _Tiles:
    columns: int
    rows: int
    size: tuple[int, int]  # width and height of a tile

    @property
    def row_height(self) -> int:
        return self.size[1] + round(2.5 * _WORD_SIZE)

    @property
    def height(self) -> int:
        return self.rows * self.row_height - _WORD_SIZE

    def corner(self, number: int) -> tuple[int, int]:
        row, column = divmod(number, self.columns)
        return _MARGIN + column * (self.size[0] + _GUTTER), row * self.row_height


def _tiles(photograph: tuple[int, int], words: int) -> _Tiles:
    """Tiles of the photograph's shape; of the numbers of columns that give them about their size,
    the one that leaves the last row the fullest."""
    aspect = photograph[0] / photograph[1]
    inner = _PAGE_WIDTH - 2 * _MARGIN
    usual = min(max(round(inner / sqrt(_TILE_AREA * aspect)), 2), 9)
    columns = min((usual, usual + 1, usual - 1), key=lambda columns: -words % columns)
    width = (inner - (columns - 1) * _GUTTER) // columns
    return _Tiles(columns, -(-words // columns), (width, max(round(width / aspect), 1)))


def _header(photograph: Image.Image, gaze: AttentionMaps, highest: float) -> Image.Image:
    """The photograph, right of it the caption, and at its foot the key to the colours."""
    scale = min(most / own for most, own in zip(_PHOTOGRAPH, photograph.size, strict=True))
    size = tuple(max(round(scale * own), 1) for own in photograph.size)
    left = _MARGIN + size[0] + 2 * _GUTTER
    width = _PAGE_WIDTH - _MARGIN - left
    caption, note = " ".join(gaze.words), explain(gaze)
    title_font, note_font = find_font(caption, _TITLE_SIZE), find_font(note, _NOTE_SIZE)
    title, note = break_lines(caption, title_font, width), break_lines(note, note_font, width)
    foot = text_height(note, note_font) + _NOTE_SIZE // 2 + _KEY[1]
    height = max(size[1], text_height(title, title_font) + _GUTTER + foot)

    header = Image.new("RGB", (_PAGE_WIDTH, _MARGIN + height + 2 * _GUTTER), _PAPER)
    header.paste(photograph.resize(size, Image.Resampling.LANCZOS), (_MARGIN, _MARGIN))
    draw = ImageDraw.Draw(header)
    ascent = _TITLE_SIZE // 5  # between the top of a line and that of its letters
    write_lines(draw, (left, _MARGIN - ascent), title, title_font, _TEXT)
    write_lines(draw, (left, _MARGIN + height - foot), note, note_font, _QUIET)

    key_left, key_top = left + _NOTE_SIZE, _MARGIN + height - _KEY[1]
    header.paste(draw_key(_KEY), (key_left, key_top))
    middle = key_top + _KEY[1] // 2
    draw.text((left, middle), "0", _QUIET, note_font, anchor="lm")
    key_right = key_left + _KEY[0] + _NOTE_SIZE // 2
    draw.text((key_right, middle), f"{highest:.0%}", _QUIET, note_font, anchor="lm")
    return header


def _pale(photograph: Image.Image) -> Image.Image:
    """In grey, and light: the ground on which the ink is read."""
    return photograph.convert("L").point(lambda grey: round(255 - (1 - _PALE) * (255 - grey)))


def _spread(weights: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Weights (rows, columns) from 0 to 1, smoothly over `size` (width, height): (height, width).
    The feature map is that of the whole photograph, squeezed to a square."""
    smooth = Image.fromarray(weights.astype("float32")).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(smooth).clip(0, 1)


def _inked(ground: Image.Image, strength: np.ndarray) -> Image.Image:
    """A grey image under ink of a strength (height, width) from 0 to 1."""
    cover = _COVER * strength[:, :, None]
    ink = np.array(ImageColor.getrgb(INK), "float32")
    mixed = (1 - cover) * np.asarray(ground, "float32")[:, :, None] + cover * ink
    return Image.fromarray(mixed.round().astype("uint8"))  # (height, width, 3)
