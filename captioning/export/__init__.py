"""Exports Keras models to the OpenVINO networks that captioning runs, and quantises them to 8 bits.

Reads caption models and image encoders of `captioning.models`; writes `encoder`, `decoder_prefill`
and `decoder_step`, each as .xml and .bin. Never imports `training`, `output` or `app`.
"""
