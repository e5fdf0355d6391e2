import pytest

from captioning.data.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def vocabulary(tiny_data):
    return Vocabulary.from_captions(sum(tiny_data.train.values(), []), min_word_count=1)


@pytest.fixture(scope="module")
def float32():
    """Tests compare two runs closely, which needs float32 on every processor."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("cross_entropy", "fine_tuning", "self_critical", "train"):
            patch.setattr(f"captioning.training.{module}.training_precision", lambda: "float32")
        yield
