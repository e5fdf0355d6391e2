"""The notebook's steps as commands: `python -m captioning --help`."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from captioning.app import pipeline as steps
from captioning.app.options import STOPPED, read_beam_width
from captioning.data.splits import SPLITS
from captioning.paths import Paths
from captioning.settings import DEFAULT_ENCODER, SearchSettings, TrainingSettings

_KINDS = {field.name: field.type for field in fields(TrainingSettings)}
_BOOLEANS = {"True": True, "False": False}
_KIND_NAMES = {int: "a whole number", float: "a number"}


def main(arguments: list[str] | None = None) -> int:
    """Runs one step; an error that a user can mend becomes one line on stderr and status 1, and so
    does Ctrl-C, with status 130."""
    options = _parser().parse_args(arguments)
    try:
        options.run(Paths(options.root), options)
    except ModuleNotFoundError as error:
        print(f"{error}. This step needs: pip install -r {options.requirements}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return STOPPED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m captioning",
        description="From captioned images to a trained caption model, step by step.",
    )
    _add_root(parser, default=Paths().root)
    subparsers = parser.add_subparsers(title="steps", required=True, metavar="STEP")

    def add(run, *option_groups, name=None, requirements="requirements.txt", **texts):
        step = subparsers.add_parser(name or run.__name__, **texts)
        step.set_defaults(run=run, requirements=requirements)
        for add_options in (_add_root, *option_groups):
            add_options(step)

    add(steps.download, _add_source, help="fetch and unpack images and captions of Flickr8k")
    add(
        steps.check,
        _add_data,
        help="name what is wrong in the data, and leave it out",
    )
    add(
        steps.features,
        _add_encoder,
        help="run the encoder on every image; write its feature maps",
    )
    add(steps.train, _add_training, help="train the caption model; write models/ and tokenizer.p")
    add(
        steps.fine_tune,
        _add_weights,
        _add_training,
        name="fine-tune",
        help="train the last blocks of the encoder, too; write models/fine_tuned.weights.h5",
        description="Train the last blocks of the encoder together with a caption model, which "
        "models/caption_model.keras teaches. Write models/fine_tuned.weights.h5, from which "
        "`features --weights` makes the encoder that sees better.",
    )
    add(steps.evaluate, _add_evaluation, help="caption a split and score it")
    add(
        steps.export,
        help="write models/decoder_* anew from models/caption_model.keras",
        description="Write the decoder that captioning runs, models/decoder_*, anew from the "
        "trained model models/caption_model.keras and its vocabulary.",
    )
    add(
        steps.quantise,
        help="make encoder and decoder faster, in integers, if that costs no quality",
        description="Replace models/encoder and models/decoder_*, whichever is in floats, by the "
        "same in integers of 8 bits, if the captions of the development split lose no more than "
        "0.5 CIDEr. Wants features and train first.",
    )
    add(
        steps.report,
        _add_report,
        help="write a page about a run: curves, scores, best and worst captions, confusions",
    )
    add(
        steps.all_steps,
        _add_data,
        _add_encoder,
        _add_training,
        _add_evaluation,
        name="all",
        help="check, features, train and evaluate, one after the other",
    )
    add(
        steps.serve,
        _add_page,
        requirements="requirements-demo.txt",
        help="caption photographs on a page in the browser, on this computer alone",
        description="Serve a page for the browser that captions photographs, until Ctrl-C. It is "
        "for this computer alone and needs no network; the photographs are deleted at the end.",
    )
    return parser


def _add_root(parser: argparse.ArgumentParser, default: Path | str = argparse.SUPPRESS) -> None:
    parser.add_argument(
        "--root",
        type=Path,
        default=default,
        help="folder that all files lie in (default: the one that holds this program)",
    )


def _add_source(step: argparse.ArgumentParser) -> None:
    step.add_argument(
        "--source",
        type=Path,
        help="Flickr8k_Dataset.zip and Flickr8k_text.zip that you have: one, or their folder",
    )


def _add_data(step: argparse.ArgumentParser) -> None:
    step.add_argument(
        "--captions",
        type=Path,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="your captions: a table with a header (image,caption), JSON as of COCO or Karpathy, "
        "or a folder laid out as Flickr8k's (default: Flickr8k)",
    )
    step.add_argument("--images", type=Path, metavar="FOLDER", help="the folder of your images")


def _add_encoder(step: argparse.ArgumentParser) -> None:
    step.add_argument(
        "--encoder",
        metavar="NAME",
        help="an image network of keras.applications, such as ResNet50V2 (default: that of "
        f"models/encoder, or else {DEFAULT_ENCODER})",
    )
    step.add_argument(
        "--weights",
        help='"imagenet" or a weights file, to make the encoder anew (default: use models/encoder)',
    )


def _add_weights(step: argparse.ArgumentParser) -> None:
    step.add_argument(
        "--weights",
        default="imagenet",
        help='"imagenet" or the weights file that models/encoder was made from '
        "(default %(default)s)",
    )


def _add_training(step: argparse.ArgumentParser) -> None:
    step.add_argument(
        "--seed",
        type=int,
        default=TrainingSettings.seed,
        help="runs with different seeds differ by chance only (default %(default)s)",
    )
    step.add_argument(
        "--set",
        type=_setting,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help=f"settings of the training: {', '.join(_KINDS)} (see captioning/settings.py)",
    )


def _add_evaluation(step: argparse.ArgumentParser) -> None:
    _add_search(step, split="test")
    step.add_argument("--json", action="store_true", help="print numbers for programs")


def _add_report(step: argparse.ArgumentParser) -> None:
    # Who studies the test images and changes the model has no test any more.
    _add_search(step, split="development")
    step.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"the page (default: {Paths().report.name} in the root folder)",
    )


def _add_page(step: argparse.ArgumentParser) -> None:
    step.add_argument(
        "--port",
        type=_port,
        default=7860,
        help="the page is at http://127.0.0.1:PORT (default %(default)s)",
    )
    step.add_argument("--open", action="store_true", help="open the page in the browser, too")


def _add_search(step: argparse.ArgumentParser, split: str) -> None:
    step.add_argument(
        "--split",
        choices=SPLITS,
        default=split,
        help="whose images are captioned (default %(default)s)",
    )
    step.add_argument(
        "--beam-width",
        type=read_beam_width,
        default=SearchSettings.beam_width,
        help="sentences followed at a time (default %(default)s)",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"wanted a port from 1 to 65535, received {text}")
    return int(text)


def _setting(text: str) -> tuple[str, float | str]:
    """ "epochs=20" -> ("epochs", 20), "student=False" -> ("student", False)"""
    name, _, value = text.partition("=")
    if name not in _KINDS:
        raise argparse.ArgumentTypeError(
            f"wanted NAME=VALUE for one of {', '.join(_KINDS)}, received {text}"
        )
    kind = _KINDS[name]
    try:
        return name, _BOOLEANS[value] if kind is bool else kind(value)
    except (KeyError, ValueError) as error:
        wanted = " or ".join(_BOOLEANS) if kind is bool else _KIND_NAMES[kind]
        raise argparse.ArgumentTypeError(f"wanted {wanted} for {name}, received {value}") from error
