import sys

import numpy as np
import pytest

from captioning.data.feature_store import FeatureStore

MAPS = {f"{number}.jpg": np.full((4, 3), number / 8, "float32") for number in range(1, 6)}


def written(path, names):
    maps = FeatureStore(path)
    for name in names:
        maps.append(name, MAPS[name])
    maps.save()
    return maps


def assert_holds(maps, names):
    assert list(maps) == list(names)
    assert len(maps) == len(names)
    for name in names:
        assert maps[name].dtype == np.float16
        np.testing.assert_array_equal(maps[name], MAPS[name])


def test_saved_maps_are_read_in_order(tmp_path):
    assert_holds(written(tmp_path / "maps.bin", MAPS), MAPS)
    assert_holds(FeatureStore(tmp_path / "maps.bin"), MAPS)


def test_a_new_store_is_empty(tmp_path):
    maps = FeatureStore(tmp_path / "maps.bin")
    assert_holds(maps, [])
    maps.save()
    assert list(tmp_path.iterdir()) == []


def test_maps_are_added_to_an_existing_store(tmp_path):
    written(tmp_path / "maps.bin", ["1.jpg", "2.jpg"])
    maps = written(tmp_path / "maps.bin", ["5.jpg"])
    assert_holds(maps, ["1.jpg", "2.jpg", "5.jpg"])


def test_appended_maps_can_be_read_after_saving(tmp_path):
    maps = written(tmp_path / "maps.bin", ["1.jpg"])
    maps.append("2.jpg", MAPS["2.jpg"])
    assert_holds(maps, ["1.jpg"])
    assert "2.jpg" not in maps
    maps.save()
    assert_holds(maps, ["1.jpg", "2.jpg"])


def test_unlisted_maps_of_a_killed_run_are_overwritten(tmp_path):
    path = tmp_path / "maps.bin"
    maps = written(path, ["1.jpg", "2.jpg"])
    maps.append("4.jpg", MAPS["4.jpg"])
    with path.open("ab") as file:
        file.write(b"half a map")
    assert_holds(FeatureStore(path), ["1.jpg", "2.jpg"])
    assert_holds(written(path, ["3.jpg"]), ["1.jpg", "2.jpg", "3.jpg"])


def test_the_unfinished_line_of_a_killed_run_is_overwritten(tmp_path):
    path = tmp_path / "maps.bin"
    index = tmp_path / "maps.bin.json"
    written(path, ["1.jpg", "2.jpg"])
    whole = index.read_bytes()
    written(path, ["3.jpg"])
    index.write_bytes(index.read_bytes()[: len(whole) + 30])
    assert_holds(FeatureStore(path), ["1.jpg", "2.jpg"])
    assert_holds(written(path, ["5.jpg"]), ["1.jpg", "2.jpg", "5.jpg"])
    assert_holds(FeatureStore(path), ["1.jpg", "2.jpg", "5.jpg"])


def test_each_save_adds_a_line_to_the_index(tmp_path):
    path = tmp_path / "maps.bin"
    maps = written(path, ["1.jpg", "2.jpg"])
    for name in ("3.jpg", "4.jpg"):
        maps.append(name, MAPS[name])
        maps.save()
    assert (tmp_path / "maps.bin.json").read_text().splitlines() == [
        '{"encoder": null, "shape": [4, 3], "maps_per_file": 10000, "images": ["1.jpg", "2.jpg"]}',
        '{"encoder": null, "shape": [4, 3], "maps_per_file": 10000, "images": ["3.jpg"]}',
        '{"encoder": null, "shape": [4, 3], "maps_per_file": 10000, "images": ["4.jpg"]}',
    ]


@pytest.fixture
def two_maps_per_file(monkeypatch):
    monkeypatch.setattr("captioning.data.feature_store._MAPS_PER_FILE", 2)


def test_maps_follow_in_further_files(tmp_path, two_maps_per_file):
    maps = written(tmp_path / "maps.bin", ["1.jpg", "2.jpg", "3.jpg"])
    assert_holds(maps, ["1.jpg", "2.jpg", "3.jpg"])
    assert_holds(written(tmp_path / "maps.bin", ["4.jpg", "5.jpg"]), MAPS)
    assert_holds(FeatureStore(tmp_path / "maps.bin"), MAPS)
    assert {path.name: path.stat().st_size for path in tmp_path.glob("*.bin")} == {
        "maps.bin": 48,
        "maps-2.bin": 48,
        "maps-3.bin": 24,
    }


def test_a_store_keeps_its_number_of_maps_in_a_file(tmp_path, two_maps_per_file, monkeypatch):
    written(tmp_path / "maps.bin", ["1.jpg", "2.jpg", "3.jpg"])
    monkeypatch.setattr("captioning.data.feature_store._MAPS_PER_FILE", 10)
    assert_holds(written(tmp_path / "maps.bin", ["4.jpg", "5.jpg"]), MAPS)
    assert len(list(tmp_path.glob("*.bin"))) == 3


def test_the_single_file_of_earlier_versions_is_read_and_continued(tmp_path, two_maps_per_file):
    content = np.stack([MAPS["1.jpg"], MAPS["2.jpg"], MAPS["3.jpg"]], dtype="float16")
    (tmp_path / "maps.bin").write_bytes(content.tobytes())
    (tmp_path / "maps.bin.json").write_text(
        '{"encoder": null, "shape": [4, 3], "images": ["1.jpg", "2.jpg", "3.jpg"]}'
    )
    assert_holds(FeatureStore(tmp_path / "maps.bin"), ["1.jpg", "2.jpg", "3.jpg"])
    assert_holds(written(tmp_path / "maps.bin", ["4.jpg", "5.jpg"]), MAPS)
    assert_holds(FeatureStore(tmp_path / "maps.bin"), MAPS)
    assert len(list(tmp_path.glob("*.bin"))) == 1


def test_a_missing_file_of_several_is_named(tmp_path, two_maps_per_file):
    written(tmp_path / "maps.bin", MAPS)
    (tmp_path / "maps-2.bin").unlink()
    with pytest.raises(ValueError, match="Expected 2 feature maps, .*maps-2.bin, got 0 bytes"):
        FeatureStore(tmp_path / "maps.bin")


def test_zeros_in_a_further_file_are_refused(tmp_path, two_maps_per_file):
    written(tmp_path / "maps.bin", MAPS)
    (tmp_path / "maps-2.bin").write_bytes(bytes(24) + MAPS["4.jpg"].astype("float16").tobytes())
    message = "maps-2.bin, got only zeros for 1 images, such as 3.jpg"
    with pytest.raises(ValueError, match=message):
        FeatureStore(tmp_path / "maps.bin")


def test_a_second_map_of_an_image_is_refused(tmp_path):
    maps = written(tmp_path / "maps.bin", ["1.jpg"])
    maps.append("2.jpg", MAPS["2.jpg"])
    for name in ("1.jpg", "2.jpg"):
        with pytest.raises(
            ValueError, match=f"Expected one feature map of {name} in .*, got another"
        ):
            maps.append(name, MAPS[name])


def test_maps_of_two_shapes_are_refused(tmp_path):
    maps = written(tmp_path / "maps.bin", ["1.jpg"])
    with pytest.raises(ValueError, match=r"shape \(4, 3\), as in .*, got \(4, 9\)"):
        maps.append("wide.jpg", np.zeros((4, 9), "float32"))


def test_a_file_that_is_too_short_is_refused(tmp_path):
    path = tmp_path / "maps.bin"
    written(path, MAPS)
    path.write_bytes(path.read_bytes()[:-1])
    message = "Expected 5 feature maps, 120 bytes, in .*, got 119 bytes. Delete maps.bin.json"
    with pytest.raises(ValueError, match=message):
        FeatureStore(path)


def test_an_index_that_was_cut_anywhere_lists_what_its_whole_lines_list(tmp_path):
    path, index_path = tmp_path / "maps.bin", tmp_path / "maps.bin.json"
    written(path, ["1.jpg", "2.jpg"])
    first = len(index_path.read_bytes())
    written(path, ["3.jpg"])
    content, maps = index_path.read_bytes(), path.read_bytes()
    for length in range(len(content)):
        index_path.write_bytes(content[:length])
        names = list(MAPS)[: 2 if length >= first else 0]
        assert_holds(FeatureStore(path), names)
        names.append(f"{len(names) + 1}.jpg")
        assert_holds(written(path, names[-1:]), names)
        path.write_bytes(maps)


@pytest.mark.skipif(sys.platform == "win32", reason="files have no limit there")
@pytest.mark.parametrize("limit", range(0, 121, 5))
def test_what_was_saved_before_the_disk_was_full_counts_once_there_is_room(tmp_path, limit):
    """The limit of the size of files stands for the disk: 5 maps take 120 bytes."""
    import resource

    path = tmp_path / "maps.bin"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    maps = FeatureStore(path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        with pytest.raises(OSError, match=r"maps.bin(.json)?'$"):
            for name in MAPS:
                maps.append(name, MAPS[name])
                maps.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found = list(FeatureStore(path))
    assert found == list(maps) == list(MAPS)[: len(found)]
    assert_holds(written(path, list(MAPS)[len(found) :]), MAPS)


@pytest.mark.parametrize("zeros", [["1.jpg"], ["4.jpg", "5.jpg"], list(MAPS)])
def test_maps_that_the_disk_forgot_are_refused(tmp_path, zeros):
    path = tmp_path / "maps.bin"
    written(path, MAPS)
    content = np.fromfile(path, "float16").reshape(5, 4, 3)
    content[[list(MAPS).index(name) for name in zeros]] = 0
    path.write_bytes(content.tobytes())
    message = f"got only zeros for {len(zeros)} images, such as {zeros[0]}. Delete it and maps.bin."
    with pytest.raises(ValueError, match=message):
        FeatureStore(path)


def test_a_cell_of_zeros_is_part_of_a_map(tmp_path):
    maps = FeatureStore(tmp_path / "maps.bin")
    maps.append("a.jpg", np.array([[0, 0], [0, 0], [0, 0.5]], "float32"))
    maps.save()
    assert list(FeatureStore(tmp_path / "maps.bin")) == ["a.jpg"]


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        '{"images": []}',
        "[" * 100_000,
        '{"images": 3, "shape": [1, 2]}',
        '{"images": "ab", "shape": [1, 2]}',
        '{"images": ["a.jpg"], "shape": [1, 0]}',
        '{"images": ["a.jpg"], "shape": [-1, -2]}',
        '{"images": ["a.jpg"], "shape": [1.5, 2]}',
        '{"images": ["a.jpg"], "shape": [1, 2, 3]}',
        '{"images": ["a.jpg"], "shape": [1, 2]}\n{"images": ["b.jpg"], "shape": [2, 1]}',
        '{"images": [3], "shape": [1, 2]}',
        '{"images": ["a.jpg"], "shape": [1, 2], "maps_per_file": 0}',
        '{"images": ["a.jpg"], "shape": [1, 2], "maps_per_file": "2"}',
        '{"images": ["a.jpg"], "shape": [1, 2], "maps_per_file": 1}\n'
        '{"images": ["b.jpg"], "shape": [1, 2], "maps_per_file": 2}',
        '{"images": ["a.jpg", "a.jpg"], "shape": [1, 2]}',
    ],
)
def test_a_damaged_index_is_refused(tmp_path, content):
    written(tmp_path / "maps.bin", MAPS)
    (tmp_path / "maps.bin.json").write_text(content)
    with pytest.raises(ValueError, match="index of feature maps in .*maps.bin.json, got a damaged"):
        FeatureStore(tmp_path / "maps.bin")


def test_an_index_with_an_absurd_shape_is_refused(tmp_path):
    written(tmp_path / "maps.bin", MAPS)
    (tmp_path / "maps.bin.json").write_text(
        '{"images": ["a.jpg"], "shape": [99999999999, 9999999]}'
    )
    with pytest.raises(ValueError, match="Expected 1 feature maps, .* got 120 bytes"):
        FeatureStore(tmp_path / "maps.bin")
