"""Fine-tunes the last blocks of the image encoder for captioning.

ImageNet, on which Xception was trained, has hardly any classes of people. A caption model that was
trained on the feature maps of the pretrained encoder is trained further, together with these
blocks. Soon they would overfit to 6,000 photographs and the words of their captions. Therefore,
every epoch draws other random crops, which pass through the frozen backbone first, and the targets
are the probabilities of a teacher.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import keras
import numpy as np

from captioning.data.augmentation import HORIZONTAL_FLIP
from captioning.data.vocabulary import Vocabulary
from captioning.errors import UserError
from captioning.export.keras_to_openvino import make_encoder_id, make_fingerprint, to_encoder
from captioning.inference.openvino_runtime import encoder_name, is_other_encoder
from captioning.models.backend import uses_xla
from captioning.models.caption_model import (
    NETWORK_SETTINGS,
    ensemble_members,
    rebuild_caption_model,
)
from captioning.models.image_encoder import SplitEncoder, build_split_encoder
from captioning.paths import Paths
from captioning.settings import DEFAULT_ENCODER, TrainingSettings
from captioning.training import cross_entropy
from captioning.training.checkpoints import (
    FINE_TUNED_ENCODER,
    MONITOR,
    Run,
    find_best_epoch,
    load_trained,
    save_trained,
)
from captioning.training.devices import training_precision
from captioning.training.distillation import build_teacher
from captioning.training.training_data import TrainingData, identify_run
from captioning.training.validation import Validator, validate

STAGE = "fine-tuning"

_BATCH_SIZE = 32  # images in a prediction of the last blocks


def fine_tune_encoder(
    data: TrainingData, image_folder: Path, settings: TrainingSettings, weights: str, paths: Paths
) -> None:
    """Fine-tunes the encoder that made the feature maps of `data`, plain and flipped. The trained
    caption model in `paths.models` is the teacher. Writes the backbone maps of the development
    images in `image_folder`, then `paths.fine_tuned_weights` and, in `paths.fine_tuning`, the
    caption model that learned together with the encoder.

    The encoder was built from `weights`: see `build_encoder`. Raises UserError if weights, feature
    maps and caption model do not belong to the same encoder, or if no epoch of fine-tuning improves
    the development CIDEr; FileNotFoundError if there are no maps of the flipped images.
    """
    model, vocabulary, record = load_trained(paths)
    if is_other_encoder(record.get("encoder"), data.encoder_id):
        raise UserError(
            f"Expected the feature maps of {record['encoder']}, on which the caption model was "
            f"trained, got those of {data.encoder_id}. Train with these maps, or restore the "
            "others."
        )
    if HORIZONTAL_FLIP not in data.augmented_features:
        raise FileNotFoundError(
            f"Expected {paths.augmented_feature_maps(HORIZONTAL_FLIP.name)}, got none. Extract the "
            "features of all images first: `captioning features`."
        )
    encoder = load_pretrained_encoder(data.encoder_id, weights, settings.fine_tuned_blocks)
    trained = record.get("settings", {})
    settings = replace(
        settings, **{name: trained[name] for name in NETWORK_SETTINGS if name in trained}
    )
    members = ensemble_members(model)
    backbone = to_encoder(encoder.backbone)
    backbone_data = data.with_lazy_features(backbone, image_folder, paths.backbone_maps)
    before = validate(members[0], data, vocabulary)[MONITOR]
    history = fine_tune(
        encoder, members, data, backbone_data, vocabulary, settings, paths.fine_tuning
    )
    best = history[find_best_epoch(history)][MONITOR]
    if best <= before:
        raise UserError(
            f"Expected a better development CIDEr than {before:.3f}, that of the first caption "
            f"model before fine-tuning, got {best:.3f} at best. Delete {paths.fine_tuning} and try "
            "other settings."
        )
    encoder.save_weights(paths.fine_tuned_weights)


def load_pretrained_encoder(encoder_id: str | None, weights: str, blocks: int) -> SplitEncoder:
    """Builds the encoder with the given ID (None: the default encoder) from `weights`: see
    `build_split_encoder`. Raises UserError if these are the weights of another encoder."""
    expected_id = encoder_id or DEFAULT_ENCODER
    encoder = build_split_encoder(encoder_name(expected_id), weights, blocks)
    built_id = make_encoder_id(encoder.whole)
    if is_other_encoder(expected_id, built_id):
        raise UserError(
            f"Expected the weights of {expected_id}, the encoder of the feature maps, got "
            f"{weights}, those of {built_id}. Name the weights with --weights, or extract features "
            "with an encoder whose weights you have: `features --weights imagenet` in a new --root."
        )
    return encoder


def fine_tune(
    encoder: SplitEncoder,
    members: Sequence[keras.Model],
    data: TrainingData,
    backbone_data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    folder: Path,
) -> list[dict]:
    """Trains the last blocks of `encoder`, together with a copy of the first of the `members`.
    Writes that caption model to `folder` as the result of a run (see `save_trained`). Returns the
    history.

    `data` holds the feature maps of the encoder, plain and flipped, `backbone_data` the same
    captions with the maps of its backbone. The ensemble of the `members`, which were trained on
    `data`, is the teacher. At the end, the blocks have the weights of the epoch with the highest
    development CIDEr. The `Run` stays in `folder`, and a later call resumes it. Raises UserError
    if that run had other settings, captions, words or augmentations, another encoder or another
    teacher.
    """
    precision = training_precision()
    teacher = build_teacher(members, settings, precision)
    identity = identify_run(backbone_data, vocabulary, settings) | {
        "settings": asdict(settings),
        "encoder": make_encoder_id(encoder.whole),
        "teacher": make_fingerprint(teacher),
    }
    run = Run(folder, identity, {STAGE: settings.fine_tuning_epochs}, settings.patience)
    settings = replace(
        settings,
        epochs=settings.fine_tuning_epochs,
        dropout=settings.student_dropout,
        learning_rate=settings.fine_tuning_learning_rate,
        soft_target_share=settings.fine_tuning_soft_target_share,
    )

    def build() -> keras.Model:
        caption_model = rebuild_caption_model(members[0], settings, precision)
        return _connect(_copy(encoder.last_blocks, precision), caption_model)

    last_blocks = _copy(encoder.last_blocks, "float32")
    last_blocks.compile(jit_compile=uses_xla())
    validator = Validator(data, vocabulary, settings)

    def score(model: keras.Model) -> dict[str, float]:
        last_blocks.set_weights(model.get_layer(last_blocks.name).get_weights())
        backbone_maps = {name: backbone_data.features[name] for name in data.references}
        features = _predict_feature_maps(last_blocks, backbone_maps)
        return validator.score(model.get_layer(settings.decoder), features)

    if run.stage == STAGE:
        cross_entropy.run_epochs(
            run, STAGE, build, score, backbone_data, vocabulary, settings, teacher, data
        )
    trained = run.load_best_model()
    encoder.last_blocks.set_weights(trained.get_layer(last_blocks.name).get_weights())
    caption_model = rebuild_caption_model(trained.get_layer(settings.decoder), settings)
    record = {FINE_TUNED_ENCODER: make_encoder_id(encoder.whole), "history": run.history}
    save_trained(caption_model, identity | record, folder)
    return run.history


def _connect(last_blocks: keras.Model, network: keras.Model) -> keras.Model:
    """Puts the last blocks before a caption model, whose `features` become backbone maps."""
    _, rows, columns, width = last_blocks.input_shape
    features = keras.Input((rows * columns, width), name="features")
    words = keras.Input((None, None), dtype="int32", name="words")
    grid = last_blocks(keras.layers.Reshape((rows, columns, width), name="grid")(features))
    cells = keras.layers.Reshape((-1, grid.shape[-1]), name="cells")(grid)
    output = network({"features": cells, "words": words})
    return keras.Model({"features": features, "words": words}, output, name=STAGE)


def _copy(last_blocks: keras.Model, precision: str) -> keras.Model:
    """Copies the last blocks; the copy computes in `precision`, a dtype policy of Keras. Its batch
    normalisation is frozen: averages over a million images are better than those of a batch."""

    def copy_layer(layer: keras.Layer) -> keras.Layer:
        copied = type(layer).from_config({**layer.get_config(), "dtype": precision})
        copied.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        return copied

    copied = keras.models.clone_model(last_blocks, clone_function=copy_layer)
    copied.set_weights(last_blocks.get_weights())
    return copied


def _predict_feature_maps(
    last_blocks: keras.Model, backbone_maps: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns image name -> feature map (cells, feature_width) float16, from the backbone maps."""
    grid_shape = last_blocks.input_shape[1:]
    features = {}
    remaining = iter(backbone_maps)
    while names := list(islice(remaining, _BATCH_SIZE)):
        batch = np.stack([backbone_maps[name] for name in names], dtype="float32")
        grids = last_blocks.predict_on_batch(batch.reshape(-1, *grid_shape))
        maps = grids.reshape(len(names), -1, grids.shape[-1])
        features |= dict(zip(names, maps.astype("float16"), strict=True))
    return features
