"""An encoder in, one that sees better what captions speak of out.

Xception learnt to tell a thousand kinds of things apart, and people are none of them. So its exit
flow, the last two blocks, learns on, with a caption model behind it. That model learns alone at
first, from what the encoder sees as it is; then both learn, from what the backbone before the exit
flow sees, which stays as it is and so is run only once an image. Words that people wrote would soon
be known by heart: what is to be said, a trained caption model teaches.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import keras
import numpy as np

from captioning.data.augmentation import HORIZONTAL_FLIP
from captioning.data.vocabulary import Vocabulary
from captioning.export.keras_to_openvino import fingerprint, make_encoder_id, to_encoder
from captioning.inference.extract_features import extract_feature_maps
from captioning.inference.network_files import encoder_name, is_other_encoder
from captioning.inference.openvino_runtime import training_precision
from captioning.models.caption_model import NETWORK_SETTINGS, build_caption_model
from captioning.models.ensemble import members_of
from captioning.models.image_encoder import SplitEncoder, build_split_encoder
from captioning.paths import Paths
from captioning.settings import DEFAULT_ENCODER, TrainingSettings
from captioning.training import teacher_forcing
from captioning.training.checkpoints import Run, load_trained
from captioning.training.cross_entropy import run_epochs
from captioning.training.distillation import build_teacher
from captioning.training.training_data import TrainingData, identify_run
from captioning.training.validation import Validator

STAGE = "fine-tuning"

_IMAGES = 32  # that the exit flow looks at together


def fine_tune_encoder(
    data: TrainingData, images: Path, settings: TrainingSettings, weights: str, files: Paths
) -> None:
    """From a trained caption model, which teaches, to weights for an encoder that sees better:
    writes what the backbone of the present one sees of the `images` of `data`, then
    `files.fine_tuned_weights`.

    `weights`: what the present encoder was made from. Raises ValueError if weights, feature maps
    and caption model are not all of one encoder, before anything is computed, and if the encoder
    brought nothing by what it learnt.
    """
    model, vocabulary, record = load_trained(files)
    if is_other_encoder(record.get("encoder"), data.encoder_id):
        raise ValueError(
            "Caption model and feature maps do not belong together. Wanted: maps of "
            f"{record['encoder']}. Received: maps of {data.encoder_id}. Train with these "
            "maps, or bring those back."
        )
    encoder = pretrained_encoder(data.encoder_id, weights)
    built_with = record.get("settings", {}).items()
    of_teacher = replace(settings, **{k: v for k, v in built_with if k in NETWORK_SETTINGS})
    teacher = build_teacher(members_of(model), of_teacher, training_precision())
    backbone = to_encoder(encoder.backbone)
    names = [*data.train, *data.development]
    backbone_data = replace(
        data,
        features=extract_feature_maps(backbone, images, names, files.backbone_maps),
        views={
            HORIZONTAL_FLIP: extract_feature_maps(
                backbone,
                images,
                list(data.train),
                files.flipped_backbone_maps,
                HORIZONTAL_FLIP.load_image,
            )
        },
    )
    before = make_encoder_id(encoder.whole)
    fine_tune(encoder, teacher, data, backbone_data, vocabulary, settings, files.fine_tuning)
    if make_encoder_id(encoder.whole) == before:
        raise ValueError(
            "The encoder stays as it is: in no epoch did what it learnt bring a better development "
            f"CIDEr. Delete {files.fine_tuning} to try other settings."
        )
    encoder.save_weights(files.fine_tuned_weights)


def pretrained_encoder(identity: str | None, weights: str) -> SplitEncoder:
    """The encoder of an `identity` (see `captioning.inference.network_files.read_encoder_id`; None is the
    default), made from `weights` as `build_encoder` does. Raises ValueError if they make another.
    """
    wanted = identity or DEFAULT_ENCODER
    encoder = build_split_encoder(encoder_name(wanted), weights)
    received = make_encoder_id(encoder.whole)
    if is_other_encoder(wanted, received):
        raise ValueError(
            f"The feature maps were made with another encoder. Wanted: the weights of {wanted}. "
            f"Received: {weights}, which makes {received}. Name them with --weights, or begin with "
            "an encoder whose weights you have: `features --weights imagenet` in a new --root."
        )
    return encoder


def fine_tune(
    encoder: SplitEncoder,
    teacher: keras.Model,
    data: TrainingData,
    backbone_data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    folder: Path,
) -> list[dict]:
    """Trains the exit flow of `encoder`; returns a dict of numbers an epoch.

    `teacher`: as of `build_teacher`, of models trained on `data`, whose features are the maps of
    the encoder; `backbone_data`: the same of its backbone. The exit flow is left as of the epoch with the
    best development CIDEr. The `Run` lies in `folder`, and stays there: a call that finds one goes
    on with it; ValueError if that had other settings, captions, words or views, another encoder or
    another teacher.
    """
    stages = {teacher_forcing.STAGE: settings.student_epochs, STAGE: settings.fine_tuning_epochs}
    identity = identify_run(data, vocabulary, settings) | {
        "encoder": make_encoder_id(encoder.whole),
        "teacher": fingerprint(teacher),
    }
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, identity, stages, settings.patience)
    settings = settings.for_student()
    if run.stage == teacher_forcing.STAGE:
        teacher_forcing.learn(run, data, vocabulary, settings, teacher)
    if run.stage == STAGE:
        _learn(run, encoder.exit_flow, teacher, data, backbone_data, vocabulary, settings)
    best = run.best_model()
    if best.name == STAGE:
        learnt = best.get_layer(encoder.exit_flow.name)
        encoder.exit_flow.set_weights(learnt.get_weights())
    return run.history


def _learn(
    run: Run,
    exit_flow: keras.Model,
    teacher: keras.Model,
    data: TrainingData,
    backbone_data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
) -> None:
    precision = training_precision()
    teacher = _behind(_in_precision(exit_flow, precision), teacher)
    teacher.compile(jit_compile=False)

    def begin() -> keras.Model:
        caption_model = build_caption_model(
            len(vocabulary), data.feature_width, settings, precision
        )
        caption_model.set_weights(run.best_model().get_weights())
        return _behind(_in_precision(exit_flow, precision), caption_model)

    exact = _in_precision(exit_flow, "float32")
    exact.compile(jit_compile=False)
    see = exact.predict_on_batch
    scores = Validator(data, vocabulary, settings)

    def score(model: keras.Model) -> dict[str, float]:
        exact.set_weights(model.get_layer(exit_flow.name).get_weights())
        backbone_maps = {name: backbone_data.features[name] for name in data.references}
        seen = _see(see, exact.input_shape[1:], backbone_maps)
        return scores.of(model.get_layer(settings.decoder), seen)

    of_stage = replace(
        settings,
        epochs=settings.fine_tuning_epochs,
        learning_rate=settings.fine_tuning_learning_rate,
    )
    run_epochs(run, STAGE, begin, score, backbone_data, vocabulary, of_stage, teacher)


def _behind(exit_flow: keras.Model, network: keras.Model) -> keras.Model:
    """A caption model, or a teacher, as one whose features are those of the backbone."""
    _, rows, columns, width = exit_flow.input_shape
    features = keras.Input((rows * columns, width), name="features")
    words = keras.Input((None, None), dtype="int32", name="words")
    seen = exit_flow(keras.layers.Reshape((rows, columns, width), name="grid")(features))
    seen = keras.layers.Reshape((-1, seen.shape[-1]), name="cells")(seen)
    output = network({"features": seen, "words": words})
    return keras.Model({"features": features, "words": words}, output, name=STAGE)


def _in_precision(exit_flow: keras.Model, precision: str) -> keras.Model:
    """A copy that computes in a dtype policy of Keras. Normalisation stays as it was learnt, over
    a million pictures: the averages of a batch would be worse."""

    def copy(layer: keras.Layer) -> keras.Layer:
        copied = type(layer).from_config({**layer.get_config(), "dtype": precision})
        copied.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        return copied

    copied = keras.models.clone_model(exit_flow, clone_function=copy)
    copied.set_weights(exit_flow.get_weights())
    return copied


def _see(
    see: Callable[[np.ndarray], np.ndarray],
    shape: tuple[int, int, int],
    maps: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Maps of the backbone -> maps of the encoder (cells, feature_width) float16, by image name.
    `see` is the exit flow at work, `shape` (rows, columns, width) that in which it wants a map."""
    seen = {}
    waiting = iter(maps)
    while names := list(islice(waiting, _IMAGES)):
        features = np.stack([maps[name] for name in names], dtype="float32")
        found = see(features.reshape(-1, *shape))
        found = found.reshape(len(names), -1, found.shape[-1])
        seen |= dict(zip(names, found.astype("float16"), strict=True))
    return seen
