"""The recipe of the shipped model, as one step: from the ImageNet weights of the image encoder to a
model that is fine-tuned, trained, quantised and calibrated."""

import shutil
from dataclasses import replace

from captioning.app import pipeline
from captioning.paths import Paths
from captioning.settings import TrainingSettings

_PRETRAINED = "pretrained"  # the folder of the encoder before fine-tuning


def follow_recipe(
    paths: Paths, settings: TrainingSettings | None = None, weights: str = "imagenet"
) -> list[dict]:
    """Trains a caption model on the features of an encoder built from `weights` (see
    `build_encoder`). Then both learn on together; the caption model learns from rewards; both are
    quantised, and the confidence is calibrated. Run `pipeline.check` first. Returns the history of
    the caption model.

    The first features and models stay in `pretrained/`. With the others, they take 12 GB for
    Flickr8k. Resumes a recipe that was stopped. Raises the errors of the steps, such as ValueError
    if settings, captions or weights have changed since then.
    """
    from captioning.data.augmentation import HORIZONTAL_FLIP
    from captioning.data.dataset import Dataset

    settings = settings or pipeline.default_settings(paths)
    augmentations = [HORIZONTAL_FLIP]
    before = Paths(paths.root / _PRETRAINED)
    before.root.mkdir(exist_ok=True)
    Dataset.load(paths.dataset).save(before.dataset)  # which adapts the path of the images
    shutil.copy(paths.descriptions, before.descriptions)

    # Rewards would cost the probabilities, from which the encoder learns.
    without_rewards = replace(settings, members=1, student=False, self_critical_epochs=0)
    pipeline.extract_features(before, weights=weights, augmentations=augmentations)
    pipeline.train(before, without_rewards)
    fine_tuned_weights = pipeline.fine_tune(before, without_rewards, weights)

    pipeline.extract_features(paths, weights=str(fine_tuned_weights), augmentations=augmentations)
    history = pipeline.train(paths, settings, start=before.fine_tuning)
    pipeline.quantise(paths)
    pipeline.calibrate(paths)
    return history
