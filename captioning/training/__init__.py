"""Trains caption models from captions and features, and fine-tunes image encoders.

These modules take cleaned captions and features (`training_data`), and write `caption_model.keras`,
its record `training.json`, the exported decoder and the vocabulary. Start with `train`. They never
import `output` or `app`, and captioning never imports them.
"""
