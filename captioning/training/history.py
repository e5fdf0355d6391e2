"""The history of a training run: a dict for each epoch in, which of them counts out.

Not about how a run is kept on disk: see `captioning.training.checkpoints`.
"""

from collections.abc import Mapping, Sequence
from math import inf

STAGE_KEY = "stage"  # of an epoch: the name of the stage that it belongs to
MEMBER_KEY = "member"  # of those whose mean is taken or who teach, counted from 1
MONITOR = "development CIDEr"  # the number that decides
ENSEMBLE_STAGE = "ensemble"  # of the one entry that is no epoch, but scores the members' mean


def best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """The epoch that is kept, counted from 0: the first with the highest development CIDEr, or of
    several such (of a single image, CIDEr is always 0) the one with the lowest loss."""
    return max(
        range(len(history)),
        key=lambda epoch: (history[epoch][MONITOR], -history[epoch].get("val_loss", inf)),
    )


def course_of_last(history: Sequence[Mapping]) -> list[Mapping]:
    """Of a history, the epochs of the model that was trained last: the student, the single model,
    or the last member of an ensemble."""
    epochs = [epoch for epoch in history if epoch[STAGE_KEY] != ENSEMBLE_STAGE]
    last = epochs[-1].get(MEMBER_KEY)
    return [epoch for epoch in epochs if epoch.get(MEMBER_KEY) == last]
