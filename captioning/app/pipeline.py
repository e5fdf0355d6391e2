"""What each step of `python -m captioning` does: files and options in, files and lines out.

A step imports what it needs when it runs, so that `--help` and the page wait for nothing.
"""

import argparse
import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace

from captioning.data.dataset import Dataset
from captioning.paths import Paths
from captioning.settings import SearchSettings, TrainingSettings


def download(files: Paths, options: argparse.Namespace) -> None:
    """Reads Flickr8k's two archives, writes its images and texts."""
    from captioning.data.flickr8k import download_flickr8k

    download_flickr8k(files, options.source)


def check(files: Paths, options: argparse.Namespace) -> None:
    """Reads captions and images, writes `dataset.json` and `descriptions.txt`."""
    from captioning.data.check import check_dataset, usable
    from captioning.data.dataset import write_descriptions
    from captioning.data.formats import read_dataset
    from captioning.data.vocabulary import clean_captions

    if bool(options.captions) != bool(options.images):
        raise ValueError("--captions and --images go together: name both, or for Flickr8k neither.")
    dataset = read_dataset(options.captions or [files.texts], options.images or files.images)
    findings = check_dataset(dataset)
    print(findings)
    dataset = usable(dataset, findings)
    print(dataset)
    write_descriptions(files.descriptions, clean_captions(dataset.captions))
    dataset.save(files.dataset)


def features(files: Paths, options: argparse.Namespace) -> None:
    """Reads the data set, writes feature maps, their averages and, if need be, the encoder."""
    from captioning.data.augmentation import AUGMENTATIONS
    from captioning.data.dataset import select
    from captioning.export.provide_encoder import provide_encoder
    from captioning.inference.extract_features import average_features, extract_feature_maps

    dataset = Dataset.load(files.dataset)
    encoder = provide_encoder(files.models, options.encoder, options.weights)
    names = list(dataset.captions)
    maps = extract_feature_maps(encoder, dataset.images, names, files.feature_maps)
    average_features(maps, files.features)
    names = list(select(dataset.captions, dataset.splits["train"]))
    for view in AUGMENTATIONS:
        path = files.augmented_feature_maps(view.name)
        extract_feature_maps(encoder, dataset.images, names, path, view.load_image)


def train(files: Paths, options: argparse.Namespace) -> None:
    """Reads data set, descriptions and feature maps, writes model, decoder and vocabulary."""
    from captioning.data.dataset import read_descriptions
    from captioning.training.train import train_and_export

    dataset = Dataset.load(files.dataset)
    descriptions = read_descriptions(files.descriptions)
    settings = _training_settings(dataset, descriptions, options)
    maps, views = _maps(files)
    train_and_export(descriptions, dataset.captions, dataset.splits, maps, views, settings, files)


def fine_tune(files: Paths, options: argparse.Namespace) -> None:
    """Reads data set, images, feature maps and the trained model with its vocabulary, writes what
    the backbone of the encoder sees, and weights for a better encoder."""
    from captioning.data.dataset import read_descriptions
    from captioning.training.fine_tuning import fine_tune_encoder
    from captioning.training.training_data import TrainingData

    dataset = Dataset.load(files.dataset)
    descriptions = read_descriptions(files.descriptions)
    settings = _training_settings(dataset, descriptions, options)
    maps, views = _maps(files)
    data = TrainingData.of_splits(descriptions, dataset.captions, dataset.splits, maps, views)
    fine_tune_encoder(data, dataset.images, settings, options.weights, files)
    print(files.fine_tuned_weights)


def evaluate(files: Paths, options: argparse.Namespace) -> None:
    """Reads data set, encoder and decoder, prints the scores of a split."""
    from captioning.evaluation.metrics import format_scores

    _, _, scores = _caption_split(Dataset.load(files.dataset), files, options)
    print(json.dumps(scores) if options.json else format_scores(scores))


def export(files: Paths, options: argparse.Namespace) -> None:
    """Reads the trained model and its vocabulary, writes the decoder anew."""
    from captioning.training.train import export_anew

    export_anew(files)


def quantise(files: Paths, options: argparse.Namespace) -> None:
    """Reads data set, encoder and decoder, writes those in floats anew in integers of 8 bits."""
    from captioning.export.quantisation import quantise_within_tolerance

    before, after = quantise_within_tolerance(files)
    print(f"development CIDEr {before * 100:.1f} before, {after * 100:.1f} after: kept")


def report(files: Paths, options: argparse.Namespace) -> None:
    """Reads data set, encoder, decoder and the run's record, writes the page about it."""
    from captioning.output.page import refuse_other_page
    from captioning.output.report import write_report
    from captioning.training.checkpoints import read_record

    page = options.output or files.report
    refuse_other_page(page)
    dataset, record = Dataset.load(files.dataset), read_record(files.models)
    captions, references, scores = _caption_split(dataset, files, options)
    write_report(page, options.split, captions, references, scores, dataset.images, record)
    print(page)


def serve(files: Paths, options: argparse.Namespace) -> None:
    """Reads encoder, decoder and vocabulary, and shows the page until it is stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, it leaves nothing behind
    try:
        from captioning.app.demo import serve_page
        from captioning.inference.captioner import Captioner

        serve_page(Captioner.load(files.root), options.port, options.open)
    except KeyboardInterrupt:  # its ordinary end
        pass


def all_steps(files: Paths, options: argparse.Namespace) -> None:
    """Reads captions and images, writes what the steps to a trained model write, prints scores."""
    for step in (check, features, train, evaluate):
        step(files, options)


def _maps(files: Paths) -> tuple[Mapping, dict]:
    """The feature maps of the images as they are, and those in each view that there are any of.
    Raises FileNotFoundError if there are none at all."""
    from captioning.data.augmentation import AUGMENTATIONS
    from captioning.data.feature_store import FeatureStore

    maps = FeatureStore(files.feature_maps)
    if not maps:
        raise FileNotFoundError(
            f"There is no feature map in {files.feature_maps}. The step that makes them: "
            "`python -m captioning features`."
        )
    views = {view: FeatureStore(files.augmented_feature_maps(view.name)) for view in AUGMENTATIONS}
    return maps, {view: of_view for view, of_view in views.items() if of_view}


def _training_settings(
    dataset: Dataset, descriptions: Mapping[str, Sequence[str]], options: argparse.Namespace
) -> TrainingSettings:
    """Those for so many images and captions, but for what the options name."""
    from captioning.data.dataset import select

    captions = select(descriptions, dataset.splits["train"]).values()
    settings = TrainingSettings.for_data(images=len(captions), captions=sum(map(len, captions)))
    return replace(settings, **{"seed": options.seed, **dict(options.set)})


def _caption_split(
    dataset: Dataset, files: Paths, options: argparse.Namespace
) -> tuple[dict, dict, dict]:
    """Captions, references and scores of the split that the options name."""
    from captioning.data.dataset import select
    from captioning.evaluation.evaluate import evaluate_end_to_end
    from captioning.inference.captioner import Captioner

    references = select(dataset.captions, dataset.splits[options.split])
    search = SearchSettings(options.beam_width)
    captioner = Captioner.load(files.root)
    captions, scores = evaluate_end_to_end(captioner, dataset.images, references, search)
    return captions, references, scores
