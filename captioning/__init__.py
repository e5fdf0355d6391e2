"""Photographs in, captions out: a CNN-LSTM for Flickr8k and all that it takes to train it."""
