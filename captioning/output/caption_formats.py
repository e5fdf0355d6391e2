"""Writes the captions of an image as lines of text, JSON or CSV, and reads them again.

Images are named by their paths, as `captioning.errors.printable` writes them. An image has its best
caption, or `ranked` captions: the best ones, each with its log-probability (`--top`). JSON and CSV
also hold the confidence of each caption. If the model has none, it is null in JSON, empty in CSV.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from captioning.errors import UserError
from captioning.inference.decoding import Caption
from captioning.settings import UNSURE_BELOW


@dataclass(frozen=True)
class CaptionFormat:
    """`write(image_name, captions, ranked)` returns whole lines. `read(line)` returns the image
    name and the captions of a line. An image may have several lines."""

    name: str
    write: Callable[[str, list[Caption], bool], str]
    read: Callable[[str], tuple[str, list[Caption]]]
    header: str = ""


def mark_unsure(caption: Caption) -> str:
    """Returns the caption as people see it, without its confidence: marked as "Not sure: ..." if
    that is below `UNSURE_BELOW`."""
    is_unsure = caption.confidence is not None and caption.confidence < UNSURE_BELOW
    return f"Not sure: {caption}" if is_unsure else caption.text


def _write_captions(image_name: str, captions: list[Caption], ranked: bool) -> str:
    return "".join(
        f"{caption} ({caption.log_prob:.4f})\n" if ranked else f"{caption}\n"
        for caption in captions
    )


def _write_text(image_name: str, captions: list[Caption], ranked: bool) -> str:
    lines = _write_captions(image_name, captions, ranked).splitlines(keepends=True)
    return "".join(f"{image_name}: {line}" for line in lines)


def _read_text(line: str) -> tuple[str, list[Caption]]:
    # Captions contain no colons or braces, but lines of the other formats do.
    match = re.fullmatch(r"(.+): ([^:{}]*?)(?: \((-?\d+\.\d+)\))?", line, re.DOTALL)
    if match is None:
        raise UserError(f"Expected an image and its caption, got {line}.")
    image_name, caption, log_prob = match.groups(default=math.nan)
    return image_name, [Caption(caption, float(log_prob))]


def _write_jsonl(image_name: str, captions: list[Caption], ranked: bool) -> str:
    best, *_ = rows = [
        {
            "caption": caption.text,
            "log_prob": round(caption.log_prob, 4),
            "confidence": caption.confidence and round(caption.confidence, 4),
        }
        for caption in captions
    ]
    record = {"image": image_name, **best, **({"captions": rows} if ranked else {})}
    return json.dumps(record, ensure_ascii=False) + "\n"


def _read_jsonl(line: str) -> tuple[str, list[Caption]]:
    record = json.loads(line)
    image_name, rows = record["image"], record.get("captions", [record])
    captions = [Caption(row["caption"], row["log_prob"], row["confidence"]) for row in rows]
    texts = [image_name, *(caption.text for caption in captions)]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"Expected an image and its captions, got {texts}.")
    if not all(isinstance(caption.log_prob, float) for caption in captions):
        raise TypeError("Expected log-probabilities.")
    if not all(isinstance(caption.confidence, float | None) for caption in captions):
        raise TypeError("Expected confidences.")
    return image_name, captions


def _write_csv(image_name: str, captions: list[Caption], ranked: bool) -> str:
    lines = io.StringIO()
    rows = [
        (
            image_name,
            caption.text,
            f"{caption.log_prob:.4f}",
            "" if caption.confidence is None else f"{caption.confidence:.4f}",
        )
        for caption in captions
    ]
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines.getvalue()


def _read_csv(line: str) -> tuple[str, list[Caption]]:
    ((image_name, caption, log_prob, confidence),) = csv.reader([line])
    return image_name, [
        Caption(caption, float(log_prob), float(confidence) if confidence else None)
    ]


_TEXT = CaptionFormat("text", _write_text, _read_text)
_JSONL = CaptionFormat("jsonl", _write_jsonl, _read_jsonl)
_CSV = CaptionFormat("csv", _write_csv, _read_csv, header="image,caption,log_prob,confidence\n")

FORMATS = {"text": _TEXT, "jsonl": _JSONL, "csv": _CSV}
WITHOUT_NAMES = replace(_TEXT, write=_write_captions)  # for a single image
