"""Writes files for people: caption files, image copies with descriptions, pages and figures.

The inputs are captions, attention maps, scores and training records. Pages and figures need Jinja2
and matplotlib (the extra `plots`); `image_metadata` needs pyexiv2 (the extra `metadata`). Import
these modules only where you use them. They never import `captioning.app`.
"""
