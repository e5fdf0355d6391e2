import numpy as np
import pytest

from captioning.data.compact_captions import CompactCaptions


def test_captions_are_those_that_were_given():
    given = {"dog.jpg": [[1, 7, 8, 2], [], [1, 2]], "empty.jpg": [], "cat.jpg": [[70000]]}
    captions = CompactCaptions(given.items())
    assert list(captions) == list(given)
    assert len(captions) == 3
    for name, image_captions in given.items():
        assert [ids.tolist() for ids in captions[name]] == image_captions
        assert all(ids.dtype == np.int32 for ids in captions[name])
    assert "dog.jpg" in captions and "other.jpg" not in captions
    with pytest.raises(KeyError):
        captions["other.jpg"]
    assert not CompactCaptions([])


def test_captions_are_read_one_image_after_the_other():
    events = []

    def read():
        for name in ("a.jpg", "b.jpg"):
            events.append(f"{name} given")
            yield name, map(record, [[1, 2]])

    def record(ids):
        events.append("caption read")
        return ids

    CompactCaptions(read())
    assert events == ["a.jpg given", "caption read", "b.jpg given", "caption read"]
