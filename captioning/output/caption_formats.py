"""Captions of an image as lines of text, JSON or CSV, and back.

What a run prints or writes, and what it reads when it goes on. An image is named by the text that
`image_name` makes of its path; `listed` says whether the captions are a list of the best ones, with
their log-probabilities (`--top`), or the best one alone.
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
class Format:
    """How captions are written: `write(image, captions, listed)` gives whole lines, `read(line)`
    gives the image and the captions of one of them. Several lines may belong to one image."""

    name: str
    write: Callable[[str, list[Caption], bool], str]
    read: Callable[[str], tuple[str, list[Caption]]]
    header: str = ""


def image_name(path: str | Path) -> str:
    """The path as one line of text that can be encoded, whatever the file system holds."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\r", r"\r").replace("\n", r"\n")


def _write_bare(image: str, captions: list[Caption], listed: bool) -> str:
    return "".join(
        f"{caption} ({caption.log_prob:.4f})\n" if listed else f"{caption}\n"
        for caption in captions
    )


def _write_text(image: str, captions: list[Caption], listed: bool) -> str:
    lines = _write_bare(image, captions, listed).splitlines(keepends=True)
    return "".join(f"{image}: {line}" for line in lines)


def _read_text(line: str) -> tuple[str, list[Caption]]:
    # No caption has colons or braces, but the lines of other formats have.
    match = re.fullmatch(r"(.+): ([^:{}]*?)(?: \((-?\d+\.\d+)\))?", line, re.DOTALL)
    if match is None:
        raise ValueError(f"no image and caption: {line}")
    image, caption, log_prob = match.groups(default=math.nan)
    return image, [Caption(caption, float(log_prob))]


def _write_jsonl(image: str, captions: list[Caption], listed: bool) -> str:
    best, *_ = rows = [
        {"caption": caption.text, "log_prob": round(caption.log_prob, 4)} for caption in captions
    ]
    record = {"image": image, **best, **({"captions": rows} if listed else {})}
    return json.dumps(record, ensure_ascii=False) + "\n"


def _read_jsonl(line: str) -> tuple[str, list[Caption]]:
    record = json.loads(line)
    image, rows = record["image"], record.get("captions", [record])
    if not isinstance(image, str):
        raise TypeError(f"no name of an image: {image}")
    return image, [Caption(row["caption"], row["log_prob"]) for row in rows]


def _write_csv(image: str, captions: list[Caption], listed: bool) -> str:
    lines = io.StringIO()
    rows = [(image, caption.text, f"{caption.log_prob:.4f}") for caption in captions]
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines.getvalue()


def _read_csv(line: str) -> tuple[str, list[Caption]]:
    ((image, caption, log_prob),) = csv.reader([line])
    return image, [Caption(caption, float(log_prob))]


_TEXT = Format("text", _write_text, _read_text)
_JSONL = Format("jsonl", _write_jsonl, _read_jsonl)
_CSV = Format("csv", _write_csv, _read_csv, header="image,caption,log_prob\n")

FORMATS = {form.name: form for form in (_TEXT, _JSONL, _CSV)}
BARE = replace(_TEXT, write=_write_bare)  # for one image, whose name needs no saying
