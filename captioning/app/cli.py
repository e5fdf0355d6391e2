"""The command `captioning`, also `python -m captioning`: runs one step of the pipeline.

Parses the command line, runs the step, and prints its result.
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from captioning.app import pipeline
from captioning.app.console import FAILED, print_error, require_package, run_command
from captioning.app.options import (
    add_at_scale,
    add_data,
    add_demo,
    add_encoder,
    add_evaluation,
    add_manifest,
    add_pretrained_weights,
    add_report,
    add_root,
    add_settings,
    add_source,
    add_training,
)
from captioning.app.recipe import follow_recipe
from captioning.app.search_options import add_search, make_search_settings
from captioning.paths import Paths, find_cache, find_model
from captioning.settings import TrainingSettings

RunStep = Callable[[Paths, argparse.Namespace], int | None]  # returns the exit status


def main(arguments: list[str] | None = None) -> int:
    """Runs one step. Returns the exit status."""
    options = _parser().parse_args(arguments)
    paths = Paths(options.root or Path())
    return run_command(lambda: options.run(paths, options) or 0, FAILED)


@dataclass(frozen=True)
class _Step:
    """A step of the command line. `help`: its line in the list of steps; its own help page begins
    with the `description`, by default the same line."""

    name: str
    run: RunStep
    help: str
    option_groups: tuple[Callable[[argparse.ArgumentParser], None], ...] = ()
    description: str | None = None


def _download(paths: Paths, options: argparse.Namespace) -> None:
    pipeline.download(paths, options.source)


def _check(paths: Paths, options: argparse.Namespace) -> None:
    dataset, findings = pipeline.check(paths, options.captions, options.images)
    print(findings)
    print(dataset)


def _features(paths: Paths, options: argparse.Namespace) -> None:
    pipeline.extract_features(paths, options.encoder, options.weights, options.pooled)


def _train(paths: Paths, options: argparse.Namespace) -> None:
    settings = _settings(paths, options)
    pipeline.train(paths, settings, options.devices, options.on_the_fly, options.start)


def _fine_tune(paths: Paths, options: argparse.Namespace) -> None:
    print(pipeline.fine_tune(paths, _settings(paths, options), options.weights))


def _calibrate(paths: Paths, options: argparse.Namespace) -> None:
    print(f"fitted on {pipeline.calibrate(paths):,} captions")


def _evaluate(paths: Paths, options: argparse.Namespace) -> None:
    from captioning.evaluation.metrics import format_scores

    _, scores = pipeline.evaluate(paths, options.split, make_search_settings(options))
    print(json.dumps(scores) if options.json else format_scores(scores))


def _export(paths: Paths, options: argparse.Namespace) -> None:
    pipeline.export(paths)


def _quantise(paths: Paths, options: argparse.Namespace) -> None:
    before, after = pipeline.quantise(paths)
    print(f"development CIDEr {before * 100:.1f} before, {after * 100:.1f} after: kept")


def _report(paths: Paths, options: argparse.Namespace) -> None:
    print(pipeline.report(paths, options.split, make_search_settings(options), options.output))


def _all(paths: Paths, options: argparse.Namespace) -> None:
    require_package("keras")  # before minutes of feature extraction, as for wrong settings
    options.pooled |= options.on_the_fly  # which `calibrate` needs
    with redirect_stdout(sys.stderr):  # so that the scores alone are on standard output
        for run in (_check, _settings, _features, _train, _calibrate):
            run(paths, options)
    _evaluate(paths, options)


def _recipe(paths: Paths, options: argparse.Namespace) -> None:
    _check(paths, options)
    follow_recipe(paths, _settings(paths, options), options.weights)


def _serve(paths: Paths, options: argparse.Namespace) -> None:
    if options.root is None and not paths.vocabulary.exists():
        paths = Paths(find_model())
    pipeline.serve(paths, options.port, options.open)


def _manifest(paths: Paths, options: argparse.Namespace) -> int:
    from captioning.app.manifest import write_manifest

    images, problems = write_manifest(options.sources, options.manifest, options.contents)
    for problem in problems:
        print_error(problem)
    print(f"{images} images in {options.manifest}")
    return FAILED if problems else 0


def _at_scale(paths: Paths, options: argparse.Namespace) -> int:
    require_package("ray")  # first: its extra also has pyarrow, which is imported before it
    from captioning.app.at_scale import caption_at_scale

    return caption_at_scale(
        options.manifest,
        options.output,
        root=options.root,
        workers=options.workers,
        threads=options.threads,
        address=options.address,
        retry_errors=options.retry_errors,
        search=make_search_settings(options),
    )


def _clear_cache(paths: Paths, options: argparse.Namespace) -> None:
    from captioning.inference.model_cache import clear_cache

    if folder := find_cache():
        networks, size = clear_cache(folder)
        print(f"Deleted {networks} compiled networks ({size / 1e6:.0f} MB) in {folder}.")
    else:
        print("There is no model cache.")


def _settings(paths: Paths, options: argparse.Namespace) -> TrainingSettings:
    return pipeline.default_settings(paths, {"seed": options.seed, **dict(options.set)})


_STEPS = (  # in the order of the help
    _Step("download", _download, "download the images and captions of Flickr8k", (add_source,)),
    _Step("check", _check, "check images and captions, and leave out unusable ones", (add_data,)),
    _Step("features", _features, "extract the features of every image", (add_encoder,)),
    _Step("train", _train, "train a caption model; write models/ and tokenizer.p", (add_training,)),
    _Step(
        "fine-tune",
        _fine_tune,
        "fine-tune the image encoder; write models/fine_tuned.weights.h5",
        (add_pretrained_weights, add_settings),
        description="Fine-tune the last blocks of the image encoder together with a copy of the "
        "caption model in models/, their teacher. Then continue in another --root: `features "
        "--weights` builds the encoder from models/fine_tuned.weights.h5 of this one, and `train "
        "--start` continues the copy, in models/fine_tuning.",
    ),
    _Step("calibrate", _calibrate, "fit the confidence in captions; write models/confidence.json"),
    _Step("evaluate", _evaluate, "score captions of the images of a split", (add_evaluation,)),
    _Step("export", _export, "export models/decoder_* again from models/caption_model.keras"),
    _Step(
        "quantise",
        _quantise,
        "quantise encoder and decoder to 8 bits, so that they run faster",
        description="Replace models/encoder and models/decoder_* by their 8-bit versions if the "
        "captions of the development split lose at most 0.5 CIDEr. Run `features` and `train` "
        "first.",
    ),
    _Step(
        "report",
        _report,
        "write a page about a training run: curves, scores, captions, confused words",
        (add_report,),
    ),
    _Step(
        "all",
        _all,
        "run check, features, train, calibrate and evaluate",
        (add_data, add_encoder, add_training, add_evaluation),
    ),
    _Step(
        "recipe",
        _recipe,
        "go from ImageNet weights to a model that is fine-tuned, quantised and calibrated",
        (add_data, add_pretrained_weights, add_settings),
    ),
    _Step(
        "serve",
        _serve,
        "serve a page that captions photographs in the browser",
        (add_demo,),
        description="Serve a page that captions photographs in the browser, until you press "
        "Ctrl-C. Only this computer can open it. It needs no network, and soon deletes each "
        "photograph.",
    ),
    _Step("manifest", _manifest, "list photographs in a manifest, for at-scale", (add_manifest,)),
    _Step(
        "at-scale",
        _at_scale,
        "caption the images of a manifest, on one machine or a Ray cluster",
        (add_at_scale, add_search),
        description="Caption the images of a manifest into Parquet files, on all processors of "
        "this machine or on a Ray cluster, with the model in --root, or the shipped one. A job "
        "that was stopped resumes. The exit status is 0 if every image was captioned, 1 if some "
        "failed or the job could not run, 2 if every image failed.",
    ),
    _Step(
        "clear-cache",
        _clear_cache,
        "delete the compiled networks in your cache folder, or in that of CAPTIONING_CACHE",
    ),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="captioning",
        description="Train, evaluate and export a caption model, step by step.",
    )
    add_root(parser, default=None)
    steps = parser.add_subparsers(title="steps", required=True, metavar="STEP")
    for step in _STEPS:
        description = step.description or f"{step.help[0].upper()}{step.help[1:]}."
        subparser = steps.add_parser(step.name, help=step.help, description=description)
        subparser.set_defaults(run=step.run)
        for add_options in (add_root, *step.option_groups):
            add_options(subparser)
    return parser
