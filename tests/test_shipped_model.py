"""The trained model in the repository, its vocabulary and scores, and the documents about it."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import captioning
from captioning.app import pipeline
from captioning.data.dataset import select
from captioning.data.flickr8k import read_captions, read_splits
from captioning.data.images import load_image
from captioning.data.vocabulary import START
from captioning.evaluation.evaluate import evaluate_end_to_end
from captioning.export.keras_to_openvino import make_encoder_id
from captioning.export.unsigned_activations import store_unsigned
from captioning.inference.decoding import Caption
from captioning.inference.network_files import ENCODER, read_network
from captioning.inference.openvino_runtime import (
    Network,
    compile_network,
    openvino,
    read_encoder_id,
)
from captioning.models.image_encoder import build_split_encoder
from captioning.output.report import split_by_model
from captioning.paths import Paths, find_model
from captioning.settings import TrainingSettings
from captioning.training.checkpoints import find_best_epoch, read_record
from captioning.training.training_data import training_settings

PATHS = Paths(find_model())
README = (PATHS.root / "README.md").read_text(encoding="utf-8")
SCORES = json.loads(PATHS.scores.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def captioner():
    return captioning.load()


@pytest.fixture(scope="module")
def captions(captioner) -> dict[str, Caption]:
    """File name -> caption of each example."""
    paths = sorted((PATHS.root / "examples").glob("*.jpg"))
    return {path.name: captioner.caption(path) for path in paths}


@pytest.mark.parametrize("document, photographs", [("README.md", 5), ("docs/gallery.md", 23)])
def test_the_captions_shown_are_those_of_the_shipped_model(document, photographs, captions):
    text = (PATHS.root / document).read_text(encoding="utf-8")
    shown = dict(re.findall(r'<img src="[./]*examples/(\w+\.jpg)"[^>]*><br>([^<|]+?) *\|', text))
    assert len(shown) == photographs
    assert {name: captions[name].text for name in shown} == shown


def test_the_readme_shows_what_the_first_command_prints(captioner):
    pattern = r"(?s)\ncaption (examples/\S+)\n```\n\n```\n(.*?)\n```"
    path, printed = re.search(pattern, README).groups()
    assert captioner.caption(PATHS.root / path).text == printed


def test_the_examples_of_low_confidence_are_those_that_the_document_lists(captions):
    text = (PATHS.root / "docs" / "errors.md").read_text(encoding="utf-8")
    listed = {name: float(value) for name, value in re.findall(r"(\w+) \((0\.\d{2,3})\)", text)}
    confidences = {Path(name).stem: caption.confidence for name, caption in captions.items()}
    low = {name: value for name, value in confidences.items() if value < 0.5}
    assert len(low) == 8
    assert listed == pytest.approx(low, abs=0.006)


def test_the_documents_state_the_scores_of_the_confidence():
    auroc, error = SCORES["confidence AUROC"], SCORES["calibration error"]
    stated = (PATHS.root / "docs" / "errors.md").read_text(encoding="utf-8")
    (row,) = [
        line
        for line in stated.splitlines()
        if line.startswith("| test list, guided consensus of 12")
    ]
    assert f"| {auroc:.3f} |" in row and f"| {error * 100:.1f} % |" in row
    card = (PATHS.models / "README.md").read_text(encoding="utf-8")
    assert f"an AUROC of {auroc:.3f}, and its expected calibration error is {error:.1%}" in (
        card.replace(" %", "%")
    )


def test_every_example_is_credited():
    credits = (PATHS.root / "examples" / "CREDITS.md").read_text(encoding="utf-8")
    for path in (PATHS.root / "examples").glob("*.jpg"):
        assert f"| `{path.name}` |" in credits


def test_the_readme_states_the_scores_of_the_shipped_model():
    card = (PATHS.models / "README.md").read_text(encoding="utf-8")
    for text in (README, card):
        (row,) = [
            line for line in text.splitlines() if line.startswith("| **ours, the shipped model")
        ]
        cells = [cell.strip() for cell in row.split("|")[3:-1]]
        bleu = " / ".join(f"{SCORES[f'BLEU-{n}'] * 100:.1f}" for n in (1, 2, 3, 4))
        rest = [f"{SCORES[name] * 100:.1f}" for name in ("METEOR", "ROUGE-L", "CIDEr")]
        counts = [str(SCORES[name]) for name in ("distinct captions", "distinct words")]
        assert cells == [bleu, *rest, *counts]


def test_the_readme_states_the_errors_that_were_counted():
    counted = (PATHS.root / "docs" / "errors.md").read_text(encoding="utf-8")
    stated = []
    for kind in ("none", "an action", "an object", "a colour", "gender or age"):
        (row,) = [line for line in counted.splitlines() if line.startswith(f"| {kind}")]
        stated += re.findall(r"\d+", "|".join(row.split("|")[2:4]))
    limits = README.partition("## Limits")[2].partition("([counted")[0]
    assert re.findall(r"\d+", limits) == ["100", *stated]


def test_the_exported_decoder_predicts_what_the_keras_model_predicts(captioner):
    """It nearly does so, in 8-bit integers, for the captions of eight examples."""
    model = keras.models.load_model(PATHS.models / "caption_model.keras", compile=False)
    paths = sorted((PATHS.root / "examples").glob("*.jpg"))[:8]
    images = np.stack([load_image(path, captioner.encoder.image_size) for path in paths])
    features = captioner.encoder(images)
    ids = [best.ids for best, *_ in captioner.decoder.search(features)]
    length = 1 + min(map(len, ids))
    words = np.full((8, 1, length), START)
    words[:, 0, 1:] = [caption_ids[: length - 1] for caption_ids in ids]
    expected = keras.ops.log_softmax(model({"features": features, "words": words}))
    expected = keras.ops.convert_to_numpy(expected).reshape(8, length, -1)
    image_context = captioner.decoder.prefill(features)
    state = captioner.decoder.initial_state(8)
    log_probs = []
    for position in range(length):
        next_log_probs, state = captioner.decoder.step(words[:, :, position], state, image_context)
        log_probs.append(next_log_probs[:, 0])
    log_probs = np.stack(log_probs, axis=1)  # (images, length, vocabulary_size)
    divergence = (np.exp(expected) * (expected - log_probs)).sum(axis=-1)  # in nats
    assert divergence.mean() < 0.002
    assert divergence.max() < 0.05  # rounding may decide one word in a hundred
    assert (log_probs.argmax(axis=-1) == expected.argmax(axis=-1)).mean() > 0.95


def test_the_default_settings_are_those_of_the_shipped_run():
    settings = TrainingSettings.for_data(images=6000, captions=30000)
    record = read_record(
        PATHS.models, {"settings": training_settings(settings)}
    )  # raises for other settings
    *_, epochs = split_by_model(record["history"]).values()
    assert find_best_epoch(epochs) == len(epochs) - 1


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["8 bits", "floats"])
def test_a_caption_of_a_batch_is_that_of_the_image_alone(precision, captioner, shared, tmp_path):
    """On 200 photographs, whatever was captioned before, and wherever a batch begins."""
    if precision == "floats":
        paths = Paths(tmp_path)
        shutil.copytree(PATHS.models, paths.models)
        shutil.copy(PATHS.vocabulary, paths.vocabulary)
        pipeline.export(paths)
        captioner = captioning.load(paths.root)
    with zipfile.ZipFile(shared / "flickr8k" / "Flickr8k_Dataset.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][::40][:200]
        images = [archive.read(name) for name in names]
    alone = [captioner.caption(image) for image in images]
    for first in (0, 7):
        batch = [best for (best,) in captioner.caption_batch(images[first:])]
        assert [caption.text for caption in batch] == [caption.text for caption in alone[first:]]
        log_probs, expected = ([c.log_prob for c in cs] for cs in (batch, alone[first:]))
        np.testing.assert_allclose(log_probs, expected, rtol=0, atol=1e-5)
    assert captioner.caption(images[0]) == alone[0]


_FEATURE_MAPS = """
import sys
from pathlib import Path
import numpy as np
from captioning.data.images import load_image
from captioning.inference.encoder import Encoder
from captioning.paths import Paths
encoder = Encoder(Paths(Path(sys.argv[1])).models)
images = np.stack([load_image(path, encoder.image_size) for path in sys.argv[3:]])
np.save(sys.argv[2], encoder(images))
"""


def test_all_processors_compute_the_same_feature_maps(tmp_path):
    """This one, and one that has AVX2 only. With AMX, rounding differed up to version 9.0.0. On a
    processor without AMX, this passes for the old encoder, too."""
    paths = sorted((PATHS.root / "examples").glob("*.jpg"))[:4]
    maps = []
    for name, instructions in {"this": {}, "older": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}.items():
        saved = tmp_path / f"{name}.npy"
        environment = {**os.environ, "CAPTIONING_CACHE": "off", **instructions}
        command = [sys.executable, "-c", _FEATURE_MAPS, PATHS.root, saved, *paths]
        subprocess.run(list(map(str, command)), env=environment, check=True, cwd=PATHS.root)
        maps.append(np.load(saved))
    np.testing.assert_array_equal(*maps)


def test_the_shipped_encoder_has_no_activations_that_may_be_signed():
    network = read_network(PATHS.models / ENCODER)
    before = network.get_ops()
    store_unsigned(network)  # finds nothing left to do
    assert network.get_ops() == before


@pytest.mark.real
def test_the_shipped_encoder_is_a_quantised_xception_with_a_fine_tuned_exit_flow(shared):
    (weights,) = (shared / "xception").glob("*.h5")
    pretrained = build_split_encoder("Xception", weights, blocks=1)
    network = read_network(PATHS.models / ENCODER)
    name, fingerprint, precision = read_encoder_id(network).split()
    assert (name, precision) == ("Xception", "int8")
    assert make_encoder_id(pretrained.whole) != f"{name} {fingerprint}"

    residual_sums = [
        operation for operation in network.get_ordered_ops() if _adds_two_branches(operation)
    ]
    backbone = openvino.Model([residual_sums[-2].output(0)], network.get_parameters())
    paths = sorted((PATHS.root / "examples").glob("*.jpg"))[:4]
    images = np.stack([load_image(path, (299, 299)) for path in paths])
    features = Network(compile_network(backbone))([images])[0].mean((2, 3))  # channels first
    expected = pretrained.backbone.predict(images, verbose=0).mean(1)
    cosine = (features * expected).sum(1)
    cosine /= np.linalg.norm(features, axis=1) * np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.98


def _adds_two_branches(operation) -> bool:
    sources = {value.get_source_output().get_node().get_type_name() for value in operation.inputs()}
    return operation.get_type_name() == "Add" and not sources & {"Constant", "Convert"}


@pytest.mark.slow
@pytest.mark.real
def test_the_test_split_scores_what_the_model_card_states(captioner, shared, tmp_path):
    """End to end, from all 1,000 test photographs to their scores."""
    with zipfile.ZipFile(shared / "flickr8k" / "Flickr8k_text.zip") as archive:
        archive.extractall(tmp_path)
    names = read_splits(tmp_path)["test"]
    with zipfile.ZipFile(shared / "flickr8k" / "Flickr8k_Dataset.zip") as archive:
        archive.extractall(tmp_path, [f"Flicker8k_Dataset/{name}" for name in names])
    references = select(read_captions(tmp_path / "Flickr8k.token.txt"), names)
    _, scores = evaluate_end_to_end(captioner, tmp_path / "Flicker8k_Dataset", references)
    assert scores["BLEU-4"] == pytest.approx(SCORES["BLEU-4"], abs=0.002)
    for name in ("CIDEr", "BLEU-1", "BLEU-2", "BLEU-3", "METEOR", "ROUGE-L"):
        assert scores[name] == pytest.approx(SCORES[name], abs=0.003)
    for name in ("confidence AUROC", "calibration error"):
        assert scores[name] == pytest.approx(SCORES[name], abs=0.01)
    assert scores["calibration error"] < 0.05
    for name in ("distinct captions", "distinct words"):
        assert scores[name] == pytest.approx(SCORES[name], abs=5)
    assert scores["broken off"] < 10  # of 1,000
