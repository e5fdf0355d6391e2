"""The recipe, as one step: from the ImageNet weights of the image encoder to a model that is
fine-tuned, trained, quantised and calibrated."""

import shutil
import sys
from dataclasses import replace

from captioning.app import pipeline
from captioning.app.console import require_package
from captioning.paths import Paths
from captioning.settings import TrainingSettings

_PRETRAINED = "pretrained"  # the folder of the encoder before fine-tuning


def follow_recipe(
    paths: Paths, settings: TrainingSettings | None = None, weights: str = "imagenet"
) -> list[dict]:
    """Trains a caption model on the features of an encoder built from `weights` (see
    `build_encoder`), and fine-tunes the encoder together with it. On the features of the fine-tuned
    encoder, the caption model continues with rewards. Quantises both, if that costs at most 0.5
    CIDEr, and calibrates the confidence. Run `pipeline.check` first. Returns the history of the
    caption model.

    One caption model is trained: the settings `members` and `student` are not used. `pretrained/`
    keeps the first features and models; all features together take 12 GB for Flickr8k. Resumes a
    recipe that was stopped. Raises ModuleNotFoundError if a package is missing, and the errors of
    the steps, such as UserError if settings, captions or weights have changed since then.
    """
    from captioning.data.augmentation import HORIZONTAL_FLIP
    from captioning.data.dataset import Dataset
    from captioning.export.quantisation import QualityLoss

    for package in ("keras", "nncf"):  # before hours of training
        require_package(package)
    settings = settings or pipeline.default_settings(paths)
    augmentations = [HORIZONTAL_FLIP]
    pretrained = Paths(paths.root / _PRETRAINED)
    pretrained.root.mkdir(exist_ok=True)
    Dataset.load(paths.dataset).save(pretrained.dataset)  # adapts the path of the images
    shutil.copy(paths.descriptions, pretrained.descriptions)

    # One model is enough as a teacher. Rewards would spoil its probabilities.
    for_teacher = replace(settings, members=1, student=False, self_critical_epochs=0)
    pipeline.extract_features(pretrained, weights=weights, augmentations=augmentations)
    pipeline.train(pretrained, for_teacher)
    fine_tuned_weights = pipeline.fine_tune(pretrained, for_teacher, weights)

    pipeline.extract_features(paths, weights=str(fine_tuned_weights), augmentations=augmentations)
    history = pipeline.train(paths, settings, start=pretrained.fine_tuning)
    try:
        pipeline.quantise(paths)
    except QualityLoss as error:  # the floating-point networks are still usable
        print(f"{error} The recipe goes on.", file=sys.stderr)
    pipeline.calibrate(paths)
    return history
