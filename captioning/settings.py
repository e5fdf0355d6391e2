"""The settings of search and training: each once, with its default, its check and the reason for
its default.

Numbers that follow from the data (vocabulary size, longest caption, feature width) are not
settings: they are counted, or read from the saved files.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from math import ceil, inf
from numbers import Integral, Real
from typing import Any

from captioning.errors import UserError

SPLITS = ("train", "development", "test")
DEFAULT_ENCODER = "Xception"  # few networks of its size are more accurate; it takes 299x299 pixels
DECODERS = ("attention", "merge")  # the more accurate one, and the classic: `captioning.models`
# Decoding -> its usual settings. beam: the most probable caption. consensus: a guided search, and
# of its captions the one that agrees best with the others. Guidance favours short captions, so its
# length normalisation is higher. Wider beams are not worth their time.
USUAL_SEARCHES = {
    "beam": {"beam_width": 3, "length_normalisation": 0.7},
    "consensus": {"beam_width": 12, "length_normalisation": 0.9},
}
UNSURE_BELOW = 0.5  # confidence: such captions are more often wrong than not
DEMO_PORT = 7860  # Gradio's default
WIDEST_BEAM = 100  # wider beams are slow and find nothing better


@dataclass(frozen=True)
class Check:
    """The values that a setting may have, in words and as a test."""

    expected: str
    is_valid: Callable[[Any], bool]


def setting(default: Any, check: Check) -> Any:
    """A field of a dataclass whose values `require_valid` checks."""
    return field(default=default, metadata={"check": check})


def at_least(least: float) -> Check:
    return Check(f"of {least} or more", lambda value: value >= least)


def above(limit: float) -> Check:
    return Check(f"above {limit}", lambda value: value > limit)


def between(least: float, most: float) -> Check:
    return Check(f"from {least} to {most}", lambda value: least <= value <= most)


def one_of(*choices: str) -> Check:
    return Check(f"({' or '.join(choices)})", lambda value: value in choices)


A_SHARE = Check("from 0 to less than 1", lambda value: 0 <= value < 1)
ANY = Check("", lambda value: True)


@dataclass(frozen=True)
class SearchSettings:
    """How captions are searched and how the best one is chosen: see
    `captioning.inference.decoding`. None stands for the usual number of that `decoding`."""

    beam_width: int = setting(None, between(1, WIDEST_BEAM))  # 1 is greedy
    length_normalisation: float = setting(None, between(0, 1))  # 0 favours short captions
    decoding: str = setting("consensus", one_of(*USUAL_SEARCHES))

    def __post_init__(self):
        usual = USUAL_SEARCHES.get(str(self.decoding), USUAL_SEARCHES["consensus"])
        for name, number in usual.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, number)
        require_valid(self)


@dataclass(frozen=True)
class TrainingSettings:
    """A training run: trains members with cross-entropy, distils a student from their ensemble, and
    continues the student with self-critical training (Rennie et al., 2017). Without a student, each
    member continues with it."""

    # The vocabulary: models learn rarer words too poorly to use them; 5 is usual in the field.
    min_word_count: int = setting(5, at_least(1))

    # The caption model.
    decoder: str = setting("attention", one_of(*DECODERS))
    embedding_units: int = setting(512, at_least(1))  # of the word embedding
    units: int = setting(512, at_least(1))  # of the LSTM and the image projection, which are added
    heads: int = setting(8, at_least(1))  # of the attention, which share the units
    dropout: float = setting(0.4, A_SHARE)  # high, because 6,000 images are few

    # Training with cross-entropy.
    batch_size: int = setting(32, at_least(1))  # images, each with all its captions
    epochs: int = setting(10, at_least(1))  # the length of the cosine schedule; 12 were no better
    learning_rate: float = setting(1.5e-3, above(0))  # the peak of the cosine schedule
    warmup_epochs: float = setting(0.5, at_least(0))  # to the peak: Adam's first steps are noisy
    weight_decay: float = setting(1e-2, at_least(0))  # usual for AdamW
    clip_norm: float = setting(5.0, above(0))  # of each weight's gradient: LSTMs have rare peaks
    label_smoothing: float = setting(0.1, A_SHARE)  # five reference captions rarely agree on a word
    patience: int = setting(6, at_least(1))  # epochs without a better development CIDEr

    # Self-critical training.
    self_critical_epochs: int = setting(4, at_least(0))  # more did not help
    self_critical_learning_rate: float = setting(2e-5, above(0))  # rewards are noisy
    self_critical_dropout: float = setting(0.4, A_SHARE)  # of the image features
    self_critical_momentum: float = setting(0.995, A_SHARE)  # averages the last 200 batches or so
    samples: int = setting(5, between(2, WIDEST_BEAM))  # captions per image, compared to each other
    bleu_weight: float = setting(2.0, at_least(0))  # of BLEU-4 in the reward, beside CIDEr's 1
    support_weight: float = setting(0.5, at_least(0))  # of a content word; English only: `Support`

    # Fine-tuning the last blocks of the image encoder.
    fine_tuned_blocks: int = setting(3, at_least(1))  # residual ones: 11 to 13 of Xception, and 14
    fine_tuning_epochs: int = setting(6, at_least(1))
    fine_tuning_learning_rate: float = setting(3e-4, above(0))  # low: the weights are pretrained
    fine_tuning_soft_target_share: float = setting(1.0, between(0, 1))  # words among them overfit

    # Ensemble and distillation.
    members: int = setting(2, at_least(1))  # models in the ensemble; a third adds little
    student: bool = setting(True, ANY)  # whether to distil them into one model, as fast as one
    student_epochs: int = setting(16, at_least(1))  # soft targets overfit later than captions
    student_dropout: float = setting(0.3, A_SHARE)  # lower, for the same reason
    soft_target_share: float = setting(1.0, between(0, 1))  # the rest: the words of the captions

    seed: int = setting(0, at_least(0))

    def __post_init__(self):
        require_valid(self)
        if self.decoder == "attention" and self.heads > self.units:
            raise UserError(f"Expected heads to be at most units, {self.units}, got {self.heads}.")
        shortest = min(self.epochs, self.student_epochs, self.fine_tuning_epochs)
        if self.warmup_epochs >= shortest:
            raise UserError(
                f"Expected warmup_epochs to be less than {shortest}, the fewest epochs of a stage, "
                f"got {self.warmup_epochs}."
            )

    @property
    def uses_pooled_features(self) -> bool:
        """Whether the decoder needs only the average over a feature map. An image then costs next
        to nothing, and is repeated for each of its captions."""
        return self.decoder == "merge"

    @classmethod
    def for_data(cls, images: int, captions: int) -> "TrainingSettings":
        """Returns the defaults, adapted to fewer training images and captions than Flickr8k has:
        smaller batches, of 4 images at least, so that an epoch has 32 batches; more epochs, so that
        a run has 640 batches; and rarer words."""
        batch_size = min(cls.batch_size, max(4, images // 32))
        epochs = max(cls.epochs, ceil(640 / ceil(images / batch_size)))
        return cls(
            min_word_count=min(cls.min_word_count, 1 + captions // 2000),
            batch_size=batch_size,
            epochs=epochs,
            student_epochs=max(cls.student_epochs, epochs),
            patience=max(cls.patience, epochs // 2),
        )


# The type of a field -> its name, and the types of its values.
_TYPES = {
    int: ("a whole number", Integral),
    float: ("a number", Real),
    bool: ("True or False", bool),
    str: ("a name", str),
}


def require_valid(settings: object) -> None:
    """Raises UserError, naming the setting, for the first value that has the wrong type or fails
    its check. NaN and infinity fail."""
    for attribute in fields(settings):
        value = getattr(settings, attribute.name)
        check = attribute.metadata["check"]
        type_name, types = _TYPES[attribute.type]
        has_type = isinstance(value, types) and isinstance(value, bool) == (types is bool)
        is_finite = not isinstance(value, Real) or abs(value) < inf
        if not (has_type and is_finite and check.is_valid(value)):
            expected = f"{type_name} {check.expected}".rstrip()
            raise UserError(f"Expected {attribute.name} to be {expected}, got {value!r}.")


# The most probable caption. It also scores models while they are trained and quantised: the
# confidence, which guides consensus decoding, is fitted only afterwards.
BEAM_SEARCH = SearchSettings(decoding="beam")
