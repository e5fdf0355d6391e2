"""The last blocks of an encoder learn with a caption model: of a tiny encoder, on tiny drawings."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from captioning.data.augmentation import HORIZONTAL_FLIP
from captioning.data.images import load_image
from captioning.data.vocabulary import Vocabulary
from captioning.export.keras_to_openvino import make_encoder_id
from captioning.models.caption_model import build_caption_model
from captioning.models.image_encoder import SplitEncoder
from captioning.paths import Paths
from captioning.settings import TrainingSettings
from captioning.training import fine_tuning
from captioning.training.checkpoints import Run
from captioning.training.distillation import DistillationBatches, build_teacher
from captioning.training.fine_tuning import STAGE, fine_tune, pretrained_encoder
from captioning.training.training_data import TrainingData

SETTINGS = TrainingSettings(
    min_word_count=1, embedding_units=8, units=12, heads=3, batch_size=4, student_epochs=1,
    fine_tuning_epochs=3, fine_tuning_learning_rate=0.01,
)  # fmt: skip


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """So that two runs may be compared closely, on every processor."""
    for module in ("teacher_forcing", "fine_tuning"):
        monkeypatch.setattr(f"captioning.training.{module}.training_precision", lambda: "float32")


@pytest.fixture
def encoder() -> SplitEncoder:
    """A backbone of 4 x 6 cells, and an exit flow of 2 x 3."""
    keras.utils.set_random_seed(5)
    images = keras.Input((32, 48, 3), dtype="uint8")
    grid = keras.layers.AveragePooling2D(8)(keras.layers.Rescaling(-4 / 255, offset=4)(images))
    backbone = keras.Model(images, keras.layers.Conv2D(7, 1, activation="relu")(grid))
    seen = keras.Input((4, 6, 7))
    grid = keras.layers.SeparableConv2D(9, 3, strides=2, padding="same", name="convolution")(seen)
    grid = keras.layers.BatchNormalization(name="normalisation")(grid)
    exit_flow = keras.Model(seen, keras.layers.ReLU()(grid), name="exit_flow")
    cells = keras.layers.Reshape((-1, 9))(exit_flow(backbone(images)))
    trunk_cells = keras.layers.Reshape((-1, 7))(backbone(images))
    return SplitEncoder(
        keras.Model(images, cells, name="tiny"),
        keras.Model(images, trunk_cells, name="tiny"),
        exit_flow,
    )


@pytest.fixture
def world(encoder, tiny_root, tiny_data):
    """What `fine_tune` wants behind the encoder: a teacher, the data as the encoder sees it and as
    its backbone does, and a vocabulary."""
    images = Paths(tiny_root).images

    def see(half: keras.Model, names, load) -> dict:
        pixels = np.stack([load(images / name, (32, 48)) for name in names])
        return dict(zip(names, half.predict(pixels, verbose=0), strict=True))

    def of(half: keras.Model) -> TrainingData:
        names = [*tiny_data.train, *tiny_data.development]
        mirrored = see(half, list(tiny_data.train), HORIZONTAL_FLIP.load_image)
        return replace(
            tiny_data, features=see(half, names, load_image), views={HORIZONTAL_FLIP: mirrored}
        )

    vocabulary = Vocabulary.from_captions(sum(tiny_data.train.values(), []), min_word_count=1)
    keras.utils.set_random_seed(6)
    model = build_caption_model(len(vocabulary), 9, SETTINGS)
    teacher = build_teacher([model], SETTINGS, "float32")
    return teacher, of(encoder.whole), of(encoder.backbone), vocabulary


def test_the_exit_flow_learns_and_nothing_else_of_the_encoder(encoder, world, tmp_path):
    backbone = encoder.backbone.get_weights()
    before = {layer.name: layer.get_weights() for layer in encoder.exit_flow.layers}
    history = fine_tune(encoder, *world, SETTINGS, tmp_path)
    assert [epoch["stage"] for epoch in history] == ["teacher forcing", *3 * ["fine-tuning"]]
    after = {layer.name: layer.get_weights() for layer in encoder.exit_flow.layers}
    for one, other in zip(before["convolution"], after["convolution"], strict=True):
        assert not np.allclose(one, other)
    for one, other in zip(before["normalisation"], after["normalisation"], strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(backbone, encoder.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_who_learns_with_the_exit_flow_errs_less_than_who_learns_alone(
    encoder, world, tmp_path, monkeypatch
):
    pretrained = encoder.exit_flow.get_weights()
    together = fine_tune(encoder, *world, SETTINGS, tmp_path / "together")
    encoder.exit_flow.set_weights(pretrained)
    in_precision = fine_tuning._in_precision

    def frozen(exit_flow, precision):
        copied = in_precision(exit_flow, precision)
        copied.trainable = False
        return copied

    monkeypatch.setattr(fine_tuning, "_in_precision", frozen)
    alone = fine_tune(encoder, *world, SETTINGS, tmp_path / "alone")
    assert together[-1]["val_loss"] < alone[-1]["val_loss"]


def test_a_run_of_another_teacher_is_not_gone_on_with(encoder, world, tmp_path):
    _, *rest, vocabulary = world
    pretrained = encoder.exit_flow.get_weights()
    fine_tune(encoder, *world, SETTINGS, tmp_path)
    encoder.exit_flow.set_weights(pretrained)  # a new process begins with these
    other = build_teacher([build_caption_model(len(vocabulary), 9, SETTINGS)], SETTINGS, "float32")
    with pytest.raises(ValueError, match="belongs to another run: teacher"):
        fine_tune(encoder, other, *rest, vocabulary, SETTINGS, tmp_path)


def test_the_epoch_with_the_best_captions_is_kept(encoder, world, tmp_path, monkeypatch):
    ciders = iter([0.1, 0.2, 0.4, 0.3])
    weights = []
    add_epoch = Run.add_epoch

    def watched(run, model, numbers):
        add_epoch(run, model, numbers | {"development CIDEr": next(ciders)})
        if model.name == STAGE:
            weights.append(model.get_layer("exit_flow").get_weights())

    monkeypatch.setattr(Run, "add_epoch", watched)
    fine_tune(encoder, *world, SETTINGS, tmp_path)
    for one, other in zip(weights[1], encoder.exit_flow.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_exit_flow_that_got_no_better_stays_as_it_was(encoder, world, tmp_path, monkeypatch):
    before = encoder.exit_flow.get_weights()
    ciders = iter([0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr(
        "captioning.training.validation.Validator.of",
        lambda *_: {"development CIDEr": next(ciders)},
    )
    fine_tune(encoder, *world, SETTINGS, tmp_path)
    for one, other in zip(before, encoder.exit_flow.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(
    encoder, world, tmp_path, monkeypatch
):
    pretrained = encoder.exit_flow.get_weights()
    expected_history = fine_tune(encoder, *world, SETTINGS, tmp_path / "whole")
    expected = encoder.exit_flow.get_weights()

    encoder.exit_flow.set_weights(pretrained)
    add_epoch = Run.add_epoch

    def killed_after_three(run, model, numbers):
        add_epoch(run, model, numbers)
        if len(run.history) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "add_epoch", killed_after_three)
        fine_tune(encoder, *world, SETTINGS, tmp_path / "killed")
    encoder.exit_flow.set_weights(pretrained)  # a new process begins with these
    history = fine_tune(encoder, *world, SETTINGS, tmp_path / "killed")
    assert [epoch["stage"] for epoch in history] == [epoch["stage"] for epoch in expected_history]
    for one, other in zip(expected_history, history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)
    for one, other in zip(expected, encoder.exit_flow.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_teacher_looks_with_the_exit_flow_as_it_was(encoder, world, tmp_path, monkeypatch):
    answers = []

    class Watched(DistillationBatches):
        def __init__(self, batches, teacher):
            super().__init__(batches, teacher)
            answers.append(
                [
                    (batches.images_of(index), teacher.predict_on_batch(batches[index][0]))
                    for index in range(len(batches))
                ]
            )

    monkeypatch.setattr("captioning.training.cross_entropy.DistillationBatches", Watched)
    fine_tune(encoder, *world, SETTINGS, tmp_path)
    alone, _, behind, _ = answers  # each of training and development captions
    for (images, expected), (same_images, received) in zip(alone, behind, strict=True):
        assert images == same_images
        np.testing.assert_allclose(received, expected, atol=1e-5)


def test_weights_that_make_another_encoder_are_refused(encoder, monkeypatch):
    monkeypatch.setattr(fine_tuning, "build_split_encoder", lambda name, weights: encoder)
    assert pretrained_encoder(make_encoder_id(encoder.whole), "imagenet") is encoder
    with pytest.raises(ValueError, match="Wanted: the weights of tiny 0123"):
        pretrained_encoder("tiny 0123 int8", "imagenet")
