"""Captions of an image as lines of text, JSON or CSV, and back.

An image goes by the text that `image_name` makes of its path. Its captions are the best one alone,
or `ranked`: the best ones, each with its log-probability (`--top`).
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from captioning.inference.networks import Caption


@dataclass(frozen=True)
class CaptionFormat:
    """`write(image, captions, ranked)` gives whole lines, `read(line)` the image and the captions
    of one of them. Several lines may belong to one image."""

    name: str
    write: Callable[[str, list[Caption], bool], str]
    read: Callable[[str], tuple[str, list[Caption]]]
    header: str = ""


def image_name(path: str | Path) -> str:
    """The path as one line of UTF-8 text, whatever characters the file system has in it."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\r", r"\r").replace("\n", r"\n")


def _write_captions(image: str, captions: list[Caption], ranked: bool) -> str:
    return "".join(
        f"{caption} ({caption.log_prob:.4f})\n" if ranked else f"{caption}\n"
        for caption in captions
    )


def _write_text(image: str, captions: list[Caption], ranked: bool) -> str:
    lines = _write_captions(image, captions, ranked).splitlines(keepends=True)
    return "".join(f"{image}: {line}" for line in lines)


def _read_text(line: str) -> tuple[str, list[Caption]]:
    # No caption has colons or braces, but the lines of other formats have.
    match = re.fullmatch(r"(.+): ([^:{}]*?)(?: \((-?\d+\.\d+)\))?", line, re.DOTALL)
    if match is None:
        raise ValueError(f"Expected an image and its caption, got {line}.")
    image, caption, log_prob = match.groups(default=math.nan)
    return image, [Caption(caption, float(log_prob))]


def _write_jsonl(image: str, captions: list[Caption], ranked: bool) -> str:
    best, *_ = rows = [
        {"caption": caption.text, "log_prob": round(caption.log_prob, 4)} for caption in captions
    ]
    record = {"image": image, **best, **({"captions": rows} if ranked else {})}
    return json.dumps(record, ensure_ascii=False) + "\n"


def _read_jsonl(line: str) -> tuple[str, list[Caption]]:
    record = json.loads(line)
    image, rows = record["image"], record.get("captions", [record])
    if not isinstance(image, str):
        raise TypeError(f"Expected the name of an image, got {image}.")
    return image, [Caption(row["caption"], row["log_prob"]) for row in rows]


def _write_csv(image: str, captions: list[Caption], ranked: bool) -> str:
    lines = io.StringIO()
    rows = [(image, caption.text, f"{caption.log_prob:.4f}") for caption in captions]
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines.getvalue()


def _read_csv(line: str) -> tuple[str, list[Caption]]:
    ((image, caption, log_prob),) = csv.reader([line])
    return image, [Caption(caption, float(log_prob))]


_TEXT = CaptionFormat("text", _write_text, _read_text)
_JSONL = CaptionFormat("jsonl", _write_jsonl, _read_jsonl)
_CSV = CaptionFormat("csv", _write_csv, _read_csv, header="image,caption,log_prob\n")

FORMATS = {each.name: each for each in (_TEXT, _JSONL, _CSV)}
WITHOUT_NAMES = replace(_TEXT, write=_write_captions)  # for a single image
