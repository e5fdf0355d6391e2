"""Does an image cost the same, in time and in memory, however many there are?

The command captions a folder, then resumes with its finished output file; then the feature maps of
the folder are extracted. The time for one image is subtracted, so that starting does not count. A
tiny encoder and tiny photographs show what surrounds the encoder. The images are links to a few
hundred photographs, and each number of images is measured once.
"""

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import CHECKOUT, Options, ProgramRun, Samples, call_in_process, run_program
from benchmarks.table import Row
from captioning.paths import Paths

_PHOTOGRAPHS = 300
_BASE = 1000  # images, that the largest folder is compared with: a hundred take no time
_NOISE_MS = 0.1  # an image: starts differ by more than a thousand images of less cost
_EXTRACT = "import sys; from benchmarks.program import extract_folder as e; e(*sys.argv[1:])"


@dataclass(frozen=True)
class Cost:
    """What a number of images cost: milliseconds an image, without the start, and megabytes."""

    images: int
    ms_per_image: float
    peak_mb: float


Curves = Mapping[str, Sequence[Cost]]


def growth(options: Options) -> list[Row]:
    sizes = [100]
    while sizes[-1] * 10 <= options.most_images:
        sizes.append(sizes[-1] * 10)
    with tempfile.TemporaryDirectory() as folder:
        call_in_process("benchmarks.growth:prepare", Path(folder))
        curves = measure_growth(Path(folder), sizes)
    if options.curve:
        call_in_process("benchmarks.growth:draw", curves, options.curve)
    return make_rows(curves)


def measure_growth(folder: Path, sizes: Sequence[int]) -> Curves:
    """`folder` holds what `prepare` wrote."""
    model = str(folder / "model")

    def caption(images: Path) -> ProgramRun:
        """Captions the images that are not in the output file yet."""
        command = [
            sys.executable,
            "Testing_caption_generator.py",
            "--model",
            model,
            "-i",
            str(images),
        ]
        return run_program([*command, "--output", str(images.with_suffix(".csv"))], CHECKOUT)

    def extract(images: Path) -> ProgramRun:
        return run_program([sys.executable, "-c", _EXTRACT, model, str(images)], CHECKOUT)

    ways = {
        "captioning": caption,
        "resuming a finished run": caption,
        "extracting features": extract,
    }
    curves: dict[str, list[Cost]] = {way: [] for way in ways}
    for size in sizes:
        one = _link(folder / "photographs", 1, folder / f"one_of_{size}")
        many = _link(folder / "photographs", size, folder / f"all_of_{size}")
        for way, run in ways.items():
            start, whole = run(one), run(many)
            milliseconds = 1000 * max(whole.seconds - start.seconds, 0) / size
            curves[way].append(Cost(size, milliseconds, whole.peak_mb))
    return curves


def make_rows(curves: Curves) -> list[Row]:
    """A row for each folder, and how the cost grows from `_BASE` images to the largest folder."""
    rows = []
    for way, costs in curves.items():
        for cost in costs:
            milliseconds, memory = Samples((cost.ms_per_image,)), f"{cost.peak_mb:.0f} MB"
            rows.append(Row(f"{way}, {cost.images:,} images", milliseconds, "ms", note=memory))
        base, last = next((cost for cost in costs if cost.images == _BASE), costs[0]), costs[-1]
        if last.images > base.images:
            before, after = (max(cost.ms_per_image, _NOISE_MS) for cost in (base, last))
            ratios = {"time per image": after / before, "memory": last.peak_mb / base.peak_mb}
            for what, ratio in ratios.items():
                name = f"{way}: {what}, {last.images:,} images against {base.images:,}"
                rows.append(Row(name, Samples((ratio,)), "times", at_most=1.25))
    return rows


def draw(curves: Curves, path: Path) -> None:
    """Draws time and memory over the number of images."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    titles = {"ms_per_image": "milliseconds per image", "peak_mb": "peak memory in MB"}
    for panel, (name, title) in zip(panels, titles.items(), strict=True):
        for way, costs in curves.items():
            sizes = [cost.images for cost in costs]
            panel.semilogx(sizes, [getattr(cost, name) for cost in costs], marker="o", label=way)
        panel.set(title=title, xlabel="images", xticks=sizes)
        panel.xaxis.set_major_formatter("{x:,.0f}")
        panel.margins(y=0.1)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
    panels[1].legend(loc="lower left")
    figure.savefig(path, metadata={"Date": None})


def prepare(folder: Path) -> None:
    """Writes tiny `photographs` and `model`, a root folder with a tiny, untrained model."""
    from PIL import Image

    from benchmarks.data import photographs
    from benchmarks.program import export_tiny_model

    (folder / "photographs").mkdir()
    for path in photographs(folder / "photographs", _PHOTOGRAPHS):
        with Image.open(path) as image:
            small = image.resize((64, 48))
        small.save(path)
    export_tiny_model(Paths(folder / "model"))


def _link(photographs: Path, count: int, folder: Path) -> Path:
    """Makes a folder of `count` links to the photographs, or copies where links are impossible."""
    folder.mkdir()
    originals = sorted(photographs.iterdir())
    for number in range(count):
        original, link = originals[number % len(originals)], folder / f"{number:06}.jpg"
        try:
            link.hardlink_to(original)
        except OSError:
            shutil.copyfile(original, link)
    return folder
