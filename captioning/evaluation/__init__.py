"""From captions to scores.

In: captions and reference captions, by image name; or a decoder, or a captioner, that makes the
captions first. Out: BLEU, METEOR, ROUGE-L and CIDEr as the coco-caption tools compute them, and
lists of confused words. Never imports `captioning.models`, Keras or TensorFlow, nor a folder above
`inference`.
"""
