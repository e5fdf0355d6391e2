"""From photographs to captions, without Keras.

In: images (paths, bytes, Pillow images, arrays) and the exported networks of `models/`. Out:
captions with their log-probabilities, features on disk, attention maps. Read `captioner` first.
Never imports `captioning.models`, Keras or TensorFlow, nor any folder above `models` and `data`.
"""
