"""The steps of the pipeline, from captioned photographs to a model that is trained, exported and
scored.

The command line (see `captioning.app.cli`) and the notebooks call these functions. A step reads and
writes files below `paths.root`, which `captioning.paths` names, and returns its result. If a file
is missing, the error names the step that writes it.

A step imports its modules when it runs, so that `captioning --help` need not wait for TensorFlow,
and `serve` and `check` do not need it at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING

from captioning.errors import UserError
from captioning.files import only_writer
from captioning.paths import Paths
from captioning.settings import DEMO_PORT, SearchSettings, TrainingSettings

if TYPE_CHECKING:
    import numpy as np

    from captioning.data.augmentation import Augmentation
    from captioning.data.check import Findings
    from captioning.data.dataset import Dataset


def _only_writer_of_root(step: Callable, creates_root: bool = False) -> Callable:
    """Decorates a step that writes to the root folder. The step raises BlockingIOError while
    another run writes there."""

    @wraps(step)
    def run(paths: Paths, *arguments, **options):
        if creates_root:
            paths.root.mkdir(parents=True, exist_ok=True)
        with only_writer(paths.root):
            return step(paths, *arguments, **options)

    return run


_creator_of_root = partial(_only_writer_of_root, creates_root=True)


@_creator_of_root
def download(paths: Paths, source: Path | None = None) -> None:
    """Unpacks Flickr8k's images and captions. Takes the archives from `source`, an archive or a
    folder, and downloads the others: see `download_flickr8k`."""
    from captioning.data.flickr8k import download_flickr8k

    download_flickr8k(paths, source)


@_creator_of_root
def check(
    paths: Paths, captions: Sequence[Path] | None = None, images: Path | None = None
) -> tuple[Dataset, Findings]:
    """Checks the caption files `captions` and the folder `images`, by default those of Flickr8k.

    Leaves out unusable images and captions, and writes the others to `dataset.json` and
    `descriptions.txt`. Returns the usable data set and the findings. Raises UserError if a split
    has no usable image, or if one of the caption files would be overwritten.
    """
    from captioning.data.check import check_dataset, keep_usable
    from captioning.data.dataset import write_descriptions
    from captioning.data.image_paths import resolve
    from captioning.data.read_dataset import read_dataset
    from captioning.data.vocabulary import clean_captions

    if bool(captions) != bool(images):
        raise UserError("Expected both captions and images or neither, got one. Name both.")
    for written in (paths.dataset, paths.descriptions):
        if resolve(written) in map(resolve, captions or ()):
            raise UserError(f"This step would overwrite {written}. Name another --root.")
    dataset = read_dataset(captions or [paths.texts], images or paths.images)
    findings = check_dataset(dataset)
    dataset = keep_usable(dataset, findings)
    paths.dataset.unlink(missing_ok=True)  # written last: while it exists, both are of one check
    write_descriptions(paths.descriptions, clean_captions(dataset.captions))
    dataset.save(paths.dataset)
    return dataset, findings


@_only_writer_of_root
def extract_features(
    paths: Paths,
    encoder: str | None = None,
    weights: str | None = None,
    pooled: bool = False,
    augmentations: Sequence[Augmentation] | None = None,
) -> Mapping[str, np.ndarray]:
    """Extracts the features of every image of the data set. Returns image name -> feature map
    (cells, feature_width) float16 or, with `pooled`, pooled features (feature_width,) float32.

    Writes the feature maps (3.3 GB for Flickr8k), those of the `augmentations` (default: all
    `AUGMENTATIONS`) of the training images, 2.5 GB each, and the pooled features (66 MB). `pooled`:
    only the pooled features, which are enough for the merge decoder; those of more than 50,000
    images are maps of one cell. `encoder` and `weights`: see `provide_encoder`.
    """
    from captioning.data.augmentation import AUGMENTATIONS
    from captioning.data.dataset import Dataset
    from captioning.export.provide_encoder import provide_encoder
    from captioning.inference.extract_features import (
        extract_feature_maps,
        extract_pooled_features,
        pool_features,
    )

    dataset = Dataset.load(paths.dataset)
    image_encoder = provide_encoder(paths.models, encoder, weights)
    if pooled:
        return extract_pooled_features(image_encoder, dataset.images, dataset.captions, paths)
    maps = extract_feature_maps(image_encoder, dataset.images, dataset.captions, paths.feature_maps)
    pool_features(maps, paths)
    training_names = list(dataset.captions_of("train"))
    for augmentation in AUGMENTATIONS if augmentations is None else augmentations:
        path = paths.augmented_feature_maps(augmentation.name)
        extract_feature_maps(
            image_encoder, dataset.images, training_names, path, augmentation.load_image
        )
    return maps


def default_settings(
    paths: Paths, overrides: Mapping[str, object] | None = None
) -> TrainingSettings:
    """Returns the settings that suit the size of the data set, with `overrides` (name -> value)."""
    from captioning.data.dataset import load_with_descriptions, select

    dataset, descriptions = load_with_descriptions(paths.dataset, paths.descriptions)
    captions = select(descriptions, dataset.splits["train"]).values()
    settings = TrainingSettings.for_data(images=len(captions), captions=sum(map(len, captions)))
    overrides = dict(overrides or {})
    if "epochs" in overrides:  # they count for every model of the run
        overrides.setdefault("student_epochs", overrides["epochs"])
    return replace(settings, **overrides)


def train(
    paths: Paths,
    settings: TrainingSettings | None = None,
    devices: int | None = None,
    on_the_fly: bool = False,
    start: Path | None = None,
) -> list[dict]:
    """Trains the caption model on `devices` (see `use_devices`), and exports its decoder. Writes
    `models/` and `tokenizer.p`. Returns the history: a dict of stage and numbers for each epoch.
    Resumes a run that was stopped. Of several processes, only the first writes. With `on_the_fly`,
    feature maps are computed when a batch needs them: see `load_lazily`. With `start`, the folder
    of a finished run, its caption model continues: see `captioning.training.continuation`."""
    from captioning.training.devices import is_first_process, use_devices
    from captioning.training.train import train_and_export
    from captioning.training.training_data import load_lazily, load_training_data

    settings = settings or default_settings(paths)
    with use_devices(devices), only_writer(paths.root) if is_first_process() else nullcontext():
        load = load_lazily if on_the_fly else load_training_data
        return train_and_export(load(paths, settings), settings, paths, start)


@_only_writer_of_root
def fine_tune(
    paths: Paths, settings: TrainingSettings | None = None, weights: str = "imagenet"
) -> Path:
    """Fine-tunes the image encoder, which was built from `weights`, with the trained caption model
    as its teacher. Returns the path of the weights file, from which `extract_features` builds the
    better encoder in another root, where `train` may `start` with `paths.fine_tuning`."""
    from captioning.data.dataset import Dataset
    from captioning.training.fine_tuning import fine_tune_encoder
    from captioning.training.training_data import load_training_data

    settings = settings or default_settings(paths)
    data = load_training_data(paths, settings)
    fine_tune_encoder(data, Dataset.load(paths.dataset).images, settings, weights, paths)
    return paths.fine_tuned_weights


@_only_writer_of_root
def calibrate(paths: Paths) -> int:
    """Fits the confidence in the captions of the trained model, and writes
    `models/confidence.json`. Returns the number of captions that it was fitted on."""
    from captioning.evaluation.calibration import calibrate_confidence

    return calibrate_confidence(paths)


def evaluate(
    paths: Paths, split: str = "test", search: SearchSettings = SearchSettings()
) -> tuple[dict[str, str], dict[str, float]]:
    """Captions the images of a split, and scores the captions. Returns image name -> caption, and
    metric -> score: see `score_captions`."""
    from captioning.data.dataset import Dataset
    from captioning.evaluation.evaluate import evaluate_end_to_end
    from captioning.inference.captioner import Captioner

    dataset, captioner = Dataset.load(paths.dataset), Captioner.load(paths.root)
    return evaluate_end_to_end(captioner, dataset.images, dataset.captions_of(split), search)


@_only_writer_of_root
def export(paths: Paths) -> None:
    """Exports the decoder again from the trained Keras model."""
    from captioning.training.train import export_trained

    export_trained(paths)


@_only_writer_of_root
def quantise(paths: Paths) -> tuple[float, float]:
    """Replaces encoder and decoder by their 8-bit versions. Returns the CIDEr of the development
    split, from 0 to 10, before and after. Raises `QualityLoss` if it falls too far."""
    from captioning.export.quantisation import quantise_within_tolerance

    return quantise_within_tolerance(paths)


def report(
    paths: Paths,
    split: str = "development",
    search: SearchSettings = SearchSettings(),
    output: Path | None = None,
) -> Path:
    """Writes a page about the training run and its captions of a split. Returns its path."""
    from captioning.data.dataset import Dataset
    from captioning.output.pages import refuse_to_overwrite
    from captioning.output.report import write_report
    from captioning.training.checkpoints import read_record

    page_path = output or paths.report
    refuse_to_overwrite(page_path)
    dataset, record = Dataset.load(paths.dataset), read_record(paths.models)
    references = dataset.captions_of(split)
    captions, scores = evaluate(paths, split, search)
    write_report(page_path, split, captions, references, scores, dataset.images, record)
    return page_path


def serve(paths: Paths, port: int = DEMO_PORT, open_browser: bool = False) -> None:
    """Serves the demo page on this computer until Ctrl-C."""
    from captioning.app.demo import serve_page
    from captioning.inference.captioner import Captioner

    with suppress(KeyboardInterrupt):  # the way to end it
        serve_page(Captioner.load(paths.root), port, open_browser)
