"""The tutorial at work, in forms that can be timed in a process of its own: see `worker_process`.

Keras comes with it only when there is work to do.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from benchmarks.timing import Work
from benchmarks.world import World, made_world


def build_encoding(paths: list[Path], batch_size: int) -> Work:
    """Sees these images, one by one by `predict`, or in batches.

    A batch is predicted by `predict_on_batch`: `predict` at times waits for TensorFlow's autotuner
    of input pipelines, up to a minute at its end, which is little among thousands of images, and a
    third of a round."""
    import numpy as np

    from benchmarks import tutorial

    encoder = tutorial.build_encoder()

    def encode() -> int:
        for first in range(0, len(paths), batch_size):
            images = [tutorial.load_image(path) for path in paths[first : first + batch_size]]
            if batch_size == 1:
                encoder.predict(images[0], verbose=0)
            else:
                encoder.predict_on_batch(np.concatenate(images))
        return len(paths)

    return encode


def build_captioning(paths: list[Path]) -> Work:
    """Captions these images, with a model that was built once."""
    from benchmarks import tutorial

    vocabulary = made_world(images=1).vocabulary
    encoder = tutorial.build_encoder()
    model = tutorial.build_model(len(vocabulary), tutorial.MAX_LENGTH)

    def caption() -> int:
        for path in paths:
            (features,) = encoder.predict(tutorial.load_image(path), verbose=0)
            tutorial.say(model, features, tutorial.MAX_LENGTH, tutorial.WORDS_A_CAPTION)
        return len(paths)

    return caption


def build_training(world: World, images: int) -> Work:
    """Trains on so many images, one a step, begun after as many that make the graph."""
    from benchmarks import tutorial

    max_length = max(len(ids) for of_image in world.captions.values() for ids in of_image)
    width = len(next(iter(world.features.values())))
    model = tutorial.build_model(len(world.vocabulary), max_length, feature_width=width)
    batches = _without_autotuner(
        tutorial.batches(world.captions, world.features, max_length, len(world.vocabulary))
    )

    def train() -> int:
        model.fit(batches, steps_per_epoch=images, verbose=0)
        return images

    train()
    return train


def _without_autotuner(batches: Iterator[tuple]):
    """Of a generator, the `tf.data.Dataset` that Keras makes of it for `fit`, but for TensorFlow's
    autotuner of input pipelines. It is waited for at the end, up to a minute, which is little in an
    epoch of the tutorial's, and most of a round of a few images."""
    import keras
    import tensorflow as tf

    first = next(batches)
    signature = keras.tree.map_structure(
        lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), first
    )
    batches = chain([first], batches)
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_generator(lambda: batches, output_signature=signature)
    return dataset.prefetch(1).with_options(options)  # one is drawn while another is learnt from
