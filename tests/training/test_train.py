import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest

from captioning.data.augmentation import AUGMENTATIONS
from captioning.data.vocabulary import Vocabulary
from captioning.models.caption_model import PARTS
from captioning.models.ensemble import members_of
from captioning.settings import TrainingSettings
from captioning.training.checkpoints import Run, load_model, read_record
from captioning.training.distillation import build_teacher
from captioning.training.history import MONITOR, best_epoch
from captioning.training.self_critical import SelfCriticalBatches
from captioning.training.train import train
from captioning.training.training_data import TrainingData

SETTINGS = TrainingSettings(
    min_word_count=1,
    embedding_units=8,
    units=12,
    heads=3,
    batch_size=4,
    epochs=4,
    patience=4,
    self_critical_epochs=0,
    self_critical_dropout=0.0,
    members=1,
    student=False,
)


@pytest.fixture(scope="module")
def vocabulary(tiny_data):
    return Vocabulary.from_captions(sum(tiny_data.train.values(), []), min_word_count=1)


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """So that two runs may be compared closely, on every processor."""
    for stage in ("teacher_forcing", "self_critical"):
        monkeypatch.setattr(f"captioning.training.{stage}.training_precision", lambda: "float32")


class Killed(Exception):
    pass


def kill(*_):
    raise Killed


def train_until_killed(monkeypatch, epochs, *arguments):
    """Runs `train`, which is killed in the middle of the epoch after `epochs`."""
    fit = keras.Model.fit

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == epochs and batch == 1:
                raise Killed

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

    def killed_fit(model, *args, callbacks, **kwargs):
        return fit(model, *args, callbacks=[*callbacks, Kill()], **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(keras.Model, "fit", killed_fit)
        train(*arguments)


def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    whole, whole_history = train(tiny_data, vocabulary, SETTINGS, tmp_path / "whole")

    arguments = tiny_data, vocabulary, SETTINGS, tmp_path / "killed"
    train_until_killed(monkeypatch, 2, *arguments)
    assert (tmp_path / "killed" / "member-1" / "epoch-2.keras").exists()
    resumed, resumed_history = train(*arguments)

    assert len(resumed_history) == 4
    for one, other in zip(whole_history, resumed_history, strict=True):
        # A mean over batches, which differs a little with the way in which they are dealt.
        assert one.pop("val_loss") == pytest.approx(other.pop("val_loss"), rel=2e-3)
        assert one.pop("stage") == other.pop("stage") == "teacher forcing"
        assert one == pytest.approx(other, rel=1e-4)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_run_that_was_killed_in_its_second_stage_goes_on_from_its_last_epoch(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    settings = replace(SETTINGS, epochs=1, self_critical_epochs=2, samples=2)
    whole, whole_history = train(tiny_data, vocabulary, settings, tmp_path / "whole")
    assert [epoch["stage"] for epoch in whole_history] == [
        "teacher forcing",
        "self-critical",
        "self-critical",
    ]

    of_epoch = SelfCriticalBatches.of_epoch

    def killed_of_epoch(batches, epoch):
        for number, batch in enumerate(of_epoch(batches, epoch)):
            if epoch == 1 and number == 2:
                raise Killed
            yield batch

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(SelfCriticalBatches, "of_epoch", killed_of_epoch)
        train(tiny_data, vocabulary, settings, tmp_path / "killed")
    resumed, resumed_history = train(tiny_data, vocabulary, settings, tmp_path / "killed")
    for one, other in zip(whole_history[1:], resumed_history[1:], strict=True):
        assert one.pop("stage") == other.pop("stage")
        assert one == pytest.approx(other, rel=1e-3)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_what_the_second_stage_keeps_is_the_mean_of_its_weights_over_its_batches(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    settings = replace(
        SETTINGS, epochs=1, self_critical_epochs=1, samples=2, self_critical_momentum=0.5
    )
    after_each_batch, kept = [], []
    train_on_batch, add_epoch = keras.Model.train_on_batch, Run.add_epoch

    def watched_batch(model, *batch):
        train_on_batch(model, *batch)
        after_each_batch.append(model.get_weights())

    def watched_epoch(run, model, numbers):
        kept.append(model.get_weights())
        add_epoch(run, model, numbers)

    monkeypatch.setattr(keras.Model, "train_on_batch", watched_batch)
    monkeypatch.setattr(Run, "add_epoch", watched_epoch)
    train(tiny_data, vocabulary, settings, tmp_path)
    average = after_each_batch[0]
    for weights in after_each_batch[1:]:
        average = [(one + other) / 2 for one, other in zip(average, weights, strict=True)]
    assert len(after_each_batch) > 1
    for found, expected in zip(kept[-1], average, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_several_members_are_trained_and_come_back_as_their_ensemble(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    settings = replace(SETTINGS, epochs=1, self_critical_epochs=1, samples=2, members=2)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("captioning.training.train.build_ensemble", kill)
        train(tiny_data, vocabulary, settings, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"member-1", "member-2"}
    trained = (tmp_path / "member-2" / "epoch-2.keras").stat().st_mtime_ns

    with monkeypatch.context() as patch:
        patch.setattr("captioning.training.train.shutil.rmtree", lambda folder: None)
        model, history = train(tiny_data, vocabulary, settings, tmp_path)
    assert (tmp_path / "member-2" / "epoch-2.keras").stat().st_mtime_ns == trained
    first, second = members_of(model)
    assert any(
        np.abs(one - other).max() > 1e-3
        for one, other in zip(first.get_weights(), second.get_weights(), strict=True)
    )
    assert [(epoch["stage"], epoch.get("member")) for epoch in history] == [
        ("teacher forcing", 1),
        ("self-critical", 1),
        ("teacher forcing", 2),
        ("self-critical", 2),
        ("ensemble", None),
    ]
    assert history[-1].keys() == {"stage", MONITOR, "development BLEU-4"}
    again, same_history = train(tiny_data, vocabulary, settings, tmp_path)
    assert same_history == history
    assert not list(tmp_path.glob("member-*"))  # the members that were left behind are gone
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_student_learns_what_its_teachers_think_and_takes_their_place(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    settings = replace(
        SETTINGS, epochs=1, self_critical_epochs=1, samples=2, members=2, student=True,
        student_epochs=2, student_dropout=0.2,
    )  # fmt: skip
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("captioning.training.train.build_teacher", kill)
        train(tiny_data, vocabulary, settings, tmp_path)
    teachers = [
        keras.models.load_model(tmp_path / f"member-{number}" / "epoch-1.keras", compile=False)
        for number in (1, 2)
    ]
    taught = []

    def build_and_keep(members, *arguments):
        for member, teacher in zip(members, teachers, strict=True):
            for one, other in zip(member.get_weights(), teacher.get_weights(), strict=True):
                np.testing.assert_array_equal(one, other)
        taught.append(build_teacher(members, *arguments))
        return taught[0]

    monkeypatch.setattr("captioning.training.train.build_teacher", build_and_keep)
    model, history = train(tiny_data, vocabulary, settings, tmp_path)
    assert len(taught) == 1
    assert [(epoch["stage"], epoch.get("member")) for epoch in history] == [
        ("teacher forcing", 1),
        ("teacher forcing", 2),
        ("ensemble", None),
        ("teacher forcing", None),
        ("teacher forcing", None),
        ("self-critical", None),
    ]
    assert members_of(model) == [model]
    dropouts = [
        layer.rate
        for part in PARTS
        for layer in model.get_layer(part).layers
        if isinstance(layer, keras.layers.Dropout)
    ]
    assert set(dropouts) == {0.2}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "caption_model.keras",
        "training.json",
    ]


def test_a_record_from_before_a_setting_existed_is_still_that_of_its_run(
    tiny_data, vocabulary, tmp_path
):
    settings = replace(SETTINGS, epochs=1)
    _, history = train(tiny_data, vocabulary, settings, tmp_path)
    record = json.loads((tmp_path / "training.json").read_text())
    del record["settings"]["members"]
    (tmp_path / "training.json").write_text(json.dumps(record))
    _, same_history = train(tiny_data, vocabulary, settings, tmp_path)
    assert same_history == history


def test_whatever_it_was_trained_in_the_model_computes_in_float32(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    for stage in ("teacher_forcing", "self_critical"):
        monkeypatch.setattr(
            f"captioning.training.{stage}.training_precision", lambda: "mixed_bfloat16"
        )
    settings = replace(SETTINGS, epochs=1, self_critical_epochs=1, samples=2)
    model, _ = train(tiny_data, vocabulary, settings, tmp_path)
    layers = [layer for part in PARTS for layer in model.get_layer(part).layers]
    assert {layer.compute_dtype for layer in layers} <= {"float32", "int32"}


def test_a_finished_run_is_returned_as_it_is(tiny_data, vocabulary, tmp_path):
    model, history = train(tiny_data, vocabulary, SETTINGS, tmp_path)
    written = (tmp_path / "caption_model.keras").stat().st_mtime_ns
    again, same_history = train(tiny_data, vocabulary, SETTINGS, tmp_path)
    assert same_history == history
    assert (tmp_path / "caption_model.keras").stat().st_mtime_ns == written
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_leaves_the_best_model_and_its_record_only(tiny_data, vocabulary, tmp_path):
    _, history = train(tiny_data, vocabulary, SETTINGS, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "caption_model.keras",
        "training.json",
    ]
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["history"] == history
    assert record["settings"]["units"] == 12
    assert record["vocabulary"] == vocabulary.fingerprint


def test_a_view_in_a_mirror_comes_with_its_own_features_and_with_left_and_right_exchanged():
    captions = {"dog.jpg": ["a dog on the left"]}
    plain, mirrored = {"dog.jpg": np.zeros((1, 2))}, {"dog.jpg": np.ones((1, 2))}
    vocabulary = Vocabulary(["a", "dog", "on", "the", "left", "right"])
    data = TrainingData(captions, captions, captions, plain, {AUGMENTATIONS[0]: mirrored})
    (first, first_features), (second, second_features) = data.encoded_views(vocabulary)
    assert vocabulary.decode(first["dog.jpg"][0][1:]) == "a dog on the left"
    assert vocabulary.decode(second["dog.jpg"][0][1:]) == "a dog on the right"
    assert (first_features, second_features) == (plain, mirrored)
    assert len(TrainingData(captions, captions, captions, plain).encoded_views(vocabulary)) == 1


def test_averaged_data_has_one_cell_an_image_and_the_same_average():
    captions = {"dog.jpg": ["a dog"]}
    maps = {"dog.jpg": np.array([[1, 2], [3, 6]], "float16"), "unused.jpg": np.ones((2, 2))}
    mirrored = {"dog.jpg": np.array([[0, 1], [0, 2]], "float16")}
    data = TrainingData(captions, {}, {}, maps, {AUGMENTATIONS[0]: mirrored}).averaged()
    assert data.features.keys() == data.views[AUGMENTATIONS[0]].keys() == {"dog.jpg"}
    assert data.features["dog.jpg"].tolist() == [[2, 4]]
    assert data.features["dog.jpg"].dtype == np.float32
    assert data.views[AUGMENTATIONS[0]]["dog.jpg"].tolist() == [[0, 1.5]]
    assert not TrainingData(captions, {}, {}, maps).averaged().views


@pytest.mark.parametrize("change", [{"units": 13}, {"seed": 5}])
def test_a_run_with_other_settings_is_not_gone_on_with(tiny_data, vocabulary, tmp_path, change):
    train(tiny_data, vocabulary, replace(SETTINGS, epochs=1), tmp_path)
    with pytest.raises(ValueError, match="another run: settings (units|seed) .* there, .* here"):
        train(tiny_data, vocabulary, replace(SETTINGS, epochs=1, **change), tmp_path)


def test_a_run_with_other_words_is_not_gone_on_with(tiny_data, vocabulary, tmp_path):
    settings = replace(SETTINGS, epochs=1)
    train(tiny_data, vocabulary, settings, tmp_path)
    with pytest.raises(ValueError, match="belongs to another run: vocabulary"):
        train(tiny_data, Vocabulary(vocabulary.words[:3:-1]), settings, tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]"])
def test_a_damaged_record_is_an_error_that_says_what_to_do(tmp_path, content):
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(ValueError, match="training.json is damaged .* Delete it to train anew"):
        read_record(tmp_path)


def test_a_model_that_was_lost_is_asked_for_by_whether_it_was_trained(tmp_path):
    with pytest.raises(FileNotFoundError, match="Train it: `python -m captioning train`"):
        load_model(tmp_path)
    (tmp_path / "training.json").write_text('{"history": [{}]}')
    with pytest.raises(FileNotFoundError, match="Restore it, or delete training.json and train"):
        load_model(tmp_path)


def test_the_best_epoch_is_the_first_with_the_highest_development_cider():
    history = [{MONITOR: score, "val_loss": 2.0} for score in (0.1, 0.5, 0.4, 0.5)]
    assert best_epoch(history) == 1


def test_where_no_epoch_scores_anything_the_one_with_the_lowest_loss_is_best():
    history = [{MONITOR: 0.0, "val_loss": loss} for loss in (3.0, 2.0, 1.0, 1.5)]
    assert best_epoch(history) == 2


def test_training_stops_when_the_score_has_not_risen_for_a_while(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    scores = iter([0.3, 0.5, 0.4, 0.45, 0.2, 0.9])
    monkeypatch.setattr(
        "captioning.training.validation.Validator.of", lambda self, model: {MONITOR: next(scores)}
    )
    settings = replace(SETTINGS, epochs=6, patience=2)
    _, history = train(tiny_data, vocabulary, settings, tmp_path)
    assert [epoch[MONITOR] for epoch in history] == [0.3, 0.5, 0.4, 0.45]


def test_the_best_weights_are_returned_not_the_last(tiny_data, vocabulary, tmp_path, monkeypatch):
    scores = iter([0.9, 0.1])
    with monkeypatch.context() as patch:
        patch.setattr(
            "captioning.training.validation.Validator.of", lambda *_: {MONITOR: next(scores)}
        )
        best, _ = train(tiny_data, vocabulary, replace(SETTINGS, epochs=2), tmp_path / "two")
    # The first of two epochs is not the only one of one: the learning rate falls more slowly.
    shutil.rmtree(tmp_path / "two")
    seen = {}

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen[epoch] = self.model.get_weights()

    fit = keras.Model.fit
    monkeypatch.setattr(
        keras.Model,
        "fit",
        lambda model, *args, callbacks, **kwargs: fit(
            model, *args, callbacks=[*callbacks, Watch()], **kwargs
        ),
    )
    train(tiny_data, vocabulary, replace(SETTINGS, epochs=2), tmp_path / "two")
    for one, first in zip(best.get_weights(), seen[0], strict=True):
        np.testing.assert_allclose(one, first, atol=1e-5)
    assert max(np.abs(one - last).max() for one, last in zip(seen[0], seen[1], strict=True)) > 1e-3


@pytest.mark.parametrize("decoder", ["merge", "attention"])
def test_two_images_are_learnt_by_heart(tmp_path, decoder):
    captions = {
        "dog.jpg": ["a brown dog runs over the grass"] * 5,
        "sea.jpg": ["two boys jump into the blue sea"] * 5,
    }
    features = {"dog.jpg": np.array([[1.0, 0.0]], "f4"), "sea.jpg": np.array([[0.0, 1.0]], "f4")}
    data = TrainingData(captions, captions, captions, features)
    vocabulary = Vocabulary.from_captions(sum(captions.values(), []), min_word_count=1)
    settings = replace(
        SETTINGS,
        decoder=decoder,
        embedding_units=32,
        units=32,
        heads=4,
        self_critical_epochs=1,
        dropout=0.0,
        label_smoothing=0.0,
        learning_rate=0.01,
        epochs=60,
        patience=60,
        batch_size=1,
    )
    _, history = train(data, vocabulary, settings, tmp_path)
    assert history[-2]["loss"] < 0.1
    assert history[best_epoch(history)]["development BLEU-4"] == pytest.approx(1.0)
