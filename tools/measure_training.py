"""Measures how much memory training takes with many captions, for docs/scale.md:

    python tools/measure_training.py rewards 1000000    # the rewards of self-critical training
    python tools/measure_training.py start 1000000      # from the files to a batch of both stages

The captions are random, five for each image. Each word is drawn by Zipf's law, whatever the words
before it, so n-grams repeat less often than in captions that people wrote. The feature maps have
one cell of 8 numbers: training reads feature maps from the disk, so their size hardly matters.

Needs the extra `train`, and Linux. Memory is the peak of the resident set.
"""

import argparse
import re
import sys
import time
from collections.abc import Iterator
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from captioning.data.augmentation import AUGMENTATIONS  # noqa: E402
from captioning.data.compact_captions import CompactCaptions  # noqa: E402
from captioning.data.dataset import Dataset, write_descriptions  # noqa: E402
from captioning.data.feature_store import FeatureStore  # noqa: E402
from captioning.data.vocabulary import Vocabulary  # noqa: E402
from captioning.paths import Paths  # noqa: E402
from captioning.settings import TrainingSettings  # noqa: E402

CAPTIONS_PER_IMAGE = 5
WORDS = 10_000  # about as many as occur at least five times in COCO's captions
SHORTEST, LONGEST = 6, 16  # captions in words
HELD_OUT = 1000  # images of the development split, and as many of the test split


def draw_captions(images: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yields image names, each with its captions: arrays (words,) of the ranks of their words."""
    random = np.random.default_rng(0)
    shares = np.cumsum(1 / np.arange(3, WORDS + 3))
    for image in range(images):
        lengths = random.integers(SHORTEST, LONGEST + 1, CAPTIONS_PER_IMAGE)
        words = np.searchsorted(shares, shares[-1] * random.random(lengths.sum()))
        yield f"folder/{image:08}.jpg", np.split(words, np.cumsum(lengths)[:-1])


def write_data_set(paths: Paths, images: int) -> None:
    """Writes the files that `captioning check` and `captioning features` would write."""
    captions = {
        name: [" ".join(f"word{word}" for word in words) for words in image_captions]
        for name, image_captions in draw_captions(images)
    }
    names = list(captions)
    splits = {
        "train": names[2 * HELD_OUT :],
        "development": names[:HELD_OUT],
        "test": names[HELD_OUT : 2 * HELD_OUT],
    }
    Dataset(paths.images, captions, splits).save(paths.dataset)
    write_descriptions(paths.descriptions, captions)
    augmented = [paths.augmented_feature_maps(augmentation.name) for augmentation in AUGMENTATIONS]
    for path in (paths.feature_maps, *augmented):
        store = FeatureStore(path, "Xception 0123456789abcdef")
        for name in names:
            store.append(name, np.ones((1, 8)))
        store.save()


def measure_rewards(captions: int) -> None:
    """Prints the memory and the time of CIDEr and BLEU-4 as rewards, for so many references."""
    from captioning.training.rewards import Reward

    references = CompactCaptions(draw_captions(captions // CAPTIONS_PER_IMAGE))
    before, start = peak_memory(), time.monotonic()
    reward = Reward(references, TrainingSettings.bleu_weight)
    seconds = time.monotonic() - start
    names = list(references)[:1000]
    start = time.monotonic()
    for name in names:
        reward(name, references[name])
    scoring = (time.monotonic() - start) / len(names) / CAPTIONS_PER_IMAGE
    report("rewards", captions, before)
    print(f"{seconds:.0f} s to begin, {1e6 * scoring:.0f} microseconds to score a caption")


def measure_start(captions: int) -> None:
    """Prints the memory of a training on so many captions, until the first batch of each stage. A
    process of its own writes the files, so that its memory does not count."""
    with TemporaryDirectory() as folder:
        paths = Paths(Path(folder))
        writer = get_context("spawn").Process(
            target=write_data_set, args=(paths, captions // CAPTIONS_PER_IMAGE)
        )
        writer.start()
        writer.join()
        _start_training(paths, captions)


def _start_training(paths: Paths, captions: int) -> None:
    from captioning.export.keras_to_openvino import to_decoder
    from captioning.models.caption_model import build_caption_model
    from captioning.training.cross_entropy import SmoothedCrossentropy, compile_model, make_batches
    from captioning.training.self_critical import SelfCriticalBatches
    from captioning.training.training_data import identify_run, load_training_data

    settings = TrainingSettings()
    before, start = peak_memory(), time.monotonic()
    data = load_training_data(paths, settings)
    captions_of_all = chain.from_iterable(data.train.values())
    vocabulary = Vocabulary.from_captions(captions_of_all, settings.min_word_count)
    identify_run(data, vocabulary, settings)
    report("captions read", captions, before)
    variants = data.encode(vocabulary)
    batches = make_batches(variants, settings)
    report("encoded", captions, before)
    model = build_caption_model(len(vocabulary), data.feature_width, settings)
    compile_model(model, settings, len(batches), SmoothedCrossentropy())
    model.train_on_batch(*batches[0])
    report("first batch", captions, before)
    decoder = to_decoder(model, vocabulary, data.longest_caption)
    *batch, _ = next(SelfCriticalBatches(variants, decoder, settings).draw_epoch(0))
    model.train_on_batch(*batch)
    report("first batch with rewards", captions, before)
    print(f"{time.monotonic() - start:.0f} s")


def peak_memory() -> int:
    """Returns the largest number of bytes that this process has held at a time."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def report(title: str, captions: int, before: int) -> None:
    """Prints the peak of the memory, and by how much it exceeds `before`, in bytes a caption."""
    peak = peak_memory()
    more = (peak - before) / captions
    print(f"{title}: {peak / 1e9:.2f} GB at most, {more:.0f} bytes a caption", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    measurements = {"rewards": measure_rewards, "start": measure_start}
    parser.add_argument("measurement", choices=measurements)
    parser.add_argument("captions", type=int, help="the number of captions")
    options = parser.parse_args()
    measurements[options.measurement](options.captions)


if __name__ == "__main__":
    main()
