"""Captions photographs: `python Testing_caption_generator.py -i image.jpg`."""

import sys

from captioning.app.caption_command import run

if __name__ == "__main__":
    sys.exit(run())
