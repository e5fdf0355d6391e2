import json

import pytest

from captioning.training.checkpoints import (
    MONITOR,
    Run,
    find_best_epoch,
    load_model,
    read_record,
)


@pytest.mark.parametrize(
    "content",
    [
        "", "{}", "[]", "3", "[" * 100_000, '{"history": 3}', '{"history": [3]}',
        '{"history": [{}]}', '{"history": [{"stage": "cross-entropy"}]}',
        '{"history": [{"stage": 1, "development CIDEr": 0.5}]}',
        '{"history": [{"stage": "cross-entropy", "development CIDEr": NaN}]}',
        '{"history": [{"stage": "cross-entropy", "development CIDEr": "0.5"}]}',
        '{"history": [{"stage": "cross-entropy", "development CIDEr": 0.5, "loss": [1]}]}',
        '{"history": [{"stage": "cross-entropy", "development CIDEr": 1%s}]}' % (400 * "0"),
        '{"history": [], "encoder": 3}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_a_damaged_record_is_an_error_with_advice(tmp_path, content):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "training.json").write_bytes(content)
    with pytest.raises(ValueError, match="training.json, got a damaged .* Delete it to train"):
        read_record(tmp_path)


def test_the_advice_for_a_missing_model_depends_on_whether_it_was_trained(tmp_path):
    with pytest.raises(FileNotFoundError, match="Train it: `captioning train`"):
        load_model(tmp_path)
    (tmp_path / "training.json").write_text('{"history": [{}]}')
    with pytest.raises(FileNotFoundError, match="Restore it, or delete training.json and train"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no model", b"PK\x03\x04"])
def test_a_damaged_model_is_an_error_with_advice(tmp_path, content):
    (tmp_path / "caption_model.keras").write_bytes(content)
    with pytest.raises(ValueError, match="whole model in .*caption_model.keras, got .* Restore it"):
        load_model(tmp_path)


def test_the_best_epoch_is_the_first_with_the_highest_development_cider():
    history = [{MONITOR: score, "val_loss": 2.0} for score in (0.1, 0.5, 0.4, 0.5)]
    assert find_best_epoch(history) == 1


def test_if_all_epochs_score_0_the_epoch_with_the_lowest_loss_is_best():
    history = [{MONITOR: 0.0, "val_loss": loss} for loss in (3.0, 2.0, 1.0, 1.5)]
    assert find_best_epoch(history) == 2


def test_a_record_whose_settings_have_no_names_is_damaged(tmp_path):
    record = {"history": [], "settings": ["units", 13]}
    (tmp_path / "training.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ValueError, match="damaged file .its settings have no names"):
        read_record(tmp_path)


def test_a_new_run_removes_the_result_of_an_earlier_one(tmp_path):
    model = tmp_path / "caption_model.keras"
    model.write_bytes(b"of a run whose record was deleted")
    Run(tmp_path, {}, {"fine-tuning": 2}, patience=1)
    assert not model.exists()
    record = {"history": [{"stage": "fine-tuning", MONITOR: 0.5}]}
    (tmp_path / "training.json").write_text(json.dumps(record), encoding="utf-8")
    model.write_bytes(b"of this run")
    Run(tmp_path, {}, {"fine-tuning": 1}, patience=1)
    assert model.exists()
