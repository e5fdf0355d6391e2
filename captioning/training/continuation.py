"""Continues the training of a caption model of another run, such as one that learned together with
the image encoder, in the second stage only."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import keras

from captioning.data.vocabulary import Vocabulary
from captioning.errors import UserError
from captioning.inference.openvino_runtime import is_other_encoder
from captioning.models.caption_model import (
    NETWORK_SETTINGS,
    ensemble_members,
    rebuild_caption_model,
)
from captioning.paths import Paths
from captioning.settings import TrainingSettings
from captioning.training import self_critical
from captioning.training.checkpoints import (
    CONTINUATION_KEY,
    FINE_TUNED_ENCODER,
    MODEL,
    Run,
    load_model,
    read_record,
)
from captioning.training.training_data import TrainingData


def load_start(
    folder: Path, data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings
) -> tuple[keras.Model, list[dict]]:
    """Loads the caption model and the history of the finished run in `folder`. Raises
    FileNotFoundError if there is none, and UserError if it has another encoder, other words or
    other network settings, or is an ensemble."""
    if not (folder / MODEL).exists():
        raise FileNotFoundError(
            f"Expected the caption model of a finished run in {folder}, got none. Finish that run "
            "first, with `captioning train` or `captioning fine-tune`."
        )
    model, record = load_model(folder), read_record(folder)
    encoder_id = record.get(FINE_TUNED_ENCODER, record.get("encoder"))
    if is_other_encoder(encoder_id, data.encoder_id):
        weights = ""
        if FINE_TUNED_ENCODER in record:  # the folder is models/fine_tuning of a root
            weights = f", with --weights {Paths(folder.parent.parent).fine_tuned_weights}"
        raise UserError(
            f"Expected the features of {encoder_id}, the encoder of the caption model in {folder}, "
            f"got those of {data.encoder_id}. Extract the features with that encoder, in another "
            f"--root{weights}."
        )
    network = {name: getattr(settings, name) for name in NETWORK_SETTINGS}
    trained = record.get("settings", {})
    has_network = all(trained.get(name, value) == value for name, value in network.items())
    has_words = record.get("vocabulary", vocabulary.fingerprint) == vocabulary.fingerprint
    members = len(ensemble_members(model))
    if not (has_network and has_words) or members > 1:
        trained_network = {name: trained.get(name) for name in network}
        raise UserError(
            f"Expected a single caption model with the words of these captions and with {network} "
            f"in {folder}, got {members} with {'these' if has_words else 'other'} words and "
            f"{trained_network}. Start with a model of the same captions and settings."
        )
    return model, record["history"]


def continue_training(
    run: Run,
    start: keras.Model,
    data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
) -> keras.Model:
    """Runs the remaining epochs of self-critical training, from the caption model `start` on.
    Returns the model of the epoch with the highest development CIDEr, even if that of `start` is
    higher: the reward is more than CIDEr. Without epochs, returns `start`."""
    if run.stage == self_critical.STAGE:
        self_critical.run_stage(run, data, vocabulary, settings, start)
    if not run.history:
        return start
    return rebuild_caption_model(run.load_best_model(), settings)


def number_continuation(history: Sequence[Mapping], past_epochs: Sequence[Mapping]) -> list[dict]:
    """Returns the `history` of a run that continued a model with these `past_epochs`, marked with
    its number."""
    number = 1 + max((epoch.get(CONTINUATION_KEY, 0) for epoch in past_epochs), default=0)
    return [{**epoch, CONTINUATION_KEY: number} for epoch in history]
