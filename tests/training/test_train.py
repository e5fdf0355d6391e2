import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest

from captioning.data.vocabulary import Vocabulary
from captioning.models.caption_model import ensemble_members
from captioning.settings import TrainingSettings
from captioning.training.checkpoints import MONITOR, Run, best_epoch
from captioning.training.distillation import build_teacher
from captioning.training.self_critical import SelfCriticalBatches
from captioning.training.train import train
from captioning.training.training_data import TrainingData

SETTINGS = TrainingSettings(
    decoder="merge",  # whose graph is built in half of the time
    min_word_count=1,
    embedding_units=8,
    units=12,
    heads=3,
    batch_size=8,
    epochs=1,
    warmup_epochs=0.5,
    patience=4,
    self_critical_epochs=0,
    self_critical_dropout=0.0,
    samples=2,
    members=1,
    student=False,
)


@pytest.fixture(scope="module")
def vocabulary(tiny_data):
    return Vocabulary.from_captions(sum(tiny_data.train.values(), []), min_word_count=1)


@pytest.fixture(scope="module", autouse=True)
def float32():
    """So that two runs may be compared closely, on every processor."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("cross_entropy", "self_critical", "train"):
            patch.setattr(f"captioning.training.{module}.training_precision", lambda: "float32")
        yield


@pytest.fixture(scope="module")
def finished(tiny_data, vocabulary, tmp_path_factory):
    """A finished run: its folder, its model and its history."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, *train(tiny_data, vocabulary, SETTINGS, folder)


@pytest.fixture
def finished_folder(finished, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(finished[0], tmp_path / "models")


class Killed(Exception):
    pass


def kill(*_):
    raise Killed


def assert_equal_weights(model, other, **tolerances):
    for one, same in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, same, rtol=0, **{"atol": 0, **tolerances})


@pytest.mark.slow
def test_a_run_that_was_killed_resumes_as_if_nothing_had_happened(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    settings = replace(SETTINGS, epochs=3)
    whole, whole_history = train(tiny_data, vocabulary, settings, tmp_path / "whole")

    class KillInTheMiddleOfTheSecondEpoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch) == (1, 1):
                raise Killed

    fit = keras.Model.fit

    def killed_fit(model, *args, callbacks, **kwargs):
        callbacks = [*callbacks, KillInTheMiddleOfTheSecondEpoch()]
        return fit(model, *args, callbacks=callbacks, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(keras.Model, "fit", killed_fit)
        train(tiny_data, vocabulary, settings, tmp_path / "killed")
    assert (tmp_path / "killed" / "member-1" / "epoch-1.keras").exists()
    resumed, resumed_history = train(tiny_data, vocabulary, settings, tmp_path / "killed")

    assert len(resumed_history) == 3
    for one, other in zip(whole_history, resumed_history, strict=True):
        # A mean over batches, which differs a little with the way in which they are shuffled.
        assert one.pop("val_loss") == pytest.approx(other.pop("val_loss"), rel=2e-3)
        assert one.pop("stage") == other.pop("stage") == "cross-entropy"
        assert one == pytest.approx(other, rel=1e-4)
    assert_equal_weights(whole, resumed, atol=1e-5)


@pytest.mark.slow
def test_a_run_that_was_killed_in_its_second_stage_resumes_from_its_last_epoch(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    settings = replace(SETTINGS, self_critical_epochs=2)
    whole, whole_history = train(tiny_data, vocabulary, settings, tmp_path / "whole")
    stages = [epoch["stage"] for epoch in whole_history]
    assert stages == ["cross-entropy", "self-critical", "self-critical"]

    draw_epoch = SelfCriticalBatches.draw_epoch

    def killed_in_the_second(batches, epoch):
        for number, batch in enumerate(draw_epoch(batches, epoch)):
            if (epoch, number) == (1, 2):
                raise Killed
            yield batch

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(SelfCriticalBatches, "draw_epoch", killed_in_the_second)
        train(tiny_data, vocabulary, settings, tmp_path / "killed")
    resumed, resumed_history = train(tiny_data, vocabulary, settings, tmp_path / "killed")
    for one, other in zip(whole_history[1:], resumed_history[1:], strict=True):
        assert one.pop("stage") == other.pop("stage")
        assert one == pytest.approx(other, rel=1e-3)
    assert_equal_weights(whole, resumed, atol=1e-4)


@pytest.mark.slow
def test_the_second_stage_keeps_the_moving_average_of_its_weights(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    settings = replace(SETTINGS, self_critical_epochs=1, self_critical_momentum=0.5)
    after_each_batch, kept = [], []
    train_on_batch, add_epoch = keras.Model.train_on_batch, Run.add_epoch

    def watched_batch(model, *batch):
        loss = train_on_batch(model, *batch)
        after_each_batch.append(model.get_weights())
        return loss

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
    for received, expected in zip(kept[-1], average, strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-6)


@pytest.mark.slow
def test_several_members_are_trained_and_returned_as_their_ensemble(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    settings = replace(SETTINGS, self_critical_epochs=1, members=2)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("captioning.training.train.build_ensemble", kill)
        train(tiny_data, vocabulary, settings, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"member-1", "member-2"}
    trained = (tmp_path / "member-2" / "epoch-2.keras").stat().st_mtime_ns

    with monkeypatch.context() as patch:
        patch.setattr("captioning.training.train.shutil.rmtree", lambda folder: None)
        model, history = train(tiny_data, vocabulary, settings, tmp_path)
    assert (tmp_path / "member-2" / "epoch-2.keras").stat().st_mtime_ns == trained
    first, second = (member.get_weights() for member in ensemble_members(model))
    assert max(np.abs(one - other).max() for one, other in zip(first, second, strict=True)) > 1e-3
    assert [(epoch["stage"], epoch.get("member")) for epoch in history] == [
        ("cross-entropy", 1),
        ("self-critical", 1),
        ("cross-entropy", 2),
        ("self-critical", 2),
        ("ensemble", None),
    ]
    assert history[-1].keys() == {"stage", MONITOR, "development BLEU-4"}
    again, same_history = train(tiny_data, vocabulary, settings, tmp_path)
    assert same_history == history
    assert not list(tmp_path.glob("member-*"))  # the members that were left behind are gone
    assert_equal_weights(model, again)


@pytest.mark.slow
def test_a_student_learns_from_its_teachers_and_takes_their_place(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    settings = replace(
        SETTINGS, self_critical_epochs=1, members=2, student=True, student_epochs=2,
        student_dropout=0.2,
    )  # fmt: skip
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("captioning.training.train.build_teacher", kill)
        train(tiny_data, vocabulary, settings, tmp_path)
    trained = [
        keras.models.load_model(tmp_path / f"member-{number}" / "epoch-1.keras", compile=False)
        for number in (1, 2)
    ]
    teachers = []

    def build_and_keep(members, *arguments):
        for member, expected in zip(members, trained, strict=True):
            assert_equal_weights(member, expected)
        teachers.append(build_teacher(members, *arguments))
        return teachers[0]

    monkeypatch.setattr("captioning.training.train.build_teacher", build_and_keep)
    model, history = train(tiny_data, vocabulary, settings, tmp_path)
    assert len(teachers) == 1
    assert [(epoch["stage"], epoch.get("member")) for epoch in history] == [
        ("cross-entropy", 1),
        ("cross-entropy", 2),
        ("ensemble", None),
        ("cross-entropy", None),
        ("cross-entropy", None),
        ("self-critical", None),
    ]
    assert ensemble_members(model) == [model]
    rates = {layer.rate for layer in layers_of(model) if isinstance(layer, keras.layers.Dropout)}
    assert rates == {0.2}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "caption_model.keras",
        "training.json",
    ]


def layers_of(model):
    parts = [part for part in model.layers if isinstance(part, keras.Model)]
    return [layer for part in parts for layer in part.layers]


@pytest.mark.slow
def test_a_model_trained_in_lower_precision_is_returned_in_float32(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    for module in ("cross_entropy", "self_critical"):
        monkeypatch.setattr(
            f"captioning.training.{module}.training_precision", lambda: "mixed_bfloat16"
        )
    settings = replace(SETTINGS, self_critical_epochs=1)
    model, _ = train(tiny_data, vocabulary, settings, tmp_path)
    assert {layer.compute_dtype for layer in layers_of(model)} <= {"float32", "int32"}


def test_training_that_diverges_stops_with_advice(tiny_data, vocabulary, tmp_path):
    settings = replace(SETTINGS, learning_rate=1e30)
    with pytest.raises(ValueError, match="Expected a finite loss, got nan.* rate below 1e\\+30"):
        train(tiny_data, vocabulary, settings, tmp_path)
    assert not list(tmp_path.glob("member-1/epoch-*"))


def test_a_finished_run_is_returned_as_it_is(tiny_data, vocabulary, finished):
    folder, model, history = finished
    written = (folder / "caption_model.keras").stat().st_mtime_ns
    again, same_history = train(tiny_data, vocabulary, SETTINGS, folder)
    assert same_history == history
    assert (folder / "caption_model.keras").stat().st_mtime_ns == written
    assert_equal_weights(model, again)


def test_training_leaves_the_best_model_and_its_record_only(vocabulary, finished):
    folder, _, history = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        "caption_model.keras",
        "training.json",
    ]
    record = json.loads((folder / "training.json").read_text())
    assert record["history"] == history
    assert record["settings"]["units"] == 12
    assert record["vocabulary"] == vocabulary.fingerprint
    assert record["augmentations"] == 0


def test_a_record_from_before_a_setting_existed_is_still_that_of_its_run(
    tiny_data, vocabulary, finished, finished_folder
):
    record = json.loads((finished_folder / "training.json").read_text())
    del record["settings"]["members"]
    (finished_folder / "training.json").write_text(json.dumps(record))
    _, history = train(tiny_data, vocabulary, SETTINGS, finished_folder)
    assert history == finished[2]


@pytest.mark.parametrize("change", [{"units": 13}, {"seed": 5}])
def test_a_run_with_other_settings_is_not_resumed(tiny_data, vocabulary, finished, change):
    with pytest.raises(ValueError, match="another run: settings (units|seed) .* there, .* here"):
        train(tiny_data, vocabulary, replace(SETTINGS, **change), finished[0])


def test_a_run_with_other_words_is_not_resumed(tiny_data, vocabulary, finished):
    with pytest.raises(ValueError, match="belongs to another run: vocabulary"):
        train(tiny_data, Vocabulary(vocabulary.words[:3:-1]), SETTINGS, finished[0])


def test_training_stops_when_the_score_has_not_risen_for_a_while(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    scores = iter([0.3, 0.5, 0.4, 0.45, 0.2, 0.9])
    monkeypatch.setattr(
        "captioning.training.validation.Validator.score", lambda *_: {MONITOR: next(scores)}
    )
    settings = replace(SETTINGS, epochs=6, patience=2)
    _, history = train(tiny_data, vocabulary, settings, tmp_path)
    assert [epoch[MONITOR] for epoch in history] == [0.3, 0.5, 0.4, 0.45]


def test_the_best_weights_are_returned_not_the_last(tiny_data, vocabulary, tmp_path, monkeypatch):
    scores = iter([0.9, 0.1])
    after_each_epoch = []

    def score(_, model):
        after_each_epoch.append(model.get_weights())
        return {MONITOR: next(scores)}

    monkeypatch.setattr("captioning.training.validation.Validator.score", score)
    best, _ = train(tiny_data, vocabulary, replace(SETTINGS, epochs=2), tmp_path)
    first, last = after_each_epoch
    for received, expected in zip(best.get_weights(), first, strict=True):
        np.testing.assert_array_equal(received, expected)
    assert max(np.abs(one - other).max() for one, other in zip(first, last, strict=True)) > 1e-3


@pytest.mark.slow
def test_the_merge_model_learns_from_pooled_features(tiny_data, vocabulary, tmp_path):
    settings = replace(SETTINGS, decoder="merge")
    vectors = {name: maps.mean(axis=0) for name, maps in tiny_data.features.items()}
    of_vectors, _ = train(
        replace(tiny_data, features=vectors), vocabulary, settings, tmp_path / "vectors"
    )
    of_maps, _ = train(tiny_data, vocabulary, settings, tmp_path / "maps")
    assert_equal_weights(of_vectors, of_maps, atol=1e-5)


def test_the_attention_model_refuses_pooled_features(tiny_data, vocabulary, tmp_path):
    vectors = {name: maps.mean(axis=0) for name, maps in tiny_data.features.items()}
    settings = replace(SETTINGS, decoder="attention")
    with pytest.raises(ValueError, match='Expected feature maps .* "attention", got pooled'):
        train(replace(tiny_data, features=vectors), vocabulary, settings, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["merge", "attention"])
def test_two_kinds_of_images_are_learnt_by_heart(tmp_path, decoder):
    dogs, seas = ([f"{kind}{number}.jpg" for number in range(8)] for kind in ("dog", "sea"))
    captions = {name: ["a brown dog runs over the grass"] for name in dogs}
    captions |= {name: ["two boys jump into the blue sea"] for name in seas}
    features = {name: np.array([[1.0, 0.0]], "float32") for name in dogs}
    features |= {name: np.array([[0.0, 1.0]], "float32") for name in seas}
    references = {name: captions[name] for name in (dogs[0], seas[0])}
    data = TrainingData(captions, references, references, features)
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
        epochs=8,
        batch_size=1,
    )
    _, history = train(data, vocabulary, settings, tmp_path)
    assert history[-2]["loss"] < 0.1
    assert history[best_epoch(history)]["development BLEU-4"] == pytest.approx(1.0)
