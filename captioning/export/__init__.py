"""From Keras models to the OpenVINO networks that captioning runs.

In: caption models and image encoders of `captioning.models`, or exported networks to quantise. Out:
`encoder`, `decoder_prefill` and `decoder_step`, an .xml and a .bin file each. Never imports
`training`, `output` or `app`.
"""
