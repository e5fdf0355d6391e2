"""The notebook's steps as commands: `python -m captioning --help`."""

import argparse
import json
import sys
from pathlib import Path

from captioning.dataset import SPLIT_FILES
from captioning.settings import Files, SearchSettings, TrainingSettings


def main(arguments: list[str] | None = None) -> int:
    """Runs one step; an error that a user can mend becomes one line on stderr and status 1."""
    options = _parser().parse_args(arguments)
    try:
        options.run(Files(options.root), options)
    except ModuleNotFoundError as error:
        print(f"{error}. This step needs: pip install -r requirements.txt", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def download(files: Files, options: argparse.Namespace) -> None:
    from captioning.dataset import obtain

    obtain(files, options.source)


def check(files: Files, options: argparse.Namespace) -> None:
    from captioning.check import check_dataset, usable
    from captioning.dataset import CAPTION_FILE, read_captions, read_splits, write_descriptions
    from captioning.text import clean_captions

    captions = read_captions(files.texts / CAPTION_FILE)
    findings = check_dataset(captions, read_splits(files.texts), files.images)
    print(findings)
    write_descriptions(files.descriptions, clean_captions(usable(captions, findings)))


def features(files: Files, options: argparse.Namespace) -> None:
    from captioning.dataset import read_descriptions, read_splits, select
    from captioning.features import average_features, extract_feature_maps
    from captioning.inference import ENCODER, Encoder

    if options.weights or not (files.models / ENCODER).exists():
        from captioning.encoder import build_encoder
        from captioning.export import export_encoder

        export_encoder(build_encoder(options.weights or "imagenet"), files.models)
    encoder = Encoder(files.models)
    names = list(read_descriptions(files.descriptions))
    average_features(
        extract_feature_maps(encoder, [files.images / name for name in names], files.feature_maps),
        files.features,
    )
    training_names = select(dict.fromkeys(names), read_splits(files.texts)["train"])
    extract_feature_maps(
        encoder,
        [files.images / name for name in training_names],
        files.mirrored_feature_maps,
        mirrored=True,
    )


def train(files: Files, options: argparse.Namespace) -> None:
    from captioning.dataset import CAPTION_FILE, read_captions, read_descriptions, read_splits
    from captioning.feature_maps import FeatureMaps
    from captioning.training import train_and_export

    train_and_export(
        read_descriptions(files.descriptions),
        read_captions(files.texts / CAPTION_FILE),
        read_splits(files.texts),
        FeatureMaps(files.feature_maps),
        FeatureMaps(files.mirrored_feature_maps),
        TrainingSettings(decoder=options.decoder, seed=options.seed),
        files,
    )


def evaluate(files: Files, options: argparse.Namespace) -> None:
    from captioning.dataset import CAPTION_FILE, read_captions, read_splits, select
    from captioning.evaluation import evaluate as evaluate_split
    from captioning.feature_maps import FeatureMaps
    from captioning.inference import Decoder
    from captioning.scores import format_scores
    from captioning.text import Vocabulary

    decoder = Decoder.load(files.models, Vocabulary.load(files.vocabulary))
    references = select(
        read_captions(files.texts / CAPTION_FILE), read_splits(files.texts)[options.split]
    )
    search = SearchSettings(options.beam_width)
    _, scores = evaluate_split(decoder, FeatureMaps(files.feature_maps), references, search)
    print(json.dumps(scores) if options.json else format_scores(scores))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m captioning",
        description="From Flickr8k to a trained caption model, step by step.",
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Files().root,
        help="folder that all files lie in (default: the one that holds this program)",
    )
    steps = parser.add_subparsers(title="steps, in order", required=True, metavar="STEP")

    step = steps.add_parser("download", help="fetch and unpack images and captions")
    step.add_argument(
        "--source", type=Path, help="archive, or folder of archives, you have already"
    )
    step.set_defaults(run=download)

    step = steps.add_parser("check", help="name what is wrong in the data; write descriptions.txt")
    step.set_defaults(run=check)

    step = steps.add_parser(
        "features", help="run Xception on every image; write features.p and more"
    )
    step.add_argument(
        "--weights",
        help='"imagenet" or a weights file, to make the encoder anew (default: use models/encoder)',
    )
    step.set_defaults(run=features)

    step = steps.add_parser("train", help="train the caption model; write models/ and tokenizer.p")
    step.add_argument(
        "--seed",
        type=int,
        default=TrainingSettings.seed,
        help="runs with different seeds differ by chance only (default %(default)s)",
    )
    step.add_argument(
        "--decoder",
        choices=("merge", "attention"),
        default=TrainingSettings.decoder,
        help="the classic or the one that looks at parts of the image (default %(default)s)",
    )
    step.set_defaults(run=train)

    step = steps.add_parser("evaluate", help="caption a split and score it")
    step.add_argument(
        "--split",
        choices=tuple(SPLIT_FILES),
        default="test",
        help="whose images are captioned (default %(default)s)",
    )
    step.add_argument(
        "--beam-width",
        type=int,
        default=SearchSettings.beam_width,
        help="sentences followed at a time (default %(default)s)",
    )
    step.add_argument("--json", action="store_true", help="print numbers for programs")
    step.set_defaults(run=evaluate)
    return parser


if __name__ == "__main__":
    sys.exit(main())
