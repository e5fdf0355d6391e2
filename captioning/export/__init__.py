"""Exports Keras models to the OpenVINO networks that captioning runs, and quantises them to 8 bits.

These modules take caption models and image encoders of `captioning.models`, and write `encoder`,
`decoder_prefill` and `decoder_step`, each as .xml and .bin. They never import `training`, `output`
or `app`.
"""
