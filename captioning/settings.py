"""What somebody chose for training and search, once, with its reason; and every file name, on one
root.

Numbers that follow from the data (vocabulary size, longest caption, feature width) are not here:
they are counted, or read back from what was saved.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import ceil, inf

DEFAULT_ENCODER = "Xception"  # few networks of its size see better, and it looks at 299 pixels
SPLITS = ("train", "development", "test")
DECODERS = ("attention", "merge")  # the stronger, and the classic; see `captioning.models.decoders`
WIDEST_BEAM = 100  # wider ones cost much and bring nothing


@dataclass(frozen=True)
class SearchSettings:
    """How captions are searched for."""

    beam_width: int = 3  # the width at which the merge paper reports; 1 is greedy search
    length_normalisation: float = 0.7  # 0 favours short captions, 1 compares means a word

    def __post_init__(self):
        _require(
            self,
            ["beam_width"],
            f"from 1 to {WIDEST_BEAM}",
            lambda value: 1 <= value <= WIDEST_BEAM,
        )
        _require(self, ["length_normalisation"], "from 0 to 1", lambda value: 0 <= value <= 1)


# What can be trained with: see `TrainingSettings`.
_COUNTS = (
    "embedding_units",
    "units",
    "heads",
    "batch_size",
    "epochs",
    "patience",
    "fine_tuning_epochs",
    "members",
    "student_epochs",
)
_SHARES = (
    "dropout",
    "label_smoothing",
    "self_critical_dropout",
    "self_critical_momentum",
    "student_dropout",
)
_RATES = (
    "learning_rate",
    "clip_norm",
    "self_critical_learning_rate",
    "fine_tuning_learning_rate",
)
_NOT_NEGATIVE = ("weight_decay", "bleu_weight", "self_critical_epochs", "seed")


@dataclass(frozen=True)
class TrainingSettings:
    """What a training run is made of."""

    min_word_count: int = 5  # rarer words are learnt too badly to be said; 5 is the field's habit
    decoder: str = "attention"  # one of DECODERS
    embedding_units: int = 512  # and as many units before the words
    units: int = 512  # LSTM state and image projection: addition wants them equal
    heads: int = 8  # of the attention
    dropout: float = 0.4  # 6,000 images are few
    label_smoothing: float = 0.1  # five people say five things of one image: no word is certain
    batch_size: int = 32  # images, each with its captions
    epochs: int = 10  # the length of the cosine, the best are the last few; 12 were no better
    learning_rate: float = 1.5e-3  # peak of the cosine schedule
    warmup_epochs: float = 0.5  # to the peak: Adam's first steps are blind
    weight_decay: float = 1e-2  # AdamW's habit
    clip_norm: float = 5.0  # of one weight's gradient; LSTMs have rare steep ones
    patience: int = 6  # epochs without a better development CIDEr before a stage stops
    self_critical_epochs: int = 4  # of the second stage: more bring nothing
    self_critical_learning_rate: float = 2e-5  # rewards of few captions pull to and fro
    self_critical_dropout: float = 0.4  # share of the features hidden in the second stage
    self_critical_momentum: float = 0.995  # of the averaged weights: about the last 200 batches
    samples: int = 5  # captions an image in the second stage
    bleu_weight: float = 2.0  # of BLEU-4 in what they are worth: a point of it, for no CIDEr
    fine_tuning_epochs: int = 4  # of the encoder's last blocks, with a caption model behind them
    fine_tuning_learning_rate: float = 2e-4  # peak: they have learnt before
    members: int = 2  # models trained one after the other, whose mean is taken; a third adds little
    student: bool = True  # whether they teach one more, which takes their place: as fast as one
    student_epochs: int = 16  # it goes on getting better where they know the images by heart
    student_dropout: float = 0.3  # so it may be hindered less, and keeps more words
    seed: int = 0

    def __post_init__(self):
        _require(self, _COUNTS, "of 1 or more", lambda value: value >= 1)
        _require(self, _SHARES, "from 0 to less than 1", lambda value: 0 <= value < 1)
        _require(self, _RATES, "above 0", lambda value: 0 < value < inf)  # nor is it true of nan
        _require(self, _NOT_NEGATIVE, "of 0 or more", lambda value: 0 <= value < inf)
        _require(self, ["decoder"], " or ".join(DECODERS), lambda value: value in DECODERS)
        _require(
            self,
            ["samples"],
            f"from 2, to be compared, to {WIDEST_BEAM}",
            lambda value: 2 <= value <= WIDEST_BEAM,
        )
        _require(
            self,
            ["heads"],
            f"of no more than the {self.units} units that they share",
            lambda heads: self.decoder != "attention" or heads <= self.units,
        )
        shortest = min(self.epochs, self.student_epochs, self.fine_tuning_epochs)
        _require(
            self,
            ["warmup_epochs"],
            f"from 0 to less than {shortest}, the fewest epochs of a stage",
            lambda value: 0 <= value < shortest,
        )

    def for_student(self) -> "TrainingSettings":
        """The student's: its own epochs and dropout in the place of its teachers'."""
        return replace(self, epochs=self.student_epochs, dropout=self.student_dropout)

    @property
    def uses_pooled_features(self) -> bool:
        """Whether the average of a feature map is all that the decoder sees of it: an image then
        costs next to nothing, and is looked at anew for each of its captions."""
        return self.decoder == "merge"

    @classmethod
    def for_data(cls, images: int, captions: int) -> "TrainingSettings":
        """The defaults, with what fewer training images than Flickr8k's 6,000 want: 32 batches an
        epoch, or as many as batches of four make, 640 in all or more, and rarer words."""
        batch_size = min(cls.batch_size, max(4, images // 32))
        epochs = max(cls.epochs, ceil(640 / ceil(images / batch_size)))
        return cls(
            min_word_count=min(cls.min_word_count, 1 + captions // 2000),
            batch_size=batch_size,
            epochs=epochs,
            student_epochs=max(cls.student_epochs, epochs),
            patience=max(cls.patience, epochs // 2),
        )


@dataclass(frozen=True)
class SplitSettings:
    """Which share of the images is held back where a caption file names no such split."""

    development: float = 0.1  # Flickr8k's eighths are dear where images are few
    test: float = 0.1


def _require(
    settings: object, names: Iterable[str], wanted: str, holds: Callable[[float | str], bool]
) -> None:
    """Raises ValueError for the first of the named settings that is not as wanted."""
    for name in names:
        value = getattr(settings, name)
        if not holds(value):
            raise ValueError(f"Wanted: {name} {wanted}. Received: {value}.")
