"""Captions photographs, without Keras.

Takes images (paths, bytes, Pillow images, arrays) and the exported networks in `models/`; returns
captions with log-probabilities, features and attention maps. Start reading with `captioner`. Never
imports `captioning.models`, Keras or TensorFlow, nor any folder above this one.
"""
