"""Networks whose files fit neither each other nor this package."""

import re
import shutil
from pathlib import Path

import pytest

from captioning.inference.captioner import Captioner

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"


@pytest.fixture
def folder(tmp_path):
    """A folder with the shipped model, to be damaged."""
    (tmp_path / "models").mkdir()
    shutil.copy(ROOT / "tokenizer.p", tmp_path)
    for path in (path for pattern in ("*.xml", "*.bin") for path in MODELS.glob(pattern)):
        shutil.copy(path, tmp_path / "models")
    return tmp_path


def replace(folder, name, pattern, new):
    """Replaces a pattern, which must occur, in a network file."""
    path = folder / "models" / name
    text, count = re.subn(pattern, new, path.read_text(encoding="utf-8"))
    assert count
    path.write_text(text, encoding="utf-8")


def refused(folder, match):
    with pytest.raises(ValueError, match=match):
        Captioner.load(folder, cache=False).caption(ROOT / "examples" / "cat.jpg")


@pytest.mark.parametrize("value", ["0", "-1", "99999999999", "9" * 5000, "many", "", "512.0", "٣"])
@pytest.mark.parametrize("name", ["units", "longest_caption", "feature_width"])
def test_absurd_numbers_in_the_metadata_are_refused(folder, name, value):
    for file in ("decoder_prefill.xml", "decoder_step.xml"):
        replace(folder, file, rf'<{name} value="\d+" />', f'<{name} value="{value}" />')
    limit = {"units": "65,536", "longest_caption": "1,000", "feature_width": "65,536"}[name]
    refused(folder, f"Expected {name} from 1 to {limit} in the metadata of .*decoder_step.xml")


@pytest.mark.parametrize(
    ("name", "network"), [("units", "decoder_step"), ("feature_width", "decoder_prefill")]
)
def test_numbers_that_do_not_fit_the_network_are_refused(folder, name, network):
    for file in ("decoder_prefill.xml", "decoder_step.xml"):
        replace(folder, file, rf'<{name} value="\d+" />', f'<{name} value="300" />')
    refused(folder, rf"Expected a network of the shapes .*300\b.* in .*{network}.xml, got")


@pytest.mark.parametrize("other", ["decoder_step", "decoder_prefill"])
def test_another_network_in_the_place_of_the_encoder_is_refused(folder, other):
    for ending in (".xml", ".bin"):
        shutil.copy(MODELS / f"{other}{ending}", folder / "models" / f"encoder{ending}")
    refused(folder, r"Expected a network of the shapes \[\?,\?,\?,3\] in .*encoder.xml")


@pytest.mark.parametrize("side", ["0", "99999", "-1"])
def test_an_encoder_of_absurd_images_is_refused(folder, side):
    replace(folder, "encoder.xml", 'shape="[?],299,299,3"', f'shape="?,{side},{side},3"')
    refused(folder, "encoder.xml")


@pytest.mark.parametrize("name", ["encoder", "decoder_prefill", "decoder_step"])
@pytest.mark.parametrize("ending", [".xml", ".bin"])
def test_half_a_network_is_refused(folder, name, ending):
    path = folder / "models" / f"{name}{ending}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(folder, f"Expected a network in .*{name}.xml and in the .bin file")
