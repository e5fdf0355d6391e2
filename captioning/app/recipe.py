"""The recipe of the shipped model, as one step: from the ImageNet weights of the image encoder to a
model that is fine-tuned, trained, quantised and calibrated."""

import shutil
from dataclasses import replace

from captioning.app import pipeline
from captioning.paths import Paths
from captioning.settings import TrainingSettings


def follow_recipe(
    paths: Paths, settings: TrainingSettings | None = None, weights: str = "imagenet"
) -> list[dict]:
    """Fine-tunes an encoder built from `weights` (see `build_encoder`) in
    `settings.fine_tuning_rounds` rounds. Then trains the caption model on its feature maps,
    quantises both and calibrates. Run `pipeline.check` first. Returns the history of the caption
    model.

    A round trains teachers on the encoder of the round before, and fine-tunes that encoder with
    them. It has a folder of its own, `round-1` and so on; its feature maps, 11 GB for Flickr8k, are
    deleted at its end. Resumes a recipe that was stopped; a finished round is not repeated, even if
    settings or captions have changed.
    """
    settings = settings or pipeline.default_settings(paths)
    for number in range(1, settings.fine_tuning_rounds + 1):
        round_paths = Paths(paths.root / f"round-{number}")
        if not round_paths.fine_tuned_weights.exists():
            _copy_dataset(paths, round_paths)
            _fine_tune(round_paths, settings, weights)
        for path in round_paths.root.glob("*_maps*.bin*"):  # of the encoder and of its backbone
            path.unlink()
        weights = str(round_paths.fine_tuned_weights)
    pipeline.extract_features(paths, weights=weights)
    history = pipeline.train(paths, settings)
    pipeline.quantise(paths)
    pipeline.calibrate(paths)
    return history


def _fine_tune(paths: Paths, settings: TrainingSettings, weights: str) -> None:
    pipeline.extract_features(paths, weights=weights)
    # The encoder learns from the teachers' probabilities, which self-critical training would spoil.
    pipeline.train(paths, replace(settings, student=False, self_critical_epochs=0))
    pipeline.fine_tune(paths, settings, weights)


def _copy_dataset(source: Paths, target: Paths) -> None:
    from captioning.data.dataset import Dataset

    target.root.mkdir(exist_ok=True)
    Dataset.load(source.dataset).save(target.dataset)  # which adapts the path of the images
    shutil.copy(source.descriptions, target.descriptions)
