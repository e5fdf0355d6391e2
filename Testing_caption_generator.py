"""Captions photographs: `python Testing_caption_generator.py -i image.jpg`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - an older Python may run this file
    sys.exit(f"Expected Python 3.11 or later, got {sys.version.split()[0]}. Install a later one.")

from captioning.app.caption_command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
