"""Makes the damaged files: whole ones in many formats, and ways to damage bytes, text and JSON."""

import json
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

try:
    from pillow_heif import register_heif_opener
except ImportError:  # Pillow writes no HEIC images then
    pass
else:
    register_heif_opener()

Random = np.random.Generator

# Format of Pillow -> ending, and variants: the mode of the image and the options of `save`.
FORMATS: dict[str, tuple[str, list[tuple[str, dict]]]] = {
    "AVIF": (".avif", [("RGB", {}), ("RGBA", {})]),
    "BLP": (".blp", [("P", {"blp_version": "BLP2"})]),
    "BMP": (".bmp", [("RGB", {}), ("P", {}), ("1", {})]),
    "DDS": (".dds", [("RGB", {}), ("RGBA", {})]),
    "DIB": (".dib", [("RGB", {})]),
    "EPS": (".eps", [("RGB", {})]),
    "GIF": (".gif", [("P", {}), ("L", {"save_all": True, "append_images": True})]),
    "ICNS": (".icns", [("RGBA", {})]),
    "ICO": (".ico", [("RGBA", {})]),
    "IM": (".im", [("RGB", {})]),
    "JPEG": (".jpg", [("RGB", {"exif": 6}), ("L", {"progressive": True}), ("CMYK", {})]),
    "JPEG2000": (".jp2", [("RGB", {}), ("L", {"irreversible": True})]),
    "MPO": (".mpo", [("RGB", {"save_all": True, "append_images": True})]),
    "MSP": (".msp", [("1", {})]),
    "PALM": (".palm", [("1", {})]),
    "PCX": (".pcx", [("RGB", {}), ("P", {})]),
    "PDF": (".pdf", [("RGB", {})]),
    "PNG": (".png", [("RGB", {}), ("RGBA", {}), ("P", {"transparency": 0}), ("I;16", {})]),
    "PPM": (".ppm", [("RGB", {}), ("L", {}), ("1", {})]),
    "QOI": (".qoi", [("RGBA", {})]),
    "SGI": (".sgi", [("RGB", {}), ("L", {})]),
    "SPIDER": (".spider", [("F", {})]),
    "TGA": (".tga", [("RGB", {}), ("RGBA", {"compression": "tga_rle"})]),
    "TIFF": (
        ".tif",
        [
            ("RGB", {"compression": "tiff_lzw"}),
            ("L", {"compression": "jpeg"}),
            ("1", {"compression": "group4"}),
            ("F", {}),
            ("CMYK", {"compression": "packbits"}),
            ("RGB", {"compression": "tiff_deflate", "save_all": True, "append_images": True}),
        ],
    ),
    "WEBP": (".webp", [("RGB", {}), ("RGBA", {"lossless": True})]),
    "XBM": (".xbm", [("1", {})]),
    "HEIF": (".heic", [("RGB", {})]),
}  # fmt: skip

HOSTILE_NUMBERS = (0, 1, -1, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 99999999999)
HOSTILE_VALUES: tuple[Any, ...] = (
    *HOSTILE_NUMBERS, 10**400, 0.5, -1e308, float("nan"), float("inf"), True, None, "", "0", "\0",
    "../../etc/passwd", "/dev/zero", "a\nb", "\ud800", "x" * 10_000, [], {}, [None], {"": []},
)  # fmt: skip
_TOKEN = re.compile(rb"-?\d+(?:\.\d+)?|\w+|[^\w\s]")
_HOSTILE_TOKENS = (
    *(str(number).encode() for number in HOSTILE_NUMBERS), b"9" * 400, b"nan", b"1e999", b"", b"\0",
    b"\n", b"\r", b"\t", b'"', b"<", b"&", b",", b"\xff\xfe", b"\xed\xa0\x80", b"{" * 50_000,
    b"[" * 100_000, "\u2028\u0085\u202e".encode(), b"\x1b[2J", b"a" * 100_000,
)  # fmt: skip


def whole_images() -> list[tuple[str, bytes]]:
    """Returns ending and content of a drawing in each format that Pillow writes here."""
    drawing = Image.new("RGB", (96, 64), "white")
    ImageDraw.Draw(drawing).ellipse((20, 10, 60, 50), fill="red")
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype="uint8")
    drawing = Image.blend(drawing, Image.fromarray(noise), 0.1)
    images = []
    for name, (ending, variants) in FORMATS.items():
        for mode, options in variants:
            content = _save(
                drawing.convert(mode) if mode != "I;16" else _deep(drawing), name, options
            )
            if content:
                images.append((ending, content))
    return images


def _save(image: Image.Image, format_name: str, options: dict) -> bytes | None:
    if "append_images" in options:
        options = options | {"append_images": [image.rotate(90)]}
    if "exif" in options:
        exif = Image.Exif()
        exif[0x0112], exif[0x010E] = options["exif"], "a description"
        options = options | {"exif": exif}
    file = BytesIO()
    try:
        image.save(file, format_name, **options)
    except (KeyError, OSError):  # this Pillow has no such encoder
        return None
    return file.getvalue()


def _deep(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L"), "uint16") * 200)


def damage_bytes(random: Random, content: bytes, other: bytes) -> tuple[str, bytes]:
    """Damages the content of a file in a random way, some of which take a part of an `other` file.
    Returns the name of the way and the damaged content."""
    name = str(random.choice(list(_WAYS)))
    return name, _WAYS[name](random, bytearray(content), other)


def _flip(random: Random, content: bytearray, other: bytes) -> bytes:
    for place in random.integers(0, len(content), random.integers(1, 21)):
        content[place] ^= 1 << random.integers(8)
    return bytes(content)


def _flip_beginning(random: Random, content: bytearray, other: bytes) -> bytes:
    for place in random.integers(0, min(len(content), 200), random.integers(1, 6)):
        content[place] = random.integers(256)
    return bytes(content)


def _replace_number(random: Random, content: bytearray, other: bytes) -> bytes:
    size = int(random.choice([1, 2, 4, 8]))
    number = int(random.choice(HOSTILE_NUMBERS)) % 256**size
    end = min(len(content), int(random.choice([100, 1000, 10**9])))
    place = random.integers(0, end)
    content[place : place + size] = number.to_bytes(size, random.choice(["big", "little"]))
    return bytes(content)


def _splice(random: Random, content: bytearray, other: bytes) -> bytes:
    return bytes(content[: random.integers(len(content))]) + other[random.integers(len(other)) :]


def _insert(random: Random, content: bytearray, other: bytes) -> bytes:
    place = random.integers(len(content))
    noise = random.bytes(int(random.integers(1, 100))) * int(random.choice([1, 1000]))
    return bytes(content[:place]) + noise + bytes(content[place:])


def _remove(random: Random, content: bytearray, other: bytes) -> bytes:
    first, last = sorted(random.integers(0, len(content), 2))
    del content[first : min(last, first + int(random.choice([1, 4, 100, 10**9])))]
    return bytes(content)


def _blank(random: Random, content: bytearray, other: bytes) -> bytes:
    first, last = sorted(random.integers(0, len(content), 2))
    return bytes(content[:first]) + bytes(last - first) + bytes(content[last:])


_WAYS: dict[str, Callable[[Random, bytearray, bytes], bytes]] = {
    "whole": lambda random, content, other: bytes(content),
    "empty": lambda random, content, other: b"",
    "truncated": lambda random, content, other: bytes(content[: random.integers(len(content))]),
    "bits flipped": _flip,
    "beginning altered": _flip_beginning,
    "number replaced": _replace_number,
    "spliced": _splice,
    "bytes inserted": _insert,
    "bytes removed": _remove,
    "bytes blanked": _blank,
    "other file": lambda random, content, other: other,
}


def damage_text(random: Random, content: bytes, other: bytes) -> tuple[str, bytes]:
    """Damages the text of a file: replaces a few of its words and numbers by hostile ones, mixes
    its lines, or stores it in another encoding. Sometimes damages its bytes instead."""
    way = random.integers(4)
    if way == 0:
        return damage_bytes(random, content, other)
    if way == 1:
        lines = content.splitlines(keepends=True)
        first, second = random.integers(0, len(lines), 2)
        lines[first : first + 1] = lines[second : second + int(random.integers(0, 3))]
        return "lines mixed", b"".join(lines)
    if way == 2 and random.integers(4) == 0:
        encoding = str(random.choice(["utf-16", "utf-32", "utf-8-sig", "cp037"]))
        return encoding, content.decode("utf-8", "replace").encode(encoding, "replace")
    for _ in range(random.integers(1, 4)):
        matches = list(_TOKEN.finditer(content))
        match = matches[random.integers(len(matches))]
        token = _HOSTILE_TOKENS[random.integers(len(_HOSTILE_TOKENS))]
        content = content[: match.start()] + token + content[match.end() :]
    return "words replaced", content


def damage_json(random: Random, content: bytes, other: bytes) -> tuple[str, bytes]:
    """Damages a JSON file: replaces, removes or moves a few of its values, or damages its text."""
    if random.integers(4) == 0:
        return damage_text(random, content, other)
    lines = content.decode().splitlines() if b"}\n{" in content else [content.decode()]
    place = random.integers(len(lines))
    value = json.loads(lines[place])
    for _ in range(random.integers(1, 4)):
        value = _damage_value(random, value)
    lines[place] = json.dumps(value)
    return "values replaced", "\n".join(lines).encode("utf-8", "surrogatepass")


def _damage_value(random: Random, value: Any) -> Any:
    if isinstance(value, (dict, list)) and value and random.integers(8):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = keys[random.integers(len(keys))]
        way = random.integers(10)
        if way == 0:
            del value[key]
        elif way == 1:
            value[key] = value[keys[random.integers(len(keys))]]
        elif way == 2 and isinstance(value, dict):
            value[_hostile(random, str)] = value.pop(key)
        else:
            value[key] = _damage_value(random, value[key])
        return value
    return _hostile(random)


def _hostile(random: Random, kind: type = object) -> Any:
    values = [value for value in HOSTILE_VALUES if isinstance(value, kind)]
    value = values[random.integers(len(values))]
    return json.loads(json.dumps(value))  # a copy
