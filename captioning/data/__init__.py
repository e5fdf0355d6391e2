"""Data sets: reads captions in common formats and photographs, checks them, and splits them into
training, development and test.

Reads the Flickr8k archives or your own captions and photographs; writes `dataset.json` and
`descriptions.txt`, and provides image arrays, word ids and the feature store. Never imports Keras,
TensorFlow or OpenVINO, nor any other folder of this package.
"""
