"""The second stage of training: the model generates captions, and learns from their rewards.

In self-critical sequence training (Rennie et al., 2017), the model generates several captions of an
image. Captions with a reward above the mean of the image become more probable, the others less. A
caption is a target and its advantage a weight, so the loss is that of the first stage. The result
is a moving average of the weights over about an epoch, because the rewards of few captions are
noisy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import keras
import numpy as np
from tqdm import tqdm

from captioning.data.vocabulary import END, PADDING, START, Vocabulary
from captioning.export.keras_to_openvino import to_decoder
from captioning.inference.beam_search import Hypothesis
from captioning.inference.decoder import Decoder
from captioning.models.backend import uses_xla
from captioning.models.caption_model import rebuild_caption_model
from captioning.settings import SearchSettings, TrainingSettings
from captioning.training.batches import EncodedCaptions, Variant, pad, require_features
from captioning.training.checkpoints import Run
from captioning.training.cross_entropy import (
    SmoothedCrossentropy,
    require_finite_loss,
    require_finite_weights,
)
from captioning.training.device_batches import make_shaper
from captioning.training.devices import training_precision
from captioning.training.rewards import Reward, Support, number_stems
from captioning.training.training_data import TrainingData
from captioning.training.validation import Validator

STAGE = "self-critical"


def run_stage(
    run: Run,
    data: TrainingData,
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    start: keras.Model | None = None,
) -> None:
    """Runs the remaining epochs of this stage. The first begins with the caption model `start`, by
    default the best of the run so far. Raises UserError if training diverges."""
    if run.epochs_done(STAGE):
        model = run.load_last_model()
        _swap_averages(model)
    else:
        model = _without_dropout(start or run.load_best_model(), settings)
    batches = SelfCriticalBatches(
        data.encode(vocabulary), to_decoder(model, vocabulary, data.longest_caption), settings
    )
    require_features(data.development, data.features)  # before an epoch, not after it
    validator = Validator(data, vocabulary, settings)
    shape = make_shaper(settings.batch_size)
    while run.stage == STAGE:
        rewards = []
        epoch = run.epochs_done(STAGE)
        for *batch, reward in tqdm(batches.draw_epoch(epoch), total=len(batches), unit="batch"):
            loss = model.train_on_batch(*shape(batch))
            require_finite_loss(float(loss), settings.self_critical_learning_rate)
            rewards.append(reward)
        require_finite_weights(model, settings.self_critical_learning_rate)
        _swap_averages(model)
        numbers = {"reward": float(np.mean(rewards)), **validator.score(model)}
        print(f"{STAGE} epoch {epoch + 1}:", numbers)
        run.add_epoch(model, numbers)
        _swap_averages(model)


def _without_dropout(trained: keras.Model, settings: TrainingSettings) -> keras.Model:
    """Builds the trained model without dropout, and compiles it with an optimizer that averages the
    weights."""
    model = rebuild_caption_model(trained, replace(settings, dropout=0.0), training_precision())
    optimizer = keras.optimizers.Adam(
        settings.self_critical_learning_rate,
        clipnorm=settings.clip_norm,
        use_ema=True,
        ema_momentum=settings.self_critical_momentum,
    )
    model.compile(optimizer, SmoothedCrossentropy(), jit_compile=uses_xla())
    return model


def _swap_averages(model: keras.Model) -> None:
    """Exchanges the weights and their moving averages. The optimizer holds the averages, also in a
    saved model."""
    swap = keras.callbacks.SwapEMAWeights()
    swap.set_model(model)
    swap.on_test_begin()


class SelfCriticalBatches:
    """Batches of captions that a decoder generates, weighted by their advantages.

    A batch is generated when it is drawn, with the current weights of the decoder. The order of the
    images depends only on the seed and the epoch.
    """

    def __init__(self, variants: Sequence[Variant], decoder: Decoder, settings: TrainingSettings):
        """`variants`: see `CaptionBatches`. Beam search of width `settings.samples` generates that
        many captions of an image: similar enough to be good, and different enough to compare.
        Raises UserError if an image has no features."""
        self._variants = variants
        self._decoder = decoder
        self._batch_size = settings.batch_size
        self._search = SearchSettings(settings.samples, decoding="beam")
        self._dropout = settings.self_critical_dropout
        self._seed = settings.seed
        stems, weight = number_stems(decoder.vocabulary), settings.support_weight
        rewards = {}  # by whether the images are flipped
        for variant in variants:
            require_features(variant.captions, variant.features)
            if variant.is_flipped not in rewards:
                support = Support(variant.captions, stems, weight) if weight else None
                captions = _without_start(variant.captions)
                rewards[variant.is_flipped] = Reward(captions, settings.bleu_weight, support)
        self._rewards = [rewards[variant.is_flipped] for variant in variants]

    def __len__(self) -> int:
        return -(-len(self._variants[0].captions) // self._batch_size)

    def draw_epoch(self, epoch: int) -> Iterator[tuple[dict, np.ndarray, np.ndarray, float]]:
        """Yields inputs, targets and weights of each batch of the epoch, in the form of
        `CaptionBatches`, and its mean reward."""
        random = np.random.default_rng([self._seed, epoch])
        image_names = random.permutation(list(self._variants[0].captions))
        for first in range(0, len(image_names), self._batch_size):
            yield self._draw_batch(image_names[first : first + self._batch_size], random)

    def _draw_batch(
        self, image_names: Sequence[str], random: np.random.Generator
    ) -> tuple[dict, np.ndarray, np.ndarray, float]:
        drawn = random.integers(len(self._variants), size=len(image_names))
        variants = [self._variants[number] for number in drawn]
        maps = [v.features[name] for v, name in zip(variants, image_names, strict=True)]
        features = np.stack(maps, dtype="float32")
        features *= _dropout_mask(features.shape, self._dropout, random)
        captions = [
            [_caption_ids(hypothesis) for hypothesis in hypotheses]
            for hypotheses in self._decoder.search(features, self._search)
        ]
        rewards = [
            self._rewards[n](name, [ids[1:] for ids in image_captions])
            for name, n, image_captions in zip(image_names, drawn, captions, strict=True)
        ]
        words, targets = pad(captions, max(map(len, captions)))
        is_word = targets != PADDING
        weights = np.repeat(compute_advantages(rewards), words.shape[2], axis=1)  # as targets
        weights *= is_word / is_word.sum()
        mean_reward = float(np.mean([reward for image in rewards for reward in image]))
        return {"features": features, "words": words}, targets, weights, mean_reward


def compute_advantages(rewards: Sequence[Sequence[float]]) -> np.ndarray:
    """Returns the difference between the reward of each caption and the mean of its image (images,
    captions) float32, and 0 where an image has fewer captions than others."""
    advantages = np.zeros((len(rewards), max(map(len, rewards))), "float32")
    for row, image_rewards in zip(advantages, rewards, strict=True):
        row[: len(image_rewards)] = np.array(image_rewards) - np.mean(image_rewards)
    return advantages


def _dropout_mask(
    shape: tuple[int, int, int], rate: float, random: np.random.Generator
) -> np.ndarray:
    """Returns factors for features (images, cells, feature_width) that drop a share `rate` of the
    features of an image, the same in all its cells. Both the search and the training step use them:
    the model overfits the training images, and captions from all features would teach it little."""
    images, _, feature_width = shape
    kept = random.random((images, 1, feature_width), dtype="float32") >= rate
    return kept / np.float32(1 - rate)


def _without_start(captions: EncodedCaptions) -> dict[str, Iterator[Sequence[int]]]:
    """The references of the reward. The end stays and counts as a word, or the model would learn to
    break off after "in a"."""
    return {
        image_name: (ids[1:] for ids in image_captions)
        for image_name, image_captions in captions.items()
    }


def _caption_ids(hypothesis: Hypothesis) -> list[int]:
    return [START, *hypothesis.ids, *([END] if hypothesis.finished else [])]
