"""The last block of a tiny encoder is fine-tuned together with a caption model, on drawings."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from tiny_world import drawings, inner_layers

from captioning.data.augmentation import HORIZONTAL_FLIP
from captioning.data.images import load_image
from captioning.data.vocabulary import Vocabulary
from captioning.export.keras_to_openvino import make_encoder_id
from captioning.models.caption_model import build_caption_model
from captioning.models.image_encoder import SplitEncoder
from captioning.settings import TrainingSettings
from captioning.training import cross_entropy, fine_tuning
from captioning.training.checkpoints import Run, load_model, read_record
from captioning.training.distillation import DistillationBatches
from captioning.training.fine_tuning import fine_tune, load_pretrained_encoder
from captioning.training.training_data import TrainingData

pytestmark = pytest.mark.usefixtures("float32")

SETTINGS = TrainingSettings(
    decoder="merge", min_word_count=1, embedding_units=8, units=12, batch_size=8,
    epochs=10, learning_rate=0.01, fine_tuning_epochs=2, fine_tuning_learning_rate=0.01,
    fine_tuning_soft_target_share=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> SplitEncoder:
    """An encoder whose backbone has 4 x 6 cells and whose last block has 2 x 3."""
    keras.utils.set_random_seed(5)
    images = keras.Input((32, 48, 3), dtype="uint8")
    grid = keras.layers.AveragePooling2D(8)(keras.layers.Rescaling(-4 / 255, offset=4)(images))
    backbone = keras.Model(images, keras.layers.Conv2D(7, 1, activation="relu")(grid))
    backbone_grid = keras.Input((4, 6, 7))
    grid = keras.layers.SeparableConv2D(9, 3, strides=2, padding="same", name="convolution")(
        backbone_grid
    )
    grid = keras.layers.BatchNormalization(name="normalisation")(grid)
    last_blocks = keras.Model(backbone_grid, keras.layers.ReLU()(grid), name="last_blocks")
    cells = keras.layers.Reshape((-1, 9))(last_blocks(backbone(images)))
    backbone_cells = keras.layers.Reshape((-1, 7))(backbone(images))
    return SplitEncoder(
        keras.Model(images, cells, name="tiny"),
        keras.Model(images, backbone_cells, name="tiny"),
        last_blocks,
    )


@pytest.fixture(scope="module")
def world(float32, encoder, tiny_data, tmp_path_factory):
    """Arguments of `fine_tune`: two trained members, data with the maps of the encoder, data with
    the maps of its backbone, and a vocabulary."""
    images = tmp_path_factory.mktemp("images")
    for name, (image, _) in drawings(36).items():
        image.save(images / name)

    def encode(network: keras.Model, names, load) -> dict:
        pixels = np.stack([load(images / name, (32, 48)) for name in names])
        return dict(zip(names, network.predict(pixels, verbose=0), strict=True))

    def make_data(network: keras.Model) -> TrainingData:
        plain = encode(network, [*tiny_data.train, *tiny_data.development], load_image)
        flipped = encode(network, list(tiny_data.train), HORIZONTAL_FLIP.load_image)
        return replace(tiny_data, features=plain, augmented_features={HORIZONTAL_FLIP: flipped})

    vocabulary = Vocabulary.from_captions(sum(tiny_data.train.values(), []), min_word_count=1)
    data, members = make_data(encoder.whole), []
    for seed in (6, 7):
        keras.utils.set_random_seed(seed)
        member = build_caption_model(len(vocabulary), 9, SETTINGS)
        batches = cross_entropy.make_batches(data.encode(vocabulary), SETTINGS)
        loss = cross_entropy.SmoothedCrossentropy()
        cross_entropy.compile_model(member, SETTINGS, len(batches), loss)
        member.fit(batches, epochs=SETTINGS.epochs, shuffle=False, verbose=0)
        members.append(member)
    return members, data, make_data(encoder.backbone), vocabulary


@pytest.fixture(scope="module")
def pretrained(encoder):
    """The weights of the last block before fine-tuning."""
    return encoder.last_blocks.get_weights()


@pytest.fixture(autouse=True)
def pretrained_encoder(encoder, pretrained):
    """Every test begins with the pretrained encoder, as a new process does."""
    encoder.last_blocks.set_weights(pretrained)


class Finished(NamedTuple):
    folder: Path
    history: list[dict]
    encoder_weights: dict[str, list[np.ndarray]]
    teacher_features: list  # of each variant of the training images
    soft_target_shares: list[float]  # for the training and the development images


@pytest.fixture(scope="module")
def finished(float32, encoder, pretrained, world, tmp_path_factory):
    """A finished run."""
    folder, teacher_variants, shares = tmp_path_factory.mktemp("finished"), [], []

    class RecordingBatches(DistillationBatches):
        def __init__(self, batches, teacher, folder, variants, soft_target_share):
            super().__init__(batches, teacher, folder, variants, soft_target_share)
            teacher_variants.append(variants)
            shares.append(soft_target_share)

    encoder.last_blocks.set_weights(pretrained)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("captioning.training.cross_entropy.DistillationBatches", RecordingBatches)
        history = fine_tune(encoder, *world, SETTINGS, folder)
    features = [variant.features for variant in teacher_variants[0]]
    return Finished(folder, history, get_layer_weights(encoder), features, shares)


def get_layer_weights(encoder):
    weights = {layer.name: layer.get_weights() for layer in encoder.last_blocks.layers}
    return weights | {"backbone": encoder.backbone.get_weights()}


@pytest.mark.slow
def test_of_the_encoder_only_the_last_blocks_learn(encoder, finished):
    assert [epoch["stage"] for epoch in finished.history] == ["fine-tuning", "fine-tuning"]
    pretrained, trained = get_layer_weights(encoder), finished.encoder_weights
    for before, after in zip(pretrained["convolution"], trained["convolution"], strict=True):
        assert not np.allclose(before, after)
    for name in ("normalisation", "backbone"):
        for before, after in zip(pretrained[name], trained[name], strict=True):
            np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_the_caption_model_that_learned_with_the_encoder_is_the_result_of_a_run(world, finished):
    (member, _), _, _, vocabulary = world
    caption_model = load_model(finished.folder)
    assert read_record(finished.folder)["history"] == finished.history
    assert caption_model.output_shape[-1] == len(vocabulary)
    layers = inner_layers(caption_model)
    dropouts = [layer for layer in layers if isinstance(layer, keras.layers.Dropout)]
    assert {layer.rate for layer in dropouts} == {0.3}  # of a student; that of teachers is 0.4
    pairs = list(zip(caption_model.get_weights(), member.get_weights(), strict=True))
    assert max(np.abs(trained - before).max() for trained, before in pairs) > 0.001


@pytest.mark.slow
def test_a_caption_model_learns_more_with_the_last_blocks_than_alone(
    encoder, world, finished, tmp_path, monkeypatch
):
    copy = fine_tuning._copy

    def frozen_copy(last_blocks, precision):
        copied = copy(last_blocks, precision)
        copied.trainable = False
        return copied

    monkeypatch.setattr(fine_tuning, "_copy", frozen_copy)
    alone = fine_tune(encoder, *world, SETTINGS, tmp_path)
    assert finished.history[-1]["val_loss"] < alone[-1]["val_loss"]


@pytest.mark.slow
def test_the_teacher_reads_the_maps_of_the_pretrained_encoder(world, finished):
    _, data, *_ = world
    plain, flipped = finished.teacher_features
    name = next(iter(data.train))
    np.testing.assert_array_equal(plain[f"{name}#0"], data.features[name])
    expected = data.augmented_features[HORIZONTAL_FLIP][name]
    np.testing.assert_array_equal(flipped[f"{name}#0"], expected)


@pytest.mark.slow
def test_each_target_has_the_share_of_the_teacher_that_is_set(finished):
    assert TrainingSettings().fine_tuning_soft_target_share == 1
    assert finished.soft_target_shares == [0.5, 0.5]


@pytest.mark.slow
def test_a_run_of_an_older_version_with_other_targets_is_not_resumed(
    encoder, world, finished, tmp_path
):
    shutil.copytree(finished.folder, tmp_path / "older")
    record_path = tmp_path / "older" / "training.json"
    record = json.loads(record_path.read_text(encoding="utf-8"))
    del record["settings"]["fine_tuning_soft_target_share"]
    record_path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ValueError, match="fine_tuning_soft_target_share 1.0 instead of 0.5"):
        fine_tune(encoder, *world, SETTINGS, tmp_path / "older")
    soft_only = replace(SETTINGS, fine_tuning_soft_target_share=1.0)
    assert fine_tune(encoder, *world, soft_only, tmp_path / "older") == finished.history


@pytest.mark.slow
def test_a_run_with_another_teacher_is_not_resumed(encoder, world, finished):
    _, *data, vocabulary = world
    other = build_caption_model(len(vocabulary), 9, SETTINGS)
    with pytest.raises(ValueError, match="that of another run: teacher"):
        fine_tune(encoder, [other], *data, vocabulary, SETTINGS, finished.folder)


@pytest.mark.slow
def test_a_killed_run_has_the_result_of_an_uninterrupted_run(
    encoder, pretrained, world, finished, tmp_path, monkeypatch
):
    add_epoch = Run.add_epoch

    def kill_after_first_epoch(run, model, numbers):
        add_epoch(run, model, numbers)
        if len(run.history) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "add_epoch", kill_after_first_epoch)
        fine_tune(encoder, *world, SETTINGS, tmp_path)
    encoder.last_blocks.set_weights(pretrained)
    history = fine_tune(encoder, *world, SETTINGS, tmp_path)
    for epoch, expected in zip(history, finished.history, strict=True):
        assert epoch["stage"] == expected["stage"]
        assert epoch["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        # The loss is a mean over batches, which depends a little on their order.
        assert epoch["val_loss"] == pytest.approx(expected["val_loss"], rel=2e-3)
    for name, layer_weights in get_layer_weights(encoder).items():
        for weights, expected in zip(layer_weights, finished.encoder_weights[name], strict=True):
            np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("ciders", "best"), [([0.4, 0.3], 0), ([0.1, 0.4], 1)])
def test_the_last_blocks_of_the_best_epoch_are_kept(
    encoder, world, tmp_path, monkeypatch, ciders, best
):
    recorded, ciders = [], iter(ciders)
    add_epoch = Run.add_epoch

    def record_weights(run, model, numbers):
        add_epoch(run, model, numbers | {"development CIDEr": next(ciders)})
        recorded.append(model.get_layer("last_blocks").get_weights())

    monkeypatch.setattr(Run, "add_epoch", record_weights)
    fine_tune(encoder, *world, SETTINGS, tmp_path)
    for weights, expected in zip(encoder.last_blocks.get_weights(), recorded[best], strict=True):
        np.testing.assert_array_equal(weights, expected)


def test_the_weights_of_another_encoder_are_refused(encoder, monkeypatch):
    monkeypatch.setattr(fine_tuning, "build_split_encoder", lambda *_: encoder)
    assert load_pretrained_encoder(make_encoder_id(encoder.whole), "imagenet", 1) is encoder
    with pytest.raises(ValueError, match="Expected the weights of tiny 0123"):
        load_pretrained_encoder("tiny 0123 int8", "imagenet", 1)
