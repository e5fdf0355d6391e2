"""The options of the steps that caption at scale, `manifest` and `at-scale`."""

import argparse


def parse_count(text: str) -> int:
    """Raises ArgumentTypeError unless the text is a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text}")
    return int(text)


def add_manifest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="FOLDER",
        help="folders (recursively), files, patterns, or folders in object storage, such as "
        "s3://bucket/photos",
    )
    parser.add_argument("manifest", metavar="MANIFEST", help="the Parquet file or URI to write")
    parser.add_argument(
        "--contents",
        action="store_true",
        help="also copy the images into the manifest, which is faster to read than many small "
        "files in object storage",
    )


def add_at_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--manifest",
        required=True,
        metavar="MANIFEST",
        help="the images: a Parquet file, a folder of them, or a URI, with the columns id and path "
        "or bytes, such as `captioning manifest` writes",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FOLDER",
        help="write the captions to this folder or URI, and skip images that have captions there",
    )
    parser.add_argument(
        "--workers",
        type=parse_count,
        metavar="N",
        help="processes that caption, each with a model of its own (default: as many as fit)",
    )
    parser.add_argument(
        "--threads",
        type=parse_count,
        default=1,
        metavar="K",
        help="threads, and processors, of each worker (default %(default)s, which captions the "
        "most images)",
    )
    parser.add_argument(
        "--address",
        help='the address of a Ray cluster, HOST:PORT, or "auto" for that of this machine '
        "(default: start Ray on this machine only)",
    )
    parser.add_argument(
        "--retry-errors",
        action="store_true",
        help="caption images that failed in earlier runs again (default: skip them)",
    )
