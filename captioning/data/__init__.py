"""Data sets: reads captions in any common format and photographs in any format, checks them, and
divides them into training, development and test split.

In: the archives of Flickr8k or your own captions and photographs. Out: `dataset.json` and
`descriptions.txt`, images as arrays, word ids, and the feature store that later folders fill.

Never imports Keras, TensorFlow or OpenVINO, nor any other folder of this package.
"""
