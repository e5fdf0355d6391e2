"""Runs one step of the pipeline: `python -m captioning --help`."""

import sys

from captioning.app.cli import main

sys.exit(main())
