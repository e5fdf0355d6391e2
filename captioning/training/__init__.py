"""Training: captions and features become a trained Keras model; an encoder is fine-tuned.

In: cleaned captions and feature maps (`training_data`). Out: `caption_model.keras` with its record
`training.json`, the exported decoder and the vocabulary. Begin reading at `train`. Never imports
`output` or `app`; captioning never imports it.
"""
