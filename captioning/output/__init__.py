"""Writes files for readers: caption files, image copies with descriptions, pages and figures.

The inputs are captions, attention maps, scores and training records. Pages and figures need Jinja2
and matplotlib (the extra `plots`), `image_metadata` needs pyexiv2 (the extra `metadata`); import
them only where they are used. Parses no command line and never imports `captioning.app`.
"""
