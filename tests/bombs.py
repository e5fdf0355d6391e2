"""Captions files that are made to exhaust memory or time, and prints what each takes:
`python -m tests.bombs`. It takes some minutes, and needs 2 GB of memory to make the files.

Each file must be captioned or refused in one line, within 1 GB of memory and 10 seconds of
processor time of the whole command. Returns 1 if one is not.
"""

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from threading import Timer

from PIL import Image

MAX_BYTES, MAX_SECONDS = 10**9, 10

PATIENCE = 300  # seconds, on a busy machine

ROOT = Path(__file__).parents[1]


def encoded(form: str, size=(64, 64), mode: str = "RGB", turned: bool = False, **options) -> bytes:
    """A file of one colour; `turned`, its EXIF data asks the viewer to turn it."""
    if turned:
        exif = Image.Exif()
        exif[0x0112] = 6
        options["exif"] = exif
    file = BytesIO()
    Image.new(mode, size, "brown" if mode in ("RGB", "RGBA") else 90).save(file, form, **options)
    return file.getvalue()


def animation(form: str, side: int, frames: int) -> bytes:
    first, *others = (Image.new("RGB", (side, side), (number, 90, 90)) for number in range(frames))
    file = BytesIO()
    first.save(file, form, save_all=True, append_images=others)
    return file.getvalue()


def chunk(name: bytes, data: bytes = b"") -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(side: int, depth: int, kind: int, pixel: bytes, *chunks: bytes) -> bytes:
    """A PNG file of side x side equal pixels, which is compressed line by line."""
    compressor = zlib.compressobj()
    lines = [compressor.compress(b"\0" + pixel * side) for _ in range(side)]
    header = struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0)
    pixels = b"".join(lines) + compressor.flush()
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", pixels), chunk(b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_segments(marker: bytes, content: bytes, count: int) -> bytes:
    """A JPEG file with so many segments of metadata."""
    jpeg = encoded("JPEG")
    segment = b"\xff" + marker + struct.pack(">H", len(content) + 2) + content
    return jpeg[:2] + segment * count + jpeg[2:]


def with_scans(side: int, count: int) -> bytes:
    """A progressive JPEG file whose last scan is repeated."""
    jpeg = encoded("JPEG", (side, side), "L", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * count + b"\xff\xd9"


def giant_jpeg(side: int, mode: str = "RGB") -> bytes:
    """A JPEG file of side x side equal pixels. It repeats 128 lines, between markers at which the
    decoder begins anew: an encoder would need 4 GB of memory for all lines."""
    lines = encoded("JPEG", (side, 128), mode, restart_marker_rows=1)
    height = lines.index(b"\xff\xc0") + 5
    scan = lines.index(b"\xff\xda") + 2
    scan += int.from_bytes(lines[scan : scan + 2])
    header = lines[:height] + struct.pack(">H", side) + lines[height + 2 : scan]
    return header + b"\xff\xd7".join([lines[scan:-2]] * ceil(side / 128)) + lines[-2:]


def one_scan_a_channel(side: int) -> bytes:
    """A JPEG file that is not progressive, but has its three channels one after the other."""
    grey = giant_jpeg(side, "L")
    before, after_frame = grey.split(b"\xff\xc0")
    tables, after_scan = after_frame[11:].split(b"\xff\xda")
    channels = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, side, side, 3) + channels
    starts = [b"\xff\xda\0\x08\1" + bytes([number]) + b"\0\0\x3f\0" for number in (1, 2, 3)]
    return (
        before + frame + tables + b"".join(start + after_scan[8:-2] for start in starts) + grey[-2:]
    )


def giant_jpeg_2000(width: int, height: int) -> bytes:
    """A file of some hundred bytes whose header states another size."""
    content = bytearray(encoded("JPEG2000"))
    size = content.index(b"\xff\x51") + 6
    for position in (size, size + 16):  # of the image, and of its only tile
        struct.pack_into(">II", content, position, width, height)
    struct.pack_into(">II", content, content.index(b"ihdr") + 4, height, width)
    return bytes(content)


def giant_webp(side: int) -> bytes:
    """A file of some bytes whose header states another size: equal pixels take no bytes."""
    content = bytearray(encoded("WEBP", lossless=True, quality=0, method=0))
    content[21:25] = struct.pack("<I", side - 1 << 14 | side - 1)
    return bytes(content)


def tiff(order: str, changes: dict[int, tuple[int, list[int]]], more: bytes = b"") -> bytes:
    """A grey TIFF file of 4 x 4 pixels with other values of some tags: tag -> type and values.
    `more` follows at the position 24."""
    tags = {256: (3, [4]), 257: (3, [4]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1]),
            273: (4, [8]), 277: (3, [1]), 278: (3, [4]), 279: (4, [16])} | changes  # fmt: skip
    begin = 24 + len(more)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", begin) + bytes(16)
    directory, values_after = struct.pack(f"{order}H", len(tags)), b""
    end = begin + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in sorted(tags.items()):
        content = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(content) > 4:
            place = struct.pack(f"{order}I", end + len(values_after))
            content, values_after = place, values_after + content
        directory += struct.pack(f"{order}HHI", tag, kind, len(values)) + content.ljust(4, b"\0")
    return start + more + directory + bytes(4) + values_after


def huge_tile(side: int) -> bytes:
    compressor = zlib.compressobj()
    pixels = b"".join(compressor.compress(bytes(side)) for _ in range(side)) + compressor.flush()
    tags = {259: (3, [8]), 322: (4, [side]), 323: (4, [side]), 324: (4, [24])}
    return tiff("<", tags | {325: (4, [len(pixels)])}, pixels)


def icon(form: str, inner: bytes) -> bytes:
    """An icon file with one image, PNG or JPEG 2000."""
    if form == "ICO":
        return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    sizes = struct.pack(">I", len(inner) + 16), struct.pack(">I", len(inner) + 8)
    return b"icns" + sizes[0] + b"ic08" + sizes[1] + inner


def heic(side: int) -> bytes:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return encoded("HEIF", (side, side), quality=10)


_PALETTE = chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(range(256)))

# Pixels a side: 8,192, 7,094 and 5,792 are the most that are decoded, of several formats.
BOMBS: dict[str, Callable[[], bytes]] = {
    "PNG, RGBA, 13,350": lambda: png(13_350, 8, 6, b"\1\2\3\x80"),
    "PNG, RGBA, 8,192": lambda: png(8_192, 8, 6, b"\1\2\3\x80"),
    "PNG, RGBA, rotated, 8,192": lambda: encoded("PNG", (8_192, 8_192), "RGBA", turned=True),
    "PNG, RGB of 10 bits in 16, 8,192": lambda: png(8_192, 16, 2, b"\3\2\3\2\3\2"),
    "PNG, RGBA of 16 bits, 8,192": lambda: png(8_192, 16, 6, b"\xf1\2\3\4\5\6\x80\x80"),
    "PNG, transparent palette, 8,192": lambda: png(8_192, 8, 3, b"\1", _PALETTE),
    "PNG, 1,600,000 chunks": lambda: png(64, 8, 0, b"\1", chunk(b"abCd") * 1_600_000),
    "TIFF, RGBA, 13,350": lambda: encoded(
        "TIFF", (13_350, 13_350), "RGBA", compression="tiff_adobe_deflate"
    ),
    "TIFF, RGBA, rotated, 8,192": lambda: encoded(
        "TIFF", (8_192, 8_192), "RGBA", compression="tiff_adobe_deflate", tiffinfo={0x0112: 6}
    ),
    "TIFF, a tile of 26,000": lambda: huge_tile(26_000),
    "TIFF, 2,500,000 strips": lambda: tiff(
        "<", {257: (4, [2_500_000]), 273: (4, [8] * 2_500_000), 278: (3, [1])}
    ),
    "JPEG, 16,320 x 12,240, of a phone": lambda: encoded("JPEG", (16_320, 12_240)),
    "JPEG, 32,760": lambda: giant_jpeg(32_760),
    "JPEG, cut off, 32,760": lambda: giant_jpeg(32_760)[:-40_000],
    "JPEG, progressive, 14,600": lambda: encoded("JPEG", (14_600, 14_600), progressive=True),
    "JPEG, progressive, 300 scans, 17,880": lambda: with_scans(17_880, 300),
    "JPEG, a scan for each channel, 32,760": lambda: one_scan_a_channel(32_760),
    "JPEG, 1,000,000 EXIF segments": lambda: with_segments(
        b"\xe1", b"Exif\0\0II*\0\x08\0\0\0", 1_000_000
    ),
    "JPEG, 5,000,000 comments": lambda: with_segments(b"\xfe", b"", 5_000_000),
    "JPEG 2000, 20,000 x 8,900": lambda: giant_jpeg_2000(20_000, 8_900),
    "JPEG 2000, RGBA, 5,792": lambda: encoded("JPEG2000", (5_792, 5_792), "RGBA"),
    "JPEG 2000, blocks of 4, 2,048": lambda: encoded(
        "JPEG2000", (2_048, 2_048), codeblock_size=(4, 4)
    ),
    "WebP, 16,383": lambda: giant_webp(16_383),
    "WebP, RGBA, 5,792": lambda: encoded("WEBP", (5_792, 5_792), "RGBA", lossless=True, method=0),
    "WebP, 10 frames of 5,792": lambda: animation("WEBP", 5_792, 10),
    "GIF, 8,192": lambda: encoded("GIF", (8_192, 8_192), "L"),
    "GIF, 200 frames of 1,000": lambda: animation("GIF", 1_000, 200),
    "AVIF, RGBA, 7,094": lambda: encoded("AVIF", (7_094, 7_094), "RGBA", speed=10, quality=10),
    "HEIC, 7,094": lambda: heic(7_094),
    "ICO, PNG of 13,300": lambda: icon("ICO", png(13_300, 8, 6, b"\1\2\3\x80")),
    "ICNS, JPEG 2000 of 13,300": lambda: icon("ICNS", giant_jpeg_2000(13_300, 13_300)),
    "DDS, 4,096": lambda: encoded("DDS", (4_096, 4_096), "RGBA"),
    "PPM, values to 4,095, 1,448": lambda: b"P6 1448 1448 4095\n" + b"\1\2" * (3 * 1_448**2),
    "PPM, values to 4,095, 5,792": lambda: b"P6 5792 5792 4095\n" + b"\1\2" * (3 * 5_792**2),
    "PostScript, endless": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n{} loop\n",
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """`end`: "captioned" or "refused", else what was printed; `peak`: bytes of memory; `seconds` of
    processor time."""

    end: str
    peak: int
    seconds: float

    @property
    def is_right(self) -> bool:
        is_named = self.end in ("captioned", "refused")
        return is_named and self.peak <= MAX_BYTES and self.seconds <= MAX_SECONDS


def make(name: str, path: Path) -> None:
    """Writes a file of `BOMBS` in a process of its own, whose memory, up to 2 GB, is then free. It
    would count as that of the command that follows."""
    making = get_context("spawn").Process(target=_write, args=(name, path))
    making.start()
    making.join()
    if making.exitcode:
        raise RuntimeError(f"Expected a file of {name}, got the exit status {making.exitcode}.")


def _write(name: str, path: Path) -> None:
    path.write_bytes(BOMBS[name]())


def caption(*paths: Path | str) -> Result:
    """Runs the command `caption` on the files. Not for Windows."""
    command = [sys.executable, str(ROOT / "Testing_caption_generator.py"), *map(str, paths)]
    with TemporaryFile() as output, TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        timer = Timer(PATIENCE, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        message = errors.read().decode()
    is_refused = process.returncode == 2 and message.count("\n") == len(paths)
    end = {0: "captioned", 2: "refused" if is_refused else ""}.get(process.returncode, "")
    unit = 1 if sys.platform == "darwin" else 1024
    seconds = usage.ru_utime + usage.ru_stime
    return Result(end or f"{process.returncode} {message}", usage.ru_maxrss * unit, seconds)


def main(arguments: list[str] | None = None) -> int:
    """Prints the table of all files. With arguments, the result for the files that they name."""
    paths = sys.argv[1:] if arguments is None else arguments
    if paths:
        print(json.dumps(asdict(caption(*paths))))
        return 0
    print("| file | bytes | end | peak memory | processor time |\n|---|---|---|---|---|")
    are_right = True
    with TemporaryDirectory() as folder:
        for number, name in enumerate(BOMBS):
            path = Path(folder, f"{number}.image")
            make(name, path)
            result = caption(path)
            are_right &= result.is_right
            print(
                f"| {name} | {path.stat().st_size:,} | {result.end} | {result.peak / 1e6:.0f} MB "
                f"| {result.seconds:.1f} s |",
                flush=True,
            )
            path.unlink()
    return int(not are_right)


if __name__ == "__main__":
    sys.exit(main())
