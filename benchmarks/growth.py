"""Does an image cost the same, in time and in memory, however many there are?

A folder of many images is captioned by the command, the command is repeated on its finished output,
and the feature maps of all are extracted; each in a process of its own, from whose seconds those of
a single image are subtracted. Each number of images is measured once. A tiny encoder on
tiny photographs leaves what surrounds it to be seen; a smaller curve is that of the real one. The
many images are links to a few hundred.

This module imports nothing heavy: see `run_fresh`.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.findings import Finding, Target
from benchmarks.fresh import Ran, in_fresh_process, run_fresh
from benchmarks.plan import Plan
from benchmarks.timing import Spread
from captioning.paths import Paths

_ROOT = Paths().root
_PHOTOGRAPHS = 300
_TINY, _REAL = "a tiny encoder", "Xception"
_MOST_FOR_REAL = 1000
_FEWEST = 100
_BASE = 1000  # the size that larger ones are compared with: a hundred take no time
_NOISE_MS = 0.1  # an image: starts differ by more than a thousand images of less cost
_CONSTANT = Target(1.25, is_limit=True)


@dataclass(frozen=True)
class Cost:
    """What so many images took: milliseconds an image, the start left out, and megabytes."""

    images: int
    ms_an_image: float
    peak_mb: float


Curves = Mapping[str, Sequence[Cost]]


@dataclass(frozen=True)
class _Way:
    """Something to do with a folder of images: `run` is measured, `prepare` comes before it."""

    photographs: Path
    run: Callable[[Path], Ran]
    prepare: Callable[[Path], object] = lambda images: None

    def __call__(self, count: int, folder: Path) -> Ran:
        images = _linked(self.photographs, count, folder)
        self.prepare(images)
        return self.run(images)


def run(plan: Plan) -> list[Finding]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        in_fresh_process(_prepare, folder, plan.root)
        curves = measure(folder, _sizes(plan.most_images))
        if plan.curve:
            in_fresh_process(draw, curves, plan.curve)
    return findings(curves)


def measure(folder: Path, sizes: Sequence[int]) -> Curves:
    """`folder` holds `tiny` and `large` photographs, and `model`, a root folder with a tiny one."""
    tiny, large = folder / "tiny", folder / "large"
    results = folder / "results.csv"

    def caption(images: Path, root: Path = folder / "model") -> Ran:
        command = [sys.executable, "Testing_caption_generator.py", "--model", str(root)]
        return run_fresh([*command, "-i", str(images), "--output", str(results)], _ROOT)

    def caption_by_xception(images: Path) -> Ran:
        return caption(images, _ROOT)

    def forget(images: Path) -> None:
        results.unlink(missing_ok=True)

    def caption_before(images: Path) -> None:
        forget(images)
        caption(images)

    def extract(images: Path) -> Ran:
        arguments = f"Path({str(folder / 'model')!r}), Path({str(images)!r})"
        code = "from pathlib import Path; from benchmarks.growth import extract_all as e; e({})"
        return run_fresh([sys.executable, "-c", code.format(arguments)], _ROOT)

    ways = {
        f"captioning, {_TINY}": _Way(tiny, caption, forget),
        "going on with a finished file": _Way(tiny, caption, caption_before),
        f"extracting feature maps, {_TINY}": _Way(tiny, extract),
        f"captioning, {_REAL}": _Way(large, caption_by_xception, forget),
    }
    curves: dict[str, list[Cost]] = {name: [] for name in ways}
    for size in sizes:
        for name, way in ways.items():
            if way.photographs == large and size > _MOST_FOR_REAL:
                continue
            start = way(1, folder / "one").seconds
            ran = way(size, folder / "many")
            cost = 1000 * max(ran.seconds - start, 0) / size
            curves[name].append(Cost(size, cost, ran.peak_mb))
    return curves


def findings(curves: Curves) -> list[Finding]:
    """Each curve as a row, and for those that go far the growth from a thousand images to most."""
    rows = []
    for way, costs in curves.items():
        for cost in costs:
            rows.append(
                Finding(
                    f"{way}: {cost.images:,} images",
                    Spread((cost.ms_an_image,)),
                    "ms an image",
                    product=f"at most {cost.peak_mb:.0f} MB",
                )
            )
        base = next((cost for cost in costs if cost.images == _BASE), costs[0])
        last = costs[-1]
        if last.images > base.images:
            grown = f"{last.images:,} images beside {base.images:,}"
            before, after = (max(cost.ms_an_image, _NOISE_MS) for cost in (base, last))
            growths = {
                "cost of an image": after / before,
                "memory": last.peak_mb / base.peak_mb,
            }
            for what, growth in growths.items():
                rows.append(
                    Finding(
                        f"{way}: {what}, {grown}",
                        Spread((growth,)),
                        "times",
                        _CONSTANT,
                        product="each measured once",
                    )
                )
    return rows


def extract_all(model: Path, images: Path) -> None:
    """Feature maps of all images in a folder, as `python -m captioning features` makes them."""
    from captioning.data.names import Names
    from captioning.inference.extract_features import extract_feature_maps
    from captioning.inference.networks import Encoder

    names = Names(sorted(os.listdir(images)))
    with tempfile.TemporaryDirectory() as folder:
        extract_feature_maps(Encoder(Paths(model).models), images, names, Path(folder, "maps.bin"))


def _sizes(most: int) -> list[int]:
    """100, 1,000 and so on."""
    sizes = [_FEWEST]
    while sizes[-1] * 10 <= most:
        sizes.append(sizes[-1] * 10)
    return sizes


def _linked(photographs: Path, count: int, folder: Path) -> Path:
    """A folder of so many links to the photographs, or copies where there are no links."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    originals = sorted(photographs.iterdir())
    for number in range(count):
        original, link = originals[number % len(originals)], folder / f"{number:06}.jpg"
        try:
            link.hardlink_to(original)
        except OSError:
            shutil.copyfile(original, link)
    return folder


def _prepare(folder: Path, root: Path | None) -> None:
    """Writes what `measure` wants. The tiny model is untrained: eight words of anything."""
    import keras
    from PIL import Image

    from benchmarks.world import photographs
    from captioning.data.vocabulary import Vocabulary
    from captioning.export.keras_to_openvino import export_decoder, export_encoder, make_encoder_id
    from captioning.models.caption_model import build_caption_model
    from captioning.settings import TrainingSettings

    for name in ("tiny", "large", "model"):
        (folder / name).mkdir()
    for path in photographs(folder / "large", _PHOTOGRAPHS, root):
        if root is not None:
            shutil.copyfile(path, folder / "large" / path.name)
        with Image.open(path) as image:
            image.resize((64, 48)).save(folder / "tiny" / path.name)
    images = keras.Input((32, 48, 3), dtype="uint8")
    pixels = keras.layers.AveragePooling2D(8)(keras.layers.Rescaling(1 / 255)(images))
    files = Paths(folder / "model")
    encoder = keras.Model(images, keras.layers.Reshape((4, 18))(pixels))
    export_encoder(encoder, files.models)
    vocabulary = Vocabulary(f"word{number}" for number in range(50))
    settings = TrainingSettings(decoder="merge", units=16, embedding_units=16)
    model = build_caption_model(len(vocabulary), 18, settings)
    export_decoder(model, vocabulary, 8, files.models, make_encoder_id(encoder))
    vocabulary.save(files.vocabulary)


def draw(curves: Curves, path: Path) -> None:
    """Time and memory over the number of images, both axes by powers of ten."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    names = {"ms_an_image": "milliseconds an image", "peak_mb": "megabytes at most"}
    for panel, (number, name) in zip(panels, names.items(), strict=True):
        for way, costs in curves.items():
            sizes, numbers = zip(*((c.images, getattr(c, number)) for c in costs), strict=True)
            panel.loglog(sizes, numbers, marker="o", label=way)
        panel.set_xlabel("images")
        panel.set_title(name)
        panel.grid(alpha=0.3)
    panels[1].set_ylim(10, 10_000)
    panels[1].legend(fontsize=8, loc="upper right")  # the room left above what it names
    figure.savefig(path, metadata={"Date": None})
