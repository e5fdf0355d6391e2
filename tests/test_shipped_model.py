"""What is in the repository: the trained model, its vocabulary, its scores, the README's claims."""

import json
import re
import zipfile
from dataclasses import asdict

import keras
import numpy as np
import pytest

from captioning.data.dataset import select
from captioning.data.flickr8k import read_captions, read_splits
from captioning.data.images import load_image
from captioning.data.vocabulary import START
from captioning.evaluation.evaluate import evaluate_end_to_end
from captioning.export.keras_to_openvino import make_encoder_id
from captioning.inference.captioner import Captioner
from captioning.inference.network_files import ENCODER, read_encoder_id
from captioning.inference.openvino_runtime import compile_network, openvino, read_network
from captioning.models.image_encoder import build_split_encoder
from captioning.paths import Paths, find_model
from captioning.settings import TrainingSettings
from captioning.training.checkpoints import read_record
from captioning.training.history import best_epoch, course_of_last

FILES = Paths(find_model())
README = (FILES.root / "README.md").read_text(encoding="utf-8")
_CONSTANT = {"Constant", "Convert"}  # what is added to every image alike
SCORES = json.loads(FILES.scores.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def captioner():
    return Captioner.load()


@pytest.mark.parametrize("document, photographs", [("README.md", 5), ("docs/gallery.md", 21)])
def test_the_captions_shown_are_those_of_the_shipped_model(document, photographs, captioner):
    text = (FILES.root / document).read_text(encoding="utf-8")
    shown = dict(re.findall(r'<img src="[./]*(examples/\w+\.jpg)"[^>]*><br>([^<|]+?) *\|', text))
    assert len(shown) == photographs
    assert {path: captioner.caption(FILES.root / path).text for path in shown} == shown


def test_every_example_is_credited():
    credits = (FILES.root / "examples" / "CREDITS.md").read_text(encoding="utf-8")
    for path in (FILES.root / "examples").glob("*.jpg"):
        assert f"| `{path.name}` |" in credits


def test_the_readme_states_the_scores_of_the_shipped_model():
    card = (FILES.models / "README.md").read_text(encoding="utf-8")
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
    counted = (FILES.root / "docs" / "errors.md").read_text(encoding="utf-8")
    stated = []
    for kind in ("nothing", "an action", "an object", "a colour", "gender or age"):
        (row,) = [line for line in counted.splitlines() if line.startswith(f"| {kind}")]
        stated += re.findall(r"\d+", "|".join(row.split("|")[2:4]))
    limits = README.partition("## Limits")[2].partition("([counted")[0]
    assert re.findall(r"\d+", limits) == ["100", *stated]


def test_the_exported_decoder_thinks_what_the_keras_model_thinks(captioner):
    """Of the next words of captions for eight examples, though its products are in integers."""
    model = keras.models.load_model(FILES.models / "caption_model.keras", compile=False)
    paths = sorted((FILES.root / "examples").glob("*.jpg"))[:8]
    images = np.stack([load_image(path, captioner.encoder.image_size) for path in paths])
    features = captioner.encoder(images)
    ids = [found[0].ids for found in captioner.decoder.search(features)]
    words = np.full((len(ids), 1, min(map(len, ids)) + 1), START)
    words[:, 0, 1:] = [of_caption[: words.shape[2] - 1] for of_caption in ids]
    expected = keras.ops.log_softmax(model({"features": features, "words": words}))
    expected = keras.ops.convert_to_numpy(expected)[:, 0]
    seen, state = captioner.decoder.prefill(features), captioner.decoder.initial_state(len(ids))
    received = []
    for position in range(words.shape[2]):
        log_probs, state = captioner.decoder.step(words[:, :, position], state, seen)
        received.append(log_probs[:, 0].copy())
    received = np.stack(received, axis=1)
    divergence = (np.exp(expected) * (expected - received)).sum(axis=-1)  # in nats
    assert divergence.mean() < 0.002
    assert divergence.max() < 0.05  # at one word of a hundred an integer may turn the scale
    assert (received.argmax(axis=-1) == expected.argmax(axis=-1)).mean() > 0.95


def test_the_run_that_is_shipped_is_the_one_that_train_would_go_on_with():
    chosen = TrainingSettings.for_data(images=6000, captions=30000)
    record = read_record(FILES.models, {"settings": asdict(chosen)})  # or it would raise
    course = course_of_last(record["history"])
    assert best_epoch(course) == len(course) - 1


@pytest.mark.real
def test_the_shipped_encoder_is_xception_in_integers_of_which_only_the_exit_flow_was_trained(
    shared,
):
    (weights,) = (shared / "xception").glob("*.h5")
    pretrained = build_split_encoder("Xception", weights)
    network = read_network(FILES.models / ENCODER)
    name, fingerprint, form = read_encoder_id(network).split()
    assert (name, form) == ("Xception", "int8")
    assert make_encoder_id(pretrained.whole) != f"{name} {fingerprint}"

    sums = [
        operation
        for operation in network.get_ordered_ops()
        if operation.get_type_name() == "Add" and not set(_kinds_of_inputs(operation)) & _CONSTANT
    ]  # of branches, as residual blocks end in one
    backbone = openvino.Model([sums[-2].output(0)], network.get_parameters())
    paths = sorted((FILES.root / "examples").glob("*.jpg"))[:4]
    images = np.stack([load_image(path, (299, 299)) for path in paths])
    received = compile_network(backbone)([images])[0].mean((2, 3))  # channels first
    expected = pretrained.backbone.predict(images, verbose=0).mean(1)
    cosine = (received * expected).sum(1)
    cosine /= np.linalg.norm(received, axis=1) * np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.98


def _kinds_of_inputs(operation) -> list[str]:
    return [value.get_source_output().get_node().get_type_name() for value in operation.inputs()]


@pytest.mark.real
def test_the_test_list_scores_what_the_card_says(captioner, shared, tmp_path):
    """The whole way on all 1,000 test images: photograph, features, search, score."""
    for name in ("Flickr8k_text.zip", "Flickr8k_Dataset.zip"):
        with zipfile.ZipFile(shared / "flickr8k" / name) as archive:
            archive.extractall(tmp_path)
    names = read_splits(tmp_path)["test"]
    references = select(read_captions(tmp_path / "Flickr8k.token.txt"), names)
    _, scores = evaluate_end_to_end(captioner, tmp_path / "Flicker8k_Dataset", references)
    assert scores["BLEU-4"] == pytest.approx(SCORES["BLEU-4"], abs=0.002)
    for name in ("CIDEr", "BLEU-1", "BLEU-2", "BLEU-3", "METEOR", "ROUGE-L"):
        assert scores[name] == pytest.approx(SCORES[name], abs=0.003)
    for name in ("distinct captions", "distinct words"):
        assert scores[name] == pytest.approx(SCORES[name], abs=5)
    assert scores["broken off"] < 10  # of 1,000
