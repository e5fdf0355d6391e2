"""The second stage of training: the model's own captions in, rewarded by how people agree.

Self-critical sequence training (Rennie et al., 2017): of each image the model says several
captions; those that score above their mean are made more likely, the others less. A caption and its
advantage are a target and a weight, so the loss is that of teacher forcing. What is kept is the
moving average of the weights over about an epoch: rewards of few captions pull to and fro.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import keras
import numpy as np
from tqdm import tqdm

from captioning.data.vocabulary import END, PADDING, START, Vocabulary
from captioning.export.keras_to_openvino import to_decoder
from captioning.inference.beam_search import Hypothesis
from captioning.inference.networks import Decoder
from captioning.inference.openvino_runtime import training_precision
from captioning.models.caption_model import build_caption_model
from captioning.settings import SearchSettings, TrainingSettings
from captioning.training.batches import AugmentedData, pad
from captioning.training.checkpoints import Run
from captioning.training.losses import SmoothedCrossentropy
from captioning.training.rewards import Reward
from captioning.training.training_data import TrainingData
from captioning.training.validation import Validator

STAGE = "self-critical"


def learn(run: Run, data: TrainingData, vocabulary: Vocabulary, settings: TrainingSettings) -> None:
    """Runs the epochs of this stage that are left, from the best model of the stage before."""
    if run.epochs_done(STAGE):
        model = run.last_model()
        _swap_averages(model)
    else:
        model = build_caption_model(
            len(vocabulary),
            data.feature_width,
            replace(settings, dropout=0.0),
            training_precision(),
        )
        model.set_weights(run.best_model().get_weights())
        model.compile(
            keras.optimizers.Adam(
                settings.self_critical_learning_rate,
                clipnorm=settings.clip_norm,
                use_ema=True,
                ema_momentum=settings.self_critical_momentum,
            ),
            SmoothedCrossentropy(),
            jit_compile=False,
        )
    decoder = to_decoder(model, vocabulary, data.longest_caption)
    batches = SelfCriticalBatches(
        data.encoded_views(vocabulary),
        decoder,
        settings.batch_size,
        settings.samples,
        settings.bleu_weight,
        settings.self_critical_dropout,
        settings.seed,
    )
    scores = Validator(data, vocabulary, settings)
    while run.stage == STAGE:
        rewards = []
        epoch = run.epochs_done(STAGE)
        for *batch, reward in tqdm(batches.of_epoch(epoch), total=len(batches), unit="batch"):
            model.train_on_batch(*batch)
            rewards.append(reward)
        _swap_averages(model)
        numbers = {"reward": float(np.mean(rewards)), **scores.of(model)}
        print(f"{STAGE} epoch {epoch + 1}:", numbers)
        run.add_epoch(model, numbers)
        _swap_averages(model)


def _swap_averages(model: keras.Model) -> None:
    """Exchanges the weights and their moving averages, which the optimizer holds and a saved model
    contains."""
    swap = keras.callbacks.SwapEMAWeights()
    swap.set_model(model)
    swap.on_test_begin()


class SelfCriticalBatches:
    """Batches of what a decoder says of some images, and how much better than usual that is.

    They are made as they are asked for, with the decoder as it then is. The order of the images
    depends on `seed` and `epoch` only.
    """

    def __init__(
        self,
        views: AugmentedData,
        decoder: Decoder,
        batch_size: int,
        samples: int,
        bleu_weight: float,
        dropout: float,
        seed: int,
    ):
        """`views` as for `CaptionBatches`; `samples` is the number of captions an image, which
        are the best of a beam as wide: enough alike to be good, different enough to compare;
        `bleu_weight` that of BLEU-4 in what they are worth.
        `dropout` is the share of the features that is hidden of a whole image, from the decoder
        that says the captions and from the model that learns from them: the first stage has learnt
        the training images by heart, and what is said of them unhidden teaches little."""
        self._views = views
        self._decoder = decoder
        self._batch_size = batch_size
        self._search = SearchSettings(beam_width=samples)
        self._dropout = dropout
        self._seed = seed
        # The end counts as a word, or captions would learn to break off after "in a".
        self._rewards = [
            Reward({name: [ids[1:] for ids in of] for name, of in captions.items()}, bleu_weight)
            for captions, _ in views
        ]

    def __len__(self) -> int:
        return -(-len(self._views[0][0]) // self._batch_size)

    def of_epoch(self, epoch: int) -> Iterator[tuple[dict, np.ndarray, np.ndarray, float]]:
        """Yields inputs, targets and weights in the form of `CaptionBatches`, and the mean reward,
        for each batch of the epoch."""
        random = np.random.default_rng([self._seed, epoch])
        image_names = random.permutation(list(self._views[0][0]))
        for first in range(0, len(image_names), self._batch_size):
            chosen = image_names[first : first + self._batch_size]
            views = random.integers(len(self._views), size=len(chosen))
            features = np.stack(
                [self._views[view][1][name] for name, view in zip(chosen, views, strict=True)],
                dtype="float32",
            )
            features *= _kept(features.shape, self._dropout, random)
            said = [
                [_ids(hypothesis) for hypothesis in of]
                for of in self._decoder.search(features, self._search)
            ]
            rewards = [
                [self._rewards[view](name, ids[1:]) for ids in of]
                for name, view, of in zip(chosen, views, said, strict=True)
            ]
            words, targets = pad(said, max(map(len, said)))
            weights = advantages(rewards)[..., None] * (targets != PADDING)
            weights /= (targets != PADDING).sum()
            mean_reward = float(np.mean([reward for of in rewards for reward in of]))
            yield {"features": features, "words": words}, targets, weights, mean_reward


def advantages(rewards: Sequence[Sequence[float]]) -> np.ndarray:
    """Rewards of the captions of each image -> how far each is above the image's mean, (images,
    captions) float32, 0 where an image has fewer captions than others."""
    above = np.zeros((len(rewards), max(map(len, rewards))), "float32")
    for row, of_image in zip(above, rewards, strict=True):
        row[: len(of_image)] = np.array(of_image) - np.mean(of_image)
    return above


def _kept(shape: tuple[int, int, int], dropout: float, random: np.random.Generator) -> np.ndarray:
    """What features (images, cells, width) are multiplied by: 0 for a share `dropout` of each
    image's features, the same in all its cells, and for the others what keeps their sum."""
    images, _, width = shape
    kept = random.random((images, 1, width), dtype="float32") >= dropout
    return kept / np.float32(1 - dropout)


def _ids(hypothesis: Hypothesis) -> list[int]:
    return [START, *hypothesis.ids, *([END] if hypothesis.finished else [])]
