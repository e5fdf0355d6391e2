import pytest
from conftest import build_tiny_encoder

from captioning import encoder as module
from captioning.encoder import provide_encoder
from captioning.settings import Files


@pytest.fixture
def shipped(tiny_root, monkeypatch):
    """The tiny world's encoder in the place of the repository's."""
    monkeypatch.setattr(module, "Files", lambda: Files(tiny_root))
    return Files(tiny_root).models


def test_a_root_without_an_encoder_is_given_the_shipped_one(shipped, tmp_path):
    encoder = provide_encoder(tmp_path / "models")
    assert encoder.image_size == (32, 48)
    for name in ("encoder.xml", "encoder.bin"):
        assert (tmp_path / "models" / name).read_bytes() == (shipped / name).read_bytes()


def test_an_encoder_that_is_there_is_left_as_it_is(shipped, monkeypatch):
    monkeypatch.setattr(module.shutil, "copyfileobj", lambda *_: pytest.fail("copied"))
    before = (shipped / "encoder.xml").stat()
    assert provide_encoder(shipped).feature_width == 18
    assert (shipped / "encoder.xml").stat() == before


def test_a_copy_that_was_stopped_is_made_again(shipped, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "copyfileobj", lambda *_: (_ for _ in ()).throw(OSError))
        with pytest.raises(OSError):
            provide_encoder(tmp_path)
    assert provide_encoder(tmp_path).feature_width == 18


def test_with_weights_it_is_made_anew(shipped, tmp_path, monkeypatch):
    provide_encoder(tmp_path)
    before = (tmp_path / "encoder.xml").stat().st_mtime_ns
    asked = []

    def build(name, weights):
        asked.append((name, weights))
        return build_tiny_encoder()

    monkeypatch.setattr("captioning.image_networks.build_encoder", build)
    assert provide_encoder(tmp_path, weights="my.h5").feature_width == 18
    assert asked == [("Xception", "my.h5")]
    assert (tmp_path / "encoder.xml").stat().st_mtime_ns > before
