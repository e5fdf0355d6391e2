import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from tiny_world import inner_layers

from captioning.data.vocabulary import Vocabulary
from captioning.models.caption_model import ensemble_members
from captioning.settings import TrainingSettings
from captioning.training.checkpoints import MONITOR, Run, find_best_epoch
from captioning.training.distillation import build_teacher
from captioning.training.self_critical import SelfCriticalBatches
from captioning.training.train import train
from captioning.training.training_data import TrainingData

pytestmark = pytest.mark.usefixtures("float32")

SETTINGS = TrainingSettings(
    decoder="merge",  # takes half of the time to build
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
def finished(float32, tiny_data, vocabulary, tmp_path_factory):
    """A finished run: its folder, its model and its history."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, *train(tiny_data, vocabulary, SETTINGS, folder)


@pytest.fixture
def finished_folder(finished, tmp_path):
    """A copy of the finished run, which a test may change."""
    return shutil.copytree(finished[0], tmp_path / "models")


class Killed(Exception):
    pass


def kill(*_):
    raise Killed


def assert_equal_weights(model, expected_model, tolerance=0.0):
    pairs = zip(model.get_weights(), expected_model.get_weights(), strict=True)
    for weights, expected in pairs:
        np.testing.assert_allclose(weights, expected, rtol=0, atol=tolerance)


def max_difference(weights, other_weights):
    pairs = zip(weights, other_weights, strict=True)
    return max(np.abs(array - other).max() for array, other in pairs)


@pytest.mark.slow
def test_a_killed_run_has_the_result_of_an_uninterrupted_run(
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
    for epoch, expected in zip(resumed_history, whole_history, strict=True):
        # The loss is a mean over batches, which depends a little on their order.
        assert epoch.pop("val_loss") == pytest.approx(expected.pop("val_loss"), rel=2e-3)
        assert epoch.pop("stage") == expected.pop("stage") == "cross-entropy"
        assert epoch == pytest.approx(expected, rel=1e-4)
    assert_equal_weights(resumed, whole, 1e-5)


@pytest.mark.slow
def test_a_run_that_was_killed_in_its_second_stage_resumes_after_its_last_epoch(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    settings = replace(SETTINGS, self_critical_epochs=2)
    whole, whole_history = train(tiny_data, vocabulary, settings, tmp_path / "whole")
    stages = [epoch["stage"] for epoch in whole_history]
    assert stages == ["cross-entropy", "self-critical", "self-critical"]

    draw_epoch = SelfCriticalBatches.draw_epoch

    def kill_in_second_epoch(batches, epoch):
        for number, batch in enumerate(draw_epoch(batches, epoch)):
            if (epoch, number) == (1, 2):
                raise Killed
            yield batch

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(SelfCriticalBatches, "draw_epoch", kill_in_second_epoch)
        train(tiny_data, vocabulary, settings, tmp_path / "killed")
    resumed, resumed_history = train(tiny_data, vocabulary, settings, tmp_path / "killed")
    for epoch, expected in zip(resumed_history[1:], whole_history[1:], strict=True):
        assert epoch.pop("stage") == expected.pop("stage")
        assert epoch == pytest.approx(expected, rel=1e-3)
    assert_equal_weights(resumed, whole, 1e-4)


@pytest.mark.slow
def test_the_second_stage_saves_the_moving_average_of_its_weights(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    settings = replace(SETTINGS, self_critical_epochs=1, self_critical_momentum=0.5)
    after_each_batch, saved = [], []
    train_on_batch, add_epoch = keras.Model.train_on_batch, Run.add_epoch

    def record_batch(model, *batch):
        loss = train_on_batch(model, *batch)
        after_each_batch.append(model.get_weights())
        return loss

    def record_epoch(run, model, numbers):
        saved.append(model.get_weights())
        add_epoch(run, model, numbers)

    monkeypatch.setattr(keras.Model, "train_on_batch", record_batch)
    monkeypatch.setattr(Run, "add_epoch", record_epoch)
    train(tiny_data, vocabulary, settings, tmp_path)
    average = after_each_batch[0]
    for weights in after_each_batch[1:]:
        average = [(old + new) / 2 for old, new in zip(average, weights, strict=True)]
    assert len(after_each_batch) > 1
    assert max_difference(saved[-1], average) < 1e-6


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
    assert max_difference(first, second) > 1e-3
    assert [(epoch["stage"], epoch.get("member")) for epoch in history] == [
        ("cross-entropy", 1),
        ("self-critical", 1),
        ("cross-entropy", 2),
        ("self-critical", 2),
        ("ensemble", None),
    ]
    assert history[-1].keys() == {"stage", MONITOR, "development BLEU-4"}
    loaded, loaded_history = train(tiny_data, vocabulary, settings, tmp_path)
    assert loaded_history == history
    assert not list(tmp_path.glob("member-*"))  # the remaining members are removed
    assert_equal_weights(loaded, model)


@pytest.mark.slow
def test_a_student_learns_from_its_teachers_and_is_the_result(
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

    def record_teacher(members, *arguments):
        for member, expected in zip(members, trained, strict=True):
            assert_equal_weights(member, expected)
        teachers.append(build_teacher(members, *arguments))
        return teachers[0]

    monkeypatch.setattr("captioning.training.train.build_teacher", record_teacher)
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
    rates = {layer.rate for layer in inner_layers(model) if isinstance(layer, keras.layers.Dropout)}
    assert rates == {0.2}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "caption_model.keras",
        "training.json",
    ]


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
    assert {layer.compute_dtype for layer in inner_layers(model)} <= {"float32", "int32"}


def test_training_that_diverges_is_an_error_with_advice(tiny_data, vocabulary, tmp_path):
    settings = replace(SETTINGS, learning_rate=1e30)
    with pytest.raises(ValueError, match="Expected a finite loss, got nan.* rate below 1e\\+30"):
        train(tiny_data, vocabulary, settings, tmp_path)
    assert not list(tmp_path.glob("member-1/epoch-*"))


@pytest.mark.slow
@pytest.mark.parametrize("spoilt_batch", [0, 2])
def test_training_that_diverges_stops_at_once_and_keeps_the_epochs_before(
    tiny_data, vocabulary, tmp_path, monkeypatch, spoilt_batch
):
    """In the second epoch, of 3 batches: after the first batch or after the last."""
    batches = []

    class SpoilWeights(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            batches.append((self.epoch, batch))
            if batches[-1] == (1, spoilt_batch):
                self.model.set_weights([weights * np.nan for weights in self.model.get_weights()])

    fit = keras.Model.fit
    monkeypatch.setattr(
        keras.Model,
        "fit",
        lambda *args, callbacks, **kwargs: fit(
            *args, callbacks=[*callbacks, SpoilWeights()], **kwargs
        ),
    )
    settings = replace(SETTINGS, epochs=3)
    with pytest.raises(ValueError, match="got nan: the training diverged. Begin a new run with"):
        train(tiny_data, vocabulary, settings, tmp_path)
    assert batches[-1] == (1, spoilt_batch)
    record = json.loads((tmp_path / "member-1" / "training.json").read_text())
    assert len(record["history"]) == 1
    (epoch,) = (tmp_path / "member-1").glob("*.keras")
    assert epoch.name == "epoch-1.keras"
    assert all(np.isfinite(weights).all() for weights in keras.models.load_model(epoch).weights)


@pytest.mark.slow
def test_the_same_seed_trains_the_same_model(tiny_data, vocabulary, tmp_path):
    """To the last bit, in both stages."""
    settings = replace(SETTINGS, dropout=0.4, self_critical_epochs=1)
    models = [train(tiny_data, vocabulary, settings, tmp_path / name)[0] for name in "ab"]
    other, _ = train(tiny_data, vocabulary, replace(settings, seed=1), tmp_path / "c")
    assert_equal_weights(*models)
    assert max_difference(models[0].get_weights(), other.get_weights()) > 0.01


def test_a_finished_run_is_not_repeated(tiny_data, vocabulary, finished):
    folder, model, history = finished
    written = (folder / "caption_model.keras").stat().st_mtime_ns
    settings = replace(SETTINGS, fine_tuning_epochs=9, fine_tuned_blocks=2)  # not used here
    loaded, loaded_history = train(tiny_data, vocabulary, settings, folder)
    assert loaded_history == history
    assert (folder / "caption_model.keras").stat().st_mtime_ns == written
    assert_equal_weights(loaded, model)


def test_training_leaves_only_the_best_model_and_its_record(vocabulary, finished):
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


def test_a_record_that_lacks_a_newer_setting_belongs_to_the_run(
    tiny_data, vocabulary, finished, finished_folder
):
    record = json.loads((finished_folder / "training.json").read_text())
    del record["settings"]["members"]
    (finished_folder / "training.json").write_text(json.dumps(record))
    _, history = train(tiny_data, vocabulary, SETTINGS, finished_folder)
    assert history == finished[2]


@pytest.mark.parametrize("change", [{"units": 13}, {"seed": 5}])
def test_a_run_with_other_settings_is_not_resumed(tiny_data, vocabulary, finished, change):
    with pytest.raises(ValueError, match="another run: settings (units|seed) .* instead of "):
        train(tiny_data, vocabulary, replace(SETTINGS, **change), finished[0])


def test_a_run_with_other_words_is_not_resumed(tiny_data, vocabulary, finished):
    with pytest.raises(ValueError, match="that of another run: vocabulary"):
        train(tiny_data, Vocabulary(vocabulary.words[:3:-1]), SETTINGS, finished[0])


def test_training_stops_when_the_score_has_not_risen_for_some_epochs(
    tiny_data, vocabulary, tmp_path, monkeypatch
):
    scores = iter([0.3, 0.5, 0.4, 0.45, 0.2, 0.9])
    monkeypatch.setattr(
        "captioning.training.validation.Validator.score", lambda *_: {MONITOR: next(scores)}
    )
    settings = replace(SETTINGS, epochs=6, patience=2)
    _, history = train(tiny_data, vocabulary, settings, tmp_path)
    assert [epoch[MONITOR] for epoch in history] == [0.3, 0.5, 0.4, 0.45]


def test_the_weights_of_the_best_epoch_are_returned(tiny_data, vocabulary, tmp_path, monkeypatch):
    scores = iter([0.9, 0.1])
    after_each_epoch = []

    def score(_, model):
        after_each_epoch.append(model.get_weights())
        return {MONITOR: next(scores)}

    monkeypatch.setattr("captioning.training.validation.Validator.score", score)
    best, _ = train(tiny_data, vocabulary, replace(SETTINGS, epochs=2), tmp_path)
    first, last = after_each_epoch
    assert max_difference(best.get_weights(), first) == 0
    assert max_difference(first, last) > 1e-3


@pytest.mark.slow
def test_the_merge_model_learns_from_pooled_features(tiny_data, vocabulary, tmp_path):
    settings = replace(SETTINGS, decoder="merge")
    vectors = {name: maps.mean(axis=0) for name, maps in tiny_data.features.items()}
    pooled_data = replace(tiny_data, features=vectors)
    model, _ = train(pooled_data, vocabulary, settings, tmp_path / "vectors")
    expected, _ = train(tiny_data, vocabulary, settings, tmp_path / "maps")
    assert_equal_weights(model, expected, 1e-5)


def test_pooled_features_are_refused_for_the_attention_model(tiny_data, vocabulary, tmp_path):
    vectors = {name: maps.mean(axis=0) for name, maps in tiny_data.features.items()}
    settings = replace(SETTINGS, decoder="attention")
    with pytest.raises(ValueError, match='Expected feature maps .* "attention", got pooled'):
        train(replace(tiny_data, features=vectors), vocabulary, settings, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["merge", "attention"])
def test_a_model_overfits_two_kinds_of_images(tmp_path, decoder):
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
    assert history[find_best_epoch(history)]["development BLEU-4"] == pytest.approx(1.0)
