import pytest

from captioning.inference.encoder import Encoder
from captioning.paths import Paths


@pytest.fixture
def encoder(tiny_root) -> Encoder:
    """The encoder of the tiny world."""
    return Encoder(Paths(tiny_root).models)
