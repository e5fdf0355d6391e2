"""The recipe of the shipped model, as one step: from the ImageNet weights of the image encoder to a
model that is fine-tuned, trained, quantised and calibrated."""

import json
import shutil
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

from captioning.app import pipeline
from captioning.errors import UserError
from captioning.files import write_atomically
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
    deleted at its end. Resumes a recipe that was stopped. Raises ValueError if the settings, the
    captions or the first weights have changed since then; there may be more rounds.
    """
    settings = settings or pipeline.default_settings(paths)
    # Rewards would cost the teachers' probabilities, from which the encoder learns.
    in_round = replace(settings, student=False, self_critical_epochs=0, fine_tuning_rounds=0)
    for number in range(1, settings.fine_tuning_rounds + 1):
        round_paths = Paths(paths.root / f"round-{number}")
        _begin_round(paths, round_paths, in_round, weights)
        if not round_paths.fine_tuned_weights.exists():
            pipeline.extract_features(round_paths, weights=weights)
            pipeline.train(round_paths, in_round)
            pipeline.fine_tune(round_paths, in_round, weights)
        for path in round_paths.root.glob("*_maps*.bin*"):  # of the encoder and of its backbone
            path.unlink()
        weights = str(round_paths.fine_tuned_weights)
    pipeline.extract_features(paths, weights=weights)
    history = pipeline.train(paths, settings)
    pipeline.quantise(paths)
    pipeline.calibrate(paths)
    return history


def _begin_round(
    paths: Paths, round_paths: Paths, settings: TrainingSettings, weights: str
) -> None:
    """Writes the data set and the identity of a round to its folder. Raises ValueError if it holds
    a round with another identity."""
    from captioning.data.dataset import Dataset

    identity = {
        "weights": Path(weights).name,
        "captions": sha256(paths.descriptions.read_bytes()).hexdigest(),
        "settings": asdict(settings),
    }
    identity_path = round_paths.root / "identity.json"
    if identity_path.exists() and json.loads(identity_path.read_text()) != identity:
        raise UserError(
            "Expected a round with the weights, captions and settings of this recipe in "
            f"{round_paths.root}, got another. Delete the folder to begin the round again, or "
            "restore what you changed."
        )
    round_paths.root.mkdir(exist_ok=True)
    Dataset.load(paths.dataset).save(round_paths.dataset)  # which adapts the path of the images
    shutil.copy(paths.descriptions, round_paths.descriptions)
    with write_atomically(identity_path, "w") as file:
        json.dump(identity, file, indent=1)
