"""The steps of the pipeline, from archives to scores."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny_world import build_tiny_encoder

from captioning.app import pipeline
from captioning.data.augmentation import AUGMENTATIONS, HORIZONTAL_FLIP, MANY_AUGMENTATIONS
from captioning.data.dataset import Dataset
from captioning.data.feature_store import FeatureStore
from captioning.data.pickles import load_vectors
from captioning.data.vocabulary import Vocabulary
from captioning.export.keras_to_openvino import export_encoder, make_encoder_id
from captioning.inference.captioner import Captioner
from captioning.inference.decoder import Decoder
from captioning.inference.encoder import Encoder
from captioning.inference.network_files import DECODER_PREFILL, DECODER_STEP, read_network
from captioning.inference.openvino_runtime import DECODER_METADATA_KEYS, read_encoder_id
from captioning.models.image_encoder import SplitEncoder
from captioning.paths import Paths
from captioning.settings import TrainingSettings
from captioning.training.validation import validate


@pytest.fixture
def paths(tmp_path) -> Paths:
    """A root folder with nothing in it."""
    return Paths(tmp_path / "root")


@pytest.fixture
def prepared(paths, archives) -> Paths:
    """A root folder with the tiny world, checked, and its encoder."""
    pipeline.download(paths, archives)
    pipeline.check(paths)
    export_encoder(build_tiny_encoder(), paths.models)
    return paths


@pytest.mark.slow
def test_the_steps_lead_from_archives_to_scores(tiny_root, tmp_path):
    paths = Paths(tiny_root)
    record = json.loads((paths.models / "training.json").read_text())
    assert [epoch["stage"] for epoch in record["history"]].count("self-critical") == 1
    assert not any("member" in epoch for epoch in record["history"])  # there is no student
    captions, scores = pipeline.evaluate(paths, "test")
    assert [*captions] == Dataset.load(paths.dataset).splits["test"]
    assert scores["CIDEr"] > 1  # a model that tells colours and shapes; guessing gives about 0.5
    assert scores["distinct captions"] > 1

    page_path = pipeline.report(paths, output=tmp_path / "page.html")
    assert page_path == tmp_path / "page.html"
    page = page_path.read_text(encoding="utf-8")
    assert "6 images of the development split" in page
    assert "self-critical" in page and "Flicker8k_Dataset/" in page


def test_features_record_and_decoder_name_the_encoder_that_made_the_features(tiny_root):
    paths = Paths(tiny_root)
    encoder_id = Encoder(paths.models).encoder_id
    assert FeatureStore(paths.feature_maps).encoder_id == encoder_id
    for augmentation in AUGMENTATIONS:
        path = paths.augmented_feature_maps(augmentation.name)
        assert FeatureStore(path).encoder_id == encoder_id
    record = json.loads((paths.models / "training.json").read_text())
    assert record["encoder"] == encoder_id
    assert Decoder.load(paths.models, Vocabulary.load(paths.vocabulary)).encoder_id == encoder_id


def test_a_finished_run_is_not_trained_again(tiny_root, tiny_settings):
    paths = Paths(tiny_root)
    record = json.loads((paths.models / "training.json").read_text())
    assert pipeline.train(paths, tiny_settings) == record["history"]


def test_the_check_returns_and_writes_the_usable_data_and_the_findings(paths, archives):
    pipeline.download(paths, archives)
    dataset, findings = pipeline.check(paths)
    assert "     0  images in no split" in str(findings)
    assert {split: len(names) for split, names in dataset.splits.items()} == {
        "train": 24, "development": 6, "test": 6
    }  # fmt: skip
    assert Dataset.load(paths.dataset) == dataset
    assert paths.descriptions.read_text().startswith("000_drawing.jpg\ta red circle\n")


def test_a_check_that_leaves_no_training_image_names_its_findings(prepared):
    for path in prepared.images.glob("*.jpg"):
        if path.name < "024":  # all training images
            path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="(?s)24  unreadable images.*in the train split"):
        pipeline.check(prepared)


@pytest.mark.parametrize("name", ["dataset.json", "descriptions.txt"])
def test_the_check_overwrites_no_caption_file(paths, prepared, name, monkeypatch):
    captions = paths.root / name
    captions.write_text('{"image": "a.jpg", "caption": "A dog runs ."}', encoding="utf-8")
    monkeypatch.chdir(paths.root)
    with pytest.raises(ValueError, match=f"would overwrite .*{name}. Name another --root"):
        pipeline.check(paths, [Path(name)], paths.images)
    assert "A dog runs" in captions.read_text(encoding="utf-8")


def test_features_of_another_encoder_do_not_replace_those_that_are_there(prepared):
    pipeline.extract_features(prepared)
    with pytest.raises(ValueError, match="VGG16, which would replace it"):
        pipeline.extract_features(prepared, encoder="vgg16")
    with pytest.raises(ValueError, match="vgg"):
        pipeline.extract_features(prepared, encoder="vgg")


def test_pooled_features_are_the_averages_of_maps_that_need_not_be_on_disk(prepared):
    pooled = pipeline.extract_features(prepared, pooled=True)
    assert not list(prepared.root.glob("*_maps.bin*"))
    saved = load_vectors(prepared.features)
    assert saved.keys() == pooled.keys() and len(pooled) == 36
    maps = pipeline.extract_features(prepared)
    for name, vector in pooled.items():
        np.testing.assert_array_equal(saved[name], vector)
        np.testing.assert_allclose(vector, maps[name].mean(axis=0), atol=1e-2)


@pytest.mark.slow
def test_the_merge_model_is_trained_from_pooled_features_alone(prepared, tiny_settings):
    pipeline.extract_features(prepared, pooled=True)
    settings = replace(tiny_settings, decoder="merge", epochs=16)
    history = pipeline.train(prepared, settings)
    assert [epoch["stage"] for epoch in history].count("self-critical") == 1
    red, green, blue, *_ = sorted(prepared.images.glob("*.jpg"))
    captioner = Captioner.load(prepared.root)
    for colour, path in (("red", red), ("green", green), ("blue", blue)):
        assert colour in captioner.caption(path).text.split()
    assert not list(prepared.root.glob("*_maps.bin*"))
    decoder = Decoder.load(prepared.models, Vocabulary.load(prepared.vocabulary))
    assert decoder.encoder_id == Encoder(prepared.models).encoder_id


@pytest.mark.slow
def test_on_the_fly_no_features_of_the_training_images_are_stored(prepared, tiny_settings):
    settings = replace(tiny_settings, epochs=12, members=1, student=True, student_epochs=12)
    history = pipeline.train(prepared, settings, on_the_fly=True)
    splits = Dataset.load(prepared.dataset).splits
    assert [*FeatureStore(prepared.development_feature_maps)] == splits["development"]
    assert [*prepared.root.glob("*_maps.bin")] == [prepared.development_feature_maps]
    assert max(epoch["development CIDEr"] for epoch in history) > 1
    assert pipeline.train(prepared, settings, on_the_fly=True) == history
    record = json.loads((prepared.models / "training.json").read_text())
    assert record["augmentations"] == len(MANY_AUGMENTATIONS) == 21
    assert record["encoder"] == Encoder(prepared.models).encoder_id


def test_the_merge_model_is_not_trained_on_the_fly(prepared, tiny_settings):
    with pytest.raises(ValueError, match='got "merge".*features --pooled'):
        pipeline.train(prepared, replace(tiny_settings, decoder="merge"), on_the_fly=True)


@pytest.mark.slow
def test_the_merge_model_is_trained_from_pooled_features_of_very_many_images(
    prepared, tiny_settings, monkeypatch
):
    monkeypatch.setattr("captioning.inference.extract_features._MAX_PICKLED", 35)
    pipeline.extract_features(prepared, pooled=True)
    assert not prepared.features.exists()
    history = pipeline.train(prepared, replace(tiny_settings, decoder="merge", epochs=4))
    assert [epoch["stage"] for epoch in history].count("self-critical") == 1
    assert pipeline.calibrate(prepared) == 6
    decoder = Decoder.load(prepared.models, Vocabulary.load(prepared.vocabulary))
    assert decoder.encoder_id == Encoder(prepared.models).encoder_id


def test_the_default_settings_suit_the_data_and_single_ones_can_be_overridden(prepared):
    settings = pipeline.default_settings(prepared)
    assert settings == TrainingSettings.for_data(images=24, captions=120)
    assert settings.batch_size == 4
    changed = pipeline.default_settings(prepared, {"epochs": 7, "decoder": "merge"})
    assert changed == replace(settings, epochs=7, student_epochs=7, decoder="merge")
    both = pipeline.default_settings(prepared, {"epochs": 7, "student_epochs": 9})
    assert both == replace(settings, epochs=7, student_epochs=9)


@pytest.mark.parametrize(
    ("step", "decoder"), [("train", "attention"), ("train", "merge"), ("fine_tune", "attention")]
)
def test_training_without_features_names_the_step_that_extracts_them(step, decoder, prepared):
    settings = TrainingSettings(decoder=decoder)
    with pytest.raises(FileNotFoundError, match="`captioning features"):
        getattr(pipeline, step)(prepared, settings)


def test_only_the_chosen_augmentations_are_extracted(prepared):
    pipeline.extract_features(prepared, augmentations=[HORIZONTAL_FLIP])
    names = {path.name for path in prepared.root.glob("*feature_maps.bin")}
    assert names == {"feature_maps.bin", "flipped_feature_maps.bin"}


def test_pooled_features_are_not_enough_for_a_model_with_attention(prepared, tiny_settings):
    pipeline.extract_features(prepared, pooled=True)
    with pytest.raises(FileNotFoundError, match="`captioning features"):
        pipeline.train(prepared, tiny_settings)


@pytest.fixture
def split_encoder(monkeypatch) -> SplitEncoder:
    """The encoder of the tiny world, in place of the encoder that fine-tuning builds."""
    encoder = build_tiny_split_encoder()
    monkeypatch.setattr("captioning.training.fine_tuning.build_split_encoder", lambda *_: encoder)
    return encoder


@pytest.fixture
def before_fine_tuning(split_encoder, tiny_root, paths) -> Paths:
    """A root folder whose model and feature maps are those of the split encoder."""
    ignored = shutil.ignore_patterns("*_maps.bin*", "encoder.*")
    shutil.copytree(tiny_root, paths.root, ignore=ignored)
    export_encoder(split_encoder.whole, paths.models)
    pipeline.check(paths)
    pipeline.extract_features(paths)
    record_encoder(paths, make_encoder_id(split_encoder.whole))  # it makes the same maps
    return paths


@pytest.fixture
def fine_tuning_settings(tiny_settings) -> TrainingSettings:
    """With other units than the caption model, which keeps its own."""
    return replace(tiny_settings, fine_tuning_epochs=2, units=16)


def record_encoder(paths, encoder_id):
    """Writes to the record of the run that this encoder made its features."""
    record = json.loads((paths.models / "training.json").read_text())
    (paths.models / "training.json").write_text(json.dumps(record | {"encoder": encoder_id}))


def test_an_encoder_is_not_fine_tuned_with_the_caption_model_of_another_encoder(
    before_fine_tuning, fine_tuning_settings
):
    record_encoder(before_fine_tuning, "encoder 0123")
    with pytest.raises(ValueError, match="Train with these maps"):
        pipeline.fine_tune(before_fine_tuning, fine_tuning_settings)
    assert not before_fine_tuning.backbone_maps.exists()


@pytest.mark.slow
def test_an_encoder_is_fine_tuned_and_built_again_from_its_weights(
    split_encoder, before_fine_tuning, fine_tuning_settings, monkeypatch
):
    def score_below_any(*arguments):
        """With so few captions, whether two epochs improve the model depends on the processor."""
        return dict.fromkeys(validate(*arguments), -1.0)

    monkeypatch.setattr("captioning.training.fine_tuning.validate", score_below_any)
    paths = before_fine_tuning
    assert pipeline.fine_tune(paths, fine_tuning_settings) == paths.fine_tuned_weights
    splits = Dataset.load(paths.dataset).splits
    assert [*FeatureStore(paths.backbone_maps)] == splits["development"]
    fine_tuned = split_encoder.last_blocks.get_weights()
    loaded = build_tiny_split_encoder()
    loaded.whole.get_layer("network").load_weights(paths.fine_tuned_weights)
    for weights, expected in zip(loaded.last_blocks.get_weights(), fine_tuned, strict=True):
        np.testing.assert_array_equal(weights, expected)


def test_an_encoder_that_did_not_improve_is_not_written(
    before_fine_tuning, fine_tuning_settings, monkeypatch
):
    history = [{"stage": "fine-tuning", "development CIDEr": 0.0}]
    monkeypatch.setattr("captioning.training.fine_tuning.fine_tune", lambda *_: history)
    with pytest.raises(
        ValueError, match="Expected a better development CIDEr.*got 0.000"
    ) as caught:
        pipeline.fine_tune(before_fine_tuning, fine_tuning_settings)
    assert str(before_fine_tuning.fine_tuning) in str(caught.value)
    assert not before_fine_tuning.fine_tuned_weights.exists()


def build_tiny_split_encoder() -> SplitEncoder:
    """The encoder of `build_tiny_encoder` in two parts: a backbone whose cells are single pixels,
    and a last block that joins the pixels of a line."""
    images = keras.Input((32, 48, 3), dtype="uint8")
    scaled = keras.layers.Rescaling(-4 / 255, offset=4)(images)
    pixels = keras.layers.AveragePooling2D(8)(scaled)  # (batch, 4, 6, 3)
    pixel_maps = keras.Input((4, 6, 3))
    side_by_side = keras.initializers.Constant(np.eye(18).reshape(1, 6, 3, 18))
    lines = keras.layers.Conv2D(18, (1, 6), kernel_initializer=side_by_side)(pixel_maps)
    last_blocks = keras.Model(pixel_maps, lines, name="last_blocks")
    network = keras.Model(pixel_maps, last_blocks(pixel_maps), name="network")
    return SplitEncoder(
        keras.Model(images, keras.layers.Reshape((4, 18))(network(pixels)), name="encoder"),
        keras.Model(images, keras.layers.Reshape((24, 3))(pixels), name="encoder"),
        last_blocks,
    )


def test_the_decoder_is_exported_again_with_or_without_the_data_set(tiny_root, paths):
    shutil.copytree(tiny_root, paths.root)
    paths.dataset.unlink()
    decoder_files = [paths.models / name for name in (DECODER_PREFILL, DECODER_STEP)]

    def metadata():
        networks = [read_network(path) for path in decoder_files]
        return [
            str(network.get_rt_info(["captioning", key]).value)
            for network in networks
            for key in DECODER_METADATA_KEYS
        ] + [read_encoder_id(network) for network in networks]

    before = metadata()
    pipeline.export(paths)  # takes the longest caption from the old export
    assert metadata() == before
    pipeline.check(paths)
    for path in decoder_files:
        path.unlink()
    pipeline.export(paths)
    assert metadata() == before


def test_a_model_is_not_exported_with_the_vocabulary_of_another_model(tiny_root, paths):
    shutil.copytree(tiny_root / "models", paths.models)
    Vocabulary(["a", "dog"]).save(paths.vocabulary)
    with pytest.raises(ValueError, match="Expected the vocabulary of .*caption_model.keras in"):
        pipeline.export(paths)


def test_a_check_that_is_killed_leaves_no_data_set_of_another_check(
    tmp_path, archives, monkeypatch
):
    paths = Paths(tmp_path)
    pipeline.download(paths, archives)
    pipeline.check(paths)

    def write_and_die(path, captions):
        path.write_text("other captions")
        raise KeyboardInterrupt

    monkeypatch.setattr("captioning.data.dataset.write_descriptions", write_and_die)
    with pytest.raises(KeyboardInterrupt):
        pipeline.check(paths)
    with pytest.raises(FileNotFoundError, match="dataset.json"):
        pipeline.default_settings(paths)
