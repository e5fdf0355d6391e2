"""Lines of text in a picture: a font for the words, breaks between lines, writing them down."""

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont

_LEADING = 1.3  # from line to line, of the font's size

# Pillow's own font knows the letters of English. Others are looked for where systems keep fonts.
_OTHER_FONTS = ("NotoSans-Regular.ttf", "DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")


def find_font(text: str, size: int) -> Font:
    """A font of this size, in pixels, for this text. Raises ValueError where none is at hand."""
    if text.isascii():
        return ImageFont.load_default(size)
    for name in _OTHER_FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    raise ValueError(
        "The caption has other letters than English. Wanted: one of the fonts "
        f"{', '.join(_OTHER_FONTS)}. Received: none of them. Install one."
    )


def break_lines(text: str, font: Font, width: int) -> list[str]:
    """The text in lines no wider than `width` pixels, but for words that are; in as few as that
    takes, all about as long, so that no word is left alone in the last."""
    lines = _fill(text, font, width)
    for narrower in range(width, 0, -10):
        tighter = _fill(text, font, narrower)
        if len(tighter) > len(lines):
            break
        lines = tighter
    return lines


def text_height(lines: list[str], font: Font) -> int:
    """Of the lines as `write_lines` sets them, in pixels."""
    return len(lines) * round(font.size * _LEADING)


def write_lines(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], lines: list[str], font: Font, colour: str
) -> None:
    """Writes the lines one below the other, the first with its upper left corner `at`."""
    left, top = at
    for number, line in enumerate(lines):
        below = top + text_height(lines[:number], font)
        draw.text((left, below), line, colour, font, anchor="la")


def _fill(text: str, font: Font, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
