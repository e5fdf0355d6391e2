"""Trains caption models from captions and features, and fine-tunes image encoders.

Reads cleaned captions and features (`training_data`); writes `caption_model.keras`, its record
`training.json`, the exported decoder and the vocabulary. Start with `train`. Never imports
`output` or `app`; captioning never imports it.
"""
