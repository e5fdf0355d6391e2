import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_world import build_tiny_encoder, drawings

import captioning
from captioning import Captioner, SearchSettings
from captioning.data.images import open_image
from captioning.data.vocabulary import Vocabulary
from captioning.export.keras_to_openvino import export_encoder
from captioning.paths import Paths

ROOT = Path(__file__).parents[2]
SHAPE_CAPTION_WORDS = set("a there one the is on white page circle square red green blue".split())


@pytest.fixture(scope="module")
def captioner(tiny_root):
    return captioning.load(tiny_root)


@pytest.fixture(scope="module")
def image_paths(tiny_root):
    return sorted(Paths(tiny_root).images.glob("*.jpg"))


def test_most_captions_of_unseen_drawings_are_right(captioner, image_paths):
    """A caption of the tiny world's test images is right if it names colour and shape."""
    expected = [
        ("red", "circle"), ("green", "circle"), ("blue", "circle"),
        ("red", "square"), ("green", "square"), ("blue", "square"),
    ]  # fmt: skip
    captions = [captioner.caption(path).text.split() for path in image_paths[30:]]
    right = sum(
        colour in words and shape in words
        for words, (colour, shape) in zip(captions, expected, strict=True)
    )
    assert right >= 4  # of 6, where guessing finds one
    assert {word for words in captions for word in words} <= SHAPE_CAPTION_WORDS


def test_a_batch_gives_the_captions_of_each_image_alone(captioner, image_paths):
    batch = captioner.caption_batch(image_paths)
    assert len(batch) == 36
    for path, (best,) in zip(image_paths, batch, strict=True):
        alone = captioner.caption(path)
        assert best.text == alone.text
        assert best.log_prob == pytest.approx(alone.log_prob, abs=1e-4)


def test_an_image_gets_the_same_caption_in_every_form(captioner, image_paths):
    expected = captioner.caption(image_paths[0])
    with Image.open(image_paths[0]) as image:
        pixels = np.asarray(image)
        for form in (str(image_paths[0]), image, pixels, pixels / 255):
            assert captioner.caption(form) == expected


def test_a_batch_may_mix_all_forms_of_images(captioner, image_paths):
    alone = [captioner.caption(path).text for path in image_paths[:4]]
    with Image.open(image_paths[1]) as image:
        pixels = np.asarray(Image.open(image_paths[2]))
        mixed = [image_paths[0], image, pixels, str(image_paths[3])]
        assert [best.text for (best,) in captioner.caption_batch(mixed)] == alone
    assert [best.text for (best,) in captioner.caption_batch(iter(image_paths[:4]))] == alone


def test_an_empty_batch_gives_no_captions(captioner):
    assert captioner.caption_batch([]) == []
    assert list(captioner.stream([])) == []


@pytest.mark.parametrize("kind", ["text", "path", "bytes", "image", "array", "file"])
def test_a_single_image_in_place_of_a_batch_is_refused(captioner, image_paths, kind):
    path = image_paths[0]
    with Image.open(path) as image, path.open("rb") as file:
        single_image = {
            "text": str(path), "path": path, "bytes": path.read_bytes(), "image": image,
            "array": np.asarray(image), "file": file,
        }[kind]  # fmt: skip
        with pytest.raises(TypeError, match="Expected several images.*got one"):
            captioner.caption_batch(single_image)


def test_a_tensor_is_a_single_image_and_an_array_of_paths_a_batch(captioner, image_paths):
    class Tensor:  # as those of TensorFlow and PyTorch
        shape = (8, 8, 3)

        def __iter__(self):
            return iter(np.zeros(self.shape))

    with pytest.raises(TypeError, match="Expected several images.*got one Tensor"):
        captioner.caption_batch(Tensor())
    names = list(map(str, image_paths[:2]))
    assert captioner.caption_batch(np.array(names)) == captioner.caption_batch(names)


def test_an_unreadable_image_ends_a_batch_with_its_error(captioner, image_paths, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.jpg"):
        captioner.caption_batch([image_paths[0], tmp_path / "gone.jpg"])


def test_a_stream_yields_errors_in_the_places_of_their_images(captioner, image_paths, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    names = [tmp_path / "gone.jpg", image_paths[0], tmp_path / "text.jpg", 5, image_paths[0]]
    streamed = list(captioner.stream(names))
    assert [image for image, _ in streamed] == names
    missing, first, damaged, number, last = (result for _, result in streamed)
    assert isinstance(missing, FileNotFoundError)
    assert isinstance(damaged, ValueError)
    assert isinstance(number, TypeError)
    assert first == last
    assert first[0].text == captioner.caption(image_paths[0]).text


def test_a_stream_takes_images_only_as_it_needs_them(captioner, image_paths):
    taken = []

    def endless():
        while True:
            taken.append(image_paths[len(taken) % 36])
            yield taken[-1]

    stream = captioner.stream(endless())
    assert taken == []
    image, (best,) = next(stream)
    assert image == image_paths[0]
    assert best.text == captioner.caption(image).text
    assert len(taken) < 40


def test_several_captions_of_an_image_differ_and_the_best_comes_first(captioner, image_paths):
    search = SearchSettings(5, length_normalisation=0.0, decoding="beam")
    (captions,) = captioner.caption_batch(image_paths[:1], 5, search)
    assert len({caption.text for caption in captions}) == 5
    log_probs = [caption.log_prob for caption in captions]
    assert log_probs == sorted(log_probs, reverse=True)
    assert captioner.caption_batch(image_paths[:1], 2, search) == [captions[:2]]
    assert captioner.caption(image_paths[0], search) == captions[0]


def test_a_narrow_beam_is_widened_to_the_number_of_captions(captioner, image_paths):
    narrow, wide = SearchSettings(beam_width=1), SearchSettings(beam_width=4)
    captions = captioner.caption_batch(image_paths[:2], 4, narrow)
    assert captions == captioner.caption_batch(image_paths[:2], 4, wide)
    assert [len(image_captions) for image_captions in captions] == [4, 4]


def test_errors_come_before_a_thousand_images_have_failed(captioner, image_paths):
    """Otherwise all their contents would be in memory together."""
    taken = []

    def contents():
        for number in range(1000):
            taken.append(number)
            yield b"no image"
        yield from map(Path.read_bytes, image_paths[:2])

    results = captioner.stream(contents())
    image, error = next(results)
    assert image == b"no image" and "cannot be read" in str(error) and error.__traceback__ is None
    assert len(taken) < 50
    *_, (_, second_to_last), (_, last) = results
    assert len(taken) == 1000
    assert [[second_to_last[0].text], [last[0].text]] == [
        [caption.text] for caption in map(captioner.caption, image_paths[:2])
    ]


def test_an_image_that_does_not_fit_into_memory_fails_alone(captioner, image_paths, monkeypatch):
    def open_or_fail(image, at_least):
        if image == "large.jpg":
            raise MemoryError("Unable to allocate 9 GiB")
        return open_image(image, at_least)

    monkeypatch.setattr("captioning.data.images.open_image", open_or_fail)
    results = captioner.stream([image_paths[0], "large.jpg", image_paths[1]])
    first, error, last = [result for _, result in results]
    assert isinstance(error, MemoryError)
    assert [first[0], last[0]] == list(map(captioner.caption, image_paths[:2]))


def test_consensus_without_guidance_reorders_the_captions_of_the_beam(tiny_root, image_paths):
    captioner = captioning.load(tiny_root)
    captioner.decoder.confidence = None
    beam, consensus = (SearchSettings(10, 0.7, name) for name in ("beam", "consensus"))
    by_beam = captioner.caption_batch(image_paths, 10, beam)
    by_consensus = captioner.caption_batch(image_paths, 10, consensus)
    for expected, captions in zip(by_beam, by_consensus, strict=True):
        assert {caption.text for caption in captions} == {caption.text for caption in expected}
    assert by_consensus != by_beam


@pytest.mark.parametrize("number", [0, -1, 101, 2.5, None])
def test_an_invalid_number_of_captions_is_refused_at_once(captioner, image_paths, number):
    with pytest.raises(ValueError, match="Expected num_captions to be .* from 1 to 100, got"):
        captioner.caption_batch(image_paths[:1], number)
    with pytest.raises(ValueError, match="Expected num_captions"):
        captioner.stream(image_paths, number)


def test_a_wider_beam_finds_no_less_probable_caption(captioner, image_paths):
    greedy, wide = (
        captioner.caption(image_paths[0], SearchSettings(width, 0.0, "beam")) for width in (1, 5)
    )
    assert wide.log_prob >= greedy.log_prob - 1e-5


def test_a_caption_prints_as_its_text(captioner, image_paths):
    caption = captioner.caption(image_paths[0])
    assert f"{caption}" == caption.text != ""
    assert caption.log_prob < 0


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_kind_of_image_is_captioned(captioner, tmp_path, mode):
    path = tmp_path / ("image.tif" if mode in ("CMYK", "I;16") else "image.png")
    if mode == "I;16":
        Image.new("I;16", (40, 30), 30000).save(path)
    else:
        Image.new("RGB", (40, 30), (200, 30, 30)).convert(mode).save(path)
    assert captioner.caption(path).text


def test_the_attention_weights_of_a_word_sum_to_one(captioner, image_paths):
    caption = captioner.caption(image_paths[0])
    attention = captioner.attention(image_paths[0], caption)
    assert " ".join(attention.words) == caption.text
    assert attention.method == "attention"
    assert attention.weights.shape == (len(attention.words), 4)
    np.testing.assert_allclose(attention.weights.sum(axis=1), 1, atol=1e-5)


def test_attention_for_an_empty_caption_is_refused(captioner, image_paths):
    with pytest.raises(ValueError, match="Expected a caption of one word or more, got '...'"):
        captioner.attention(image_paths[0], "...")


def test_threads_that_share_a_captioner_get_the_captions_of_their_own_images(captioner):
    images = [image for image, _ in drawings(200).values()]
    alone = [captioner.caption(image) for image in images]
    assert len({caption.log_prob for caption in alone}) > 100  # a swap would show

    def caption_all(first: int):
        order = [*range(first, 200), *range(first)]
        return {number: captioner.caption(images[number].copy()) for number in order}

    with ThreadPoolExecutor(4) as pool:
        for captions in pool.map(caption_all, range(0, 200, 50)):
            assert [captions[number] for number in range(200)] == alone


def test_threads_that_share_the_shipped_model_get_the_captions_of_their_own_photographs():
    captioner = captioning.load(ROOT)
    paths = sorted((ROOT / "examples").glob("*.jpg"))[:8]
    alone = [captioner.caption(path) for path in paths]
    batch = captioner.caption_batch(paths)
    assert len({caption.log_prob for caption in alone}) == 8
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(captioner.caption, paths * 4)) == alone * 4
        assert list(pool.map(captioner.caption_batch, [paths] * 4)) == [batch] * 4


def test_a_caption_does_not_depend_on_earlier_images(captioner, image_paths):
    batch = captioner.caption_batch(image_paths)
    alone = captioner.caption(image_paths[3])
    captioner.caption_batch(image_paths * 10)
    assert captioner.caption_batch(image_paths) == batch
    assert captioner.caption(image_paths[3]) == alone


def test_the_package_imports_its_captioner_only_when_it_is_used():
    code = (
        "import sys, captioning; before = set(sys.modules)\n"
        "from captioning import Caption, Captioner, SearchSettings, load\n"
        "print('numpy' in before, 'openvino' in sys.modules, Captioner.__module__)\n"
        "print(sorted(captioning.__all__), set(captioning.__all__) <= set(dir(captioning)))\n"
        "print(hasattr(captioning, 'no_such_name'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines() == [
        "False True captioning.inference.captioner",
        "['Caption', 'Captioner', 'SearchSettings', 'load'] True",
        "False",
    ]


def test_the_environment_variable_names_the_model(tiny_root, image_paths, monkeypatch, captioner):
    monkeypatch.setenv("CAPTIONING_MODEL", str(tiny_root))
    assert captioning.load().caption(image_paths[0]) == captioner.caption(image_paths[0])


def test_a_model_and_a_vocabulary_of_different_runs_are_refused(tiny_root, tmp_path):
    shutil.copytree(tiny_root / "models", tmp_path / "models")
    Vocabulary(["some", "other", "words"]).save(tmp_path / "tokenizer.p")
    with pytest.raises(ValueError, match="Expected the vocabulary .* of the model in"):
        captioning.load(tmp_path)


def test_an_encoder_of_another_width_is_refused(captioner):
    class WideEncoder:
        feature_width = 2048

    with pytest.raises(ValueError, match="decoder's 18 features a cell, got one with 2048"):
        Captioner(WideEncoder(), captioner.decoder)


def test_an_encoder_that_the_decoder_was_not_trained_with_is_refused(tiny_root, tmp_path):
    shutil.copytree(tiny_root / "models", tmp_path / "models")
    shutil.copy(tiny_root / "tokenizer.p", tmp_path)
    other_encoder = build_tiny_encoder()
    other_encoder.name = "Other"
    export_encoder(other_encoder, tmp_path / "models")
    with pytest.raises(ValueError, match="trained with, encoder [0-9a-f]{16}, got Other"):
        captioning.load(tmp_path)


def test_an_encoder_without_an_id_is_accepted(tiny_root):
    captioner = captioning.load(tiny_root)
    captioner.encoder.encoder_id = None
    Captioner(captioner.encoder, captioner.decoder)


def test_a_decoder_without_an_encoder_id_expects_the_default_encoder(tiny_root, monkeypatch):
    for module in ("encoder", "decoder"):
        name = f"captioning.inference.{module}.read_encoder_id"
        monkeypatch.setattr(name, lambda network: None)
    captioner = captioning.load(tiny_root)
    captioner.encoder.encoder_id = "Xception 0123456789abcdef"
    Captioner(captioner.encoder, captioner.decoder)
    captioner.encoder.encoder_id = "VGG16 0123456789abcdef"
    with pytest.raises(ValueError, match="trained with, Xception, got VGG16 0123456789abcdef"):
        Captioner(captioner.encoder, captioner.decoder)


def test_a_quantised_encoder_is_accepted_by_a_decoder_trained_with_the_original(tiny_root):
    captioner = captioning.load(tiny_root)
    name, fingerprint = captioner.encoder.encoder_id.split()
    captioner.encoder.encoder_id = f"{name} {fingerprint} int8"
    Captioner(captioner.encoder, captioner.decoder)
    captioner.encoder.encoder_id = f"{name} 0123456789abcdef int8"
    with pytest.raises(ValueError, match="got encoder 0123456789abcdef int8"):
        Captioner(captioner.encoder, captioner.decoder)


def test_the_message_for_a_folder_without_a_model_names_the_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer.p"):
        captioning.load(tmp_path)
