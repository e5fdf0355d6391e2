"""Has people judge captions: draws sheets of photographs with captions, and counts verdicts.

    python tools/judge_captions.py sheets --root my_run --output sheets
    python tools/judge_captions.py count sheets/captions.csv first_reader.csv second_reader.csv

The first command draws photographs of a split at random, and captions them with each decoding. The
sheets number the photographs and mark their captions with letters in random order, so that no
reader knows the decoding of a caption; `captions.csv` states it. A reader writes a CSV file with
the columns `caption` (such as 17a), `verdict` (right, minor or wrong) and `kinds` (of error, such
as "action place"; empty for right captions). The second command counts the verdicts of each
decoding and reader, and prints how far two readers agree and how well the confidence predicts which
captions no reader finds wrong.
"""

import argparse
import csv
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from captioning.evaluation.metrics import score_confidences  # noqa: E402
from captioning.settings import SPLITS, USUAL_SEARCHES, SearchSettings  # noqa: E402

VERDICTS = ("right", "minor", "wrong")
DECODINGS = {decoding: SearchSettings(decoding=decoding) for decoding in USUAL_SEARCHES}
COLUMNS = ("caption", "image", "decoding", "text", "log_prob", "confidence")
_PER_SHEET, _ROWS = 10, 2

Row = dict[str, str]


def draw_sheets(root: Path, split: str, count: int, seed: int, output: Path) -> None:
    """Writes sheet_01.png, sheet_02.png, ... and captions.csv to the folder `output`."""
    from captioning.data.dataset import Dataset
    from captioning.inference.captioner import Captioner
    from captioning.paths import Paths

    dataset = Dataset.load(Paths(root).dataset)
    names = np.random.default_rng(seed).permutation(dataset.splits[split])[:count]
    images = [dataset.images / name for name in names]
    captioner = Captioner.load(root)
    captions = {
        decoding: [best for (best,) in captioner.caption_batch(images, search=search)]
        for decoding, search in DECODINGS.items()
    }
    order = np.random.default_rng([seed, count])
    rows = []
    for number, name in enumerate(names, start=1):
        for letter, decoding in zip("ab", order.permutation(list(DECODINGS)), strict=True):
            caption = captions[decoding][number - 1]
            numbers = caption.log_prob, caption.confidence
            values = (f"{number}{letter}", name, decoding, caption.text, *numbers)
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    output.mkdir(parents=True, exist_ok=True)
    with (output / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    for sheet, first in enumerate(range(0, count, _PER_SHEET), start=1):
        numbers = range(first, min(first + _PER_SHEET, count))
        _draw_sheet(
            [images[number] for number in numbers],
            [rows[2 * number : 2 * number + 2] for number in numbers],
            output / f"sheet_{sheet:02}.png",
        )


def _draw_sheet(images: Sequence[Path], rows: Sequence[Sequence[Row]], path: Path) -> None:
    import matplotlib.pyplot as plt
    from PIL import Image

    figure, axes = plt.subplots(
        _ROWS, _PER_SHEET // _ROWS, figsize=(20, 10.5), layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, image_path, image_rows in zip(axes.flat, images, rows, strict=False):
        with Image.open(image_path) as image:
            axis.imshow(image.convert("RGB"))
        lines = [f"{row['caption']}: {row['text']}" for row in image_rows]
        axis.set_title(
            "\n".join(textwrap.fill(line, 44, subsequent_indent="    ") for line in lines),
            loc="left",
            fontsize=11,
        )
    figure.savefig(path, dpi=80)
    plt.close(figure)


def count_verdicts(captions: Iterable[Row], readings: Sequence[Iterable[Row]]) -> Iterator[str]:
    """Yields a line for each decoding and reader, one for the agreement of two readers, and one for
    the confidence of each decoding, if `captions` hold it.

    `captions`: the rows of captions.csv; `readings`: the rows of each reader's file. Raises
    ValueError if a reader judged other captions, or by other words than `VERDICTS`.
    """
    captions = list(captions)
    decodings = {row["caption"]: row["decoding"] for row in captions}
    verdicts = []
    for number, reading in enumerate(readings, start=1):
        rows = {row["caption"]: row for row in reading}
        if rows.keys() != decodings.keys():
            difference = sorted(rows.keys() ^ decodings.keys())[:5]
            raise ValueError(
                f"Expected verdicts on all {len(decodings)} captions, got {len(rows)} from reader "
                f"{number}; only one of them has {', '.join(difference)}."
            )
        unknown = {row["verdict"] for row in rows.values()} - set(VERDICTS)
        if unknown:
            raise ValueError(f"Expected right, minor or wrong, got {', '.join(sorted(unknown))}.")
        for decoding in sorted(set(decodings.values())):
            judged = [rows[caption] for caption in decodings if decodings[caption] == decoding]
            counts = Counter(row["verdict"] for row in judged)
            kinds = Counter(kind for row in judged for kind in row["kinds"].split())
            totals = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
            errors = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
            yield f"reader {number}, {decoding}: {totals} of {len(judged)}; errors: {errors}"
        verdicts.append([rows[caption]["verdict"] for caption in decodings])
    if len(verdicts) == 2:
        agreed, kappa = _agreement(*verdicts)
        yield f"agreement: {agreed:.0%} of the verdicts, Cohen's kappa {kappa:.2f}"
    not_wrong = np.array(["wrong" not in pair for pair in zip(*verdicts, strict=True)])
    for decoding in sorted(set(decodings.values())):
        numbers = [n for n, row in enumerate(captions) if row["decoding"] == decoding]
        confidences = [captions[number].get("confidence") for number in numbers]
        if all(confidences):
            scores = score_confidences(np.array(confidences, float), not_wrong[numbers])
            yield (
                f"confidence, {decoding}: AUROC {scores['confidence AUROC']:.3f} for captions that "
                "no reader finds wrong"
            )


def _agreement(first: Sequence[str], second: Sequence[str]) -> tuple[float, float]:
    """The share of equal verdicts, and Cohen's kappa (1960): that share beyond chance."""
    agreed = np.mean([one == other for one, other in zip(first, second, strict=True)])
    by_chance = sum(first.count(v) * second.count(v) for v in VERDICTS) / len(first) ** 2
    return float(agreed), float((agreed - by_chance) / (1 - by_chance)) if by_chance < 1 else 1.0


def _read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Has people judge captions.")
    commands = parser.add_subparsers(dest="command", required=True)
    sheets = commands.add_parser("sheets", help="caption photographs of a split and draw sheets")
    sheets.add_argument("--root", type=Path, required=True, metavar="FOLDER")
    sheets.add_argument("--split", choices=SPLITS, default="development")
    sheets.add_argument("--count", type=int, default=100, metavar="N")
    sheets.add_argument("--seed", type=int, default=0, metavar="N")
    sheets.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    count = commands.add_parser("count", help="count the verdicts of one or two readers")
    count.add_argument("captions", type=Path, metavar="captions.csv")
    count.add_argument("readings", type=Path, nargs="+", metavar="READER.csv")
    options = parser.parse_args(arguments)
    if options.command == "sheets":
        draw_sheets(options.root, options.split, options.count, options.seed, options.output)
    else:
        readings = [_read(path) for path in options.readings]
        print(*count_verdicts(_read(options.captions), readings), sep="\n")


if __name__ == "__main__":
    main()
