import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import build_tiny_encoder
from PIL import Image

from captioning.data.vocabulary import Vocabulary
from captioning.export.keras_to_openvino import export_encoder
from captioning.inference.captioner import Captioner
from captioning.paths import Paths
from captioning.settings import SearchSettings

ROOT = Path(__file__).parents[2]
SHAPE_CAPTION_WORDS = {"a", "there", "one", "the", "is", "on", "white", "page", "circle", "square"}


@pytest.fixture(scope="module")
def captioner(tiny_root):
    return Captioner.load(tiny_root)


def test_drawings_never_seen_are_described(captioner, tiny_root):
    """The tiny world's test images: colour and shape must both be right, in most of them."""
    paths = sorted(Paths(tiny_root).images.glob("*.jpg"))[30:]
    expected = [("red", "circle"), ("green", "circle"), ("blue", "circle")]
    expected += [("red", "square"), ("green", "square"), ("blue", "square")]
    captions = [captioner.caption(path).text.split() for path in paths]
    right = sum(
        colour in words and shape in words
        for words, (colour, shape) in zip(captions, expected, strict=True)
    )
    assert right >= 4  # of 6, where guessing finds one
    assert {word for words in captions for word in words} <= SHAPE_CAPTION_WORDS | {
        "red",
        "green",
        "blue",
    }


def test_many_files_get_the_captions_that_each_gets_alone(captioner, tiny_root):
    paths = sorted(Paths(tiny_root).images.glob("*.jpg"))
    together = list(captioner.caption_files(paths))
    assert [path for path, _ in together] == paths
    for path, caption in together[::5]:
        assert caption.text == captioner.caption(path).text


def test_a_path_an_image_and_its_pixels_get_the_same_caption(captioner, tiny_root):
    path = sorted(Paths(tiny_root).images.glob("*.jpg"))[0]
    with Image.open(path) as image:
        pixels = np.asarray(image)
        expected = captioner.caption(path)
        assert captioner.caption(str(path)) == expected
        assert captioner.caption(image) == expected
        assert captioner.caption(pixels) == expected
        assert captioner.caption(pixels / 255) == expected


def test_a_list_gives_a_list_of_captions_in_its_order(captioner, tiny_root):
    paths = sorted(Paths(tiny_root).images.glob("*.jpg"))[:4]
    alone = [captioner.caption(path).text for path in paths]
    with Image.open(paths[1]) as image:
        mixed = [paths[0], image, np.asarray(Image.open(paths[2])), str(paths[3])]
        assert [caption.text for caption in captioner.caption(mixed)] == alone
    assert [caption.text for caption in captioner.caption(tuple(paths))] == alone
    assert captioner.caption([]) == []


def test_a_list_with_a_missing_file_is_refused(captioner, tiny_root, tmp_path):
    path = next(Paths(tiny_root).images.glob("*.jpg"))
    with pytest.raises(FileNotFoundError, match="gone.jpg"):
        captioner.caption([path, tmp_path / "gone.jpg"])


def test_alternatives_are_different_captions_the_best_first(captioner, tiny_root):
    path = next(Paths(tiny_root).images.glob("*.jpg"))
    search = SearchSettings(beam_width=5, length_normalisation=0.0)
    found = captioner.alternatives(path, 5, search)
    assert len({caption.text for caption in found}) == 5
    log_probs = [caption.log_prob for caption in found]
    assert log_probs == sorted(log_probs, reverse=True)
    assert captioner.alternatives(path, 2, search) == found[:2]
    assert captioner.caption(path, search) == found[0]


def test_a_narrow_beam_is_widened_to_the_number_of_alternatives(captioner, tiny_root):
    path = next(Paths(tiny_root).images.glob("*.jpg"))
    narrow, wide = SearchSettings(beam_width=1), SearchSettings(beam_width=4)
    assert captioner.alternatives(path, 4, narrow) == captioner.alternatives(path, 4, wide)


def test_alternatives_of_a_list_are_a_list_for_each_image(captioner, tiny_root):
    paths = sorted(Paths(tiny_root).images.glob("*.jpg"))[:3]
    found = captioner.alternatives(paths, 2)
    assert [len(captions) for captions in found] == [2, 2, 2]
    assert [best.text for best, _ in found] == [
        captioner.alternatives(path, 2)[0].text for path in paths
    ]


def test_the_package_gives_its_captioner_and_imports_it_only_then():
    code = (
        "import sys, captioning; before = set(sys.modules); from captioning import Captioner; "
        "print('openvino' in before, 'openvino' in sys.modules, Captioner.__module__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["False", "True", "captioning.inference.captioner"]


def test_a_caption_prints_as_its_text(captioner, tiny_root):
    caption = captioner.caption(next(Paths(tiny_root).images.glob("*.jpg")))
    assert f"{caption}" == caption.text != ""
    assert caption.log_prob < 0


def test_a_failure_among_many_stays_in_its_place(captioner, tiny_root, tmp_path):
    path = next(Paths(tiny_root).images.glob("*.jpg"))
    found = [caption for _, caption in captioner.caption_files([path, tmp_path / "gone.jpg", path])]
    assert isinstance(found[1], FileNotFoundError)
    assert found[0] == found[2]


def test_a_wider_beam_finds_no_less_likely_captions(captioner, tiny_root):
    path = next(Paths(tiny_root).images.glob("*.jpg"))
    greedy = captioner.caption(path, SearchSettings(beam_width=1, length_normalisation=0.0))
    wide = captioner.caption(path, SearchSettings(beam_width=5, length_normalisation=0.0))
    assert wide.log_prob >= greedy.log_prob - 1e-5


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_kind_of_image_is_captioned(captioner, tmp_path, mode):
    path = tmp_path / ("image.tif" if mode in ("CMYK", "I;16") else "image.png")
    if mode == "I;16":
        Image.new("I;16", (40, 30), 30000).save(path)
    else:
        Image.new("RGB", (40, 30), (200, 30, 30)).convert(mode).save(path)
    assert captioner.caption(path).text


def test_each_word_looked_at_shares_of_the_feature_map(captioner, tiny_root):
    path = next(Paths(tiny_root).images.glob("*.jpg"))
    caption = captioner.caption(path)
    gaze = captioner.gaze(path, caption)
    assert " ".join(gaze.words) == caption.text
    assert gaze.method == "attention"
    assert gaze.weights.shape == (len(gaze.words), 4)
    np.testing.assert_allclose(gaze.weights.sum(axis=1), 1, atol=1e-5)


def test_model_and_vocabulary_of_two_runs_are_refused(tiny_root, tmp_path):
    root = tmp_path / "mixed"
    shutil.copytree(tiny_root / "models", root / "models")
    Vocabulary(["some", "other", "words"]).save(root / "tokenizer.p")
    with pytest.raises(ValueError, match="do not belong together"):
        Captioner.load(root)


def test_an_encoder_of_another_width_is_refused(captioner):
    class Wide:
        feature_width = 2048

    with pytest.raises(ValueError, match="features of 18 numbers. Received: 2048"):
        Captioner(Wide(), captioner.decoder)


def test_an_encoder_that_the_decoder_was_not_trained_on_is_refused(tiny_root, tmp_path):
    shutil.copytree(tiny_root / "models", tmp_path / "models")
    shutil.copy(tiny_root / "tokenizer.p", tmp_path)
    other = build_tiny_encoder()
    other.name = "Other"
    export_encoder(other, tmp_path / "models")
    with pytest.raises(ValueError, match="trained on, encoder [0-9a-f]{16}. Received: Other"):
        Captioner.load(tmp_path)


def test_an_encoder_from_before_encoders_were_noted_is_let_pass(tiny_root):
    captioner = Captioner.load(tiny_root)
    captioner.encoder.encoder_id = None
    Captioner(captioner.encoder, captioner.decoder)


def test_a_decoder_from_before_encoders_were_noted_wants_the_default(tiny_root, monkeypatch):
    monkeypatch.setattr("captioning.inference.networks.read_encoder_id", lambda network: None)
    captioner = Captioner.load(tiny_root)
    captioner.encoder.encoder_id = "Xception 0123456789abcdef"
    Captioner(captioner.encoder, captioner.decoder)
    captioner.encoder.encoder_id = "VGG16 0123456789abcdef"
    with pytest.raises(ValueError, match="trained on, Xception. Received: VGG16 0123456789abcdef"):
        Captioner(captioner.encoder, captioner.decoder)


def test_a_quantised_encoder_is_the_one_that_the_decoder_was_trained_on(tiny_root):
    captioner = Captioner.load(tiny_root)
    name, fingerprint = captioner.encoder.encoder_id.split()
    captioner.encoder.encoder_id = f"{name} {fingerprint} int8"
    Captioner(captioner.encoder, captioner.decoder)
    captioner.encoder.encoder_id = f"{name} 0123456789abcdef int8"
    with pytest.raises(ValueError, match="Received: encoder 0123456789abcdef int8"):
        Captioner(captioner.encoder, captioner.decoder)


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer.p"):
        Captioner.load(tmp_path)
