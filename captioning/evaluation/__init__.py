"""Scores captions against reference captions, and fits the confidence in a model's captions.

Takes captions and references by image name, or a decoder or captioner to generate the captions
first. Computes BLEU, METEOR, ROUGE-L and CIDEr as the coco-caption tools do, and lists confused
words. Never imports `captioning.models`, Keras or TensorFlow, nor a folder above `inference`.
"""
