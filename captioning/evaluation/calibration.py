"""Fits the two regressions of the confidence in captions (`captioning.inference.confidence`)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from captioning.data.dataset import Dataset, select
from captioning.data.feature_store import load_pooled_features
from captioning.data.vocabulary import Vocabulary
from captioning.errors import UserError
from captioning.evaluation.evaluate import caption_photographs, texts_of
from captioning.evaluation.metrics import find_content_words, find_stems, find_supported
from captioning.inference.captioner import Captioner
from captioning.inference.confidence import NO_CONTENT, Confidence, regression_inputs
from captioning.inference.decoding import Caption
from captioning.paths import Paths

MIN_SHARE = 0.005  # of the training images: rarer words are not learnt

# Predicted for every rare word, a square root of a share. Chosen on Flickr8k's development split:
# docs/findings.md.
_RARE_MENTIONS = 0.1
_SHRINKAGE = 1.0  # of the regression of words, times the mean variance of its inputs


def calibrate_confidence(paths: Paths) -> int:
    """Fits the confidence of the model in `paths.root` on its captions of the development split, by
    guided consensus decoding, and writes it to `paths.models`. Returns the number of these
    captions. Raises UserError if an image has no pooled features.

    Leaves out a tenth of the images, those that `tools/judge_captions.py` shows to readers first,
    so that their verdicts can check the confidence.
    """
    dataset, captioner = Dataset.load(paths.dataset), Captioner.load(paths.root)
    development = np.random.default_rng(0).permutation(dataset.splits["development"]).tolist()
    references = select(dataset.captions, development[len(development) // 10 :])
    train = dataset.captions_of("train")
    features = load_pooled_features(paths)
    if missing := [name for name in (*train, *references) if name not in features]:
        raise UserError(
            f"Expected pooled features of all images in {paths.root}, got none of "
            f"{len(missing):,}, such as {missing[0]}. Run `captioning features --pooled`."
        )
    features = {name: np.ravel(features[name]) for name in (*train, *references)}
    decoder = captioner.decoder
    decoder.confidence = fit_words(decoder.fingerprint, decoder.vocabulary, features, train)
    captions = caption_photographs(captioner, dataset.images, references)  # found with its help
    confidence = fit_logistic_regression(
        decoder.confidence, decoder.vocabulary, features, captions, references
    )
    confidence.save(paths.models)
    return len(references)


def fit_words(
    fingerprint: str,
    vocabulary: Vocabulary,
    features: Mapping[str, np.ndarray],
    train: Mapping[str, Sequence[str]],
) -> Confidence:
    """Fits a ridge regression for each frequent content word, on the pooled `features` (image name
    -> (feature_width,)) and the reference captions `train` of the training images. The last row is
    for all rare words; their prediction is the same for every image. The logistic regression has
    yet to be fitted: its coefficients are 0. `fingerprint`: that of the decoder."""
    mentions = [  # for each image: word -> number of its references
        Counter(word for reference in references for word in set(find_content_words(reference)))
        for references in train.values()
    ]
    image_counts = Counter(word for words in mentions for word in words)
    frequent = sorted(
        word for word, count in image_counts.items() if count >= MIN_SHARE * len(train)
    )
    shares = np.array(
        [
            [words[word] / len(references) for word in frequent]
            for words, references in zip(mentions, train.values(), strict=True)
        ]
    )
    targets = np.sqrt(shares)  # (images, words)
    inputs = regression_inputs(np.stack([features[name] for name in train]).astype("float32"))
    mean, mean_target = inputs.mean(axis=0), targets.mean(axis=0)
    inputs -= mean
    covariance = inputs.T @ inputs / len(inputs)
    shrinkage = max(_SHRINKAGE * np.trace(covariance) / len(covariance), 1e-6)
    weights = np.linalg.solve(
        covariance + shrinkage * np.eye(len(covariance)),
        inputs.T @ (targets - mean_target) / len(inputs),
    ).T  # (words, feature_width)
    biases = mean_target - weights @ mean
    rows = {None: NO_CONTENT} | {word: row for row, word in enumerate(frequent)}
    word_rows = [rows.get(stem, len(frequent)) for stem in find_stems(vocabulary)]
    return Confidence(
        fingerprint,
        coefficients=np.zeros(3),
        word_rows=np.array(word_rows, np.int32),
        weights=np.vstack([weights, np.zeros((1, len(mean)))]).astype("float32"),
        biases=np.append(biases, _RARE_MENTIONS).astype("float32"),
    )


def fit_logistic_regression(
    confidence: Confidence,
    vocabulary: Vocabulary,
    features: Mapping[str, np.ndarray],
    captions: Mapping[str, Caption],
    references: Mapping[str, Sequence[str]],
) -> Confidence:
    """Returns the confidence of `fit_words` with a logistic regression that is fitted on the
    `captions` (image name -> caption) of images that did not take part in `fit_words`, their
    `references` and their pooled `features` (feature_width,)."""
    signals = np.array(
        [
            confidence.signals(
                vocabulary.encode(caption.text)[1:-1], caption.log_prob, features[name]
            )
            for name, caption in captions.items()
        ]
    )
    coefficients = _fit_logistic(signals, find_supported(texts_of(captions), references))
    return replace(confidence, coefficients=coefficients)


def _fit_logistic(signals: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the coefficients (signals,) of a logistic regression of `targets` (captions,) bool on
    `signals` (captions, signals). The smooth targets of Platt ("Probabilistic outputs for support
    vector machines", 1999) keep them finite where the signals separate the targets."""
    from scipy.optimize import minimize
    from scipy.special import expit

    positives, negatives = targets.sum(), (~targets).sum()
    smooth = np.where(targets, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss_and_gradient(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        logits = signals @ coefficients
        gradient = signals.T @ (expit(logits) - smooth)
        return (np.logaddexp(0, logits) - smooth * logits).sum(), gradient

    return minimize(loss_and_gradient, np.zeros(signals.shape[1]), jac=True).x
