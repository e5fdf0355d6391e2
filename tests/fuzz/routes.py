"""Feeds a damaged file to the program by one of several routes, such as the command or the API.

A route returns how the case ended, and a line of detail. "result" and "named error" are right; an
exception that leaves a route is a traceback.
"""

import io
import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from captioning.app import caption_command, cli, demo, pipeline
from captioning.data.vocabulary import Vocabulary
from captioning.errors import UserError
from captioning.export import provide_encoder
from captioning.inference.captioner import Captioner
from captioning.paths import Paths
from tests.tiny_world import drawings, write_archives, write_folder

MODELS = Path(__file__).parents[2] / "models"
TRAINED = "caption_model.keras"
RESULT, NAMED = "result", "named error"

End = tuple[str, str]


def run_main(main: Callable[[list[str]], int], *arguments: str) -> tuple[int, str, str]:
    """Runs a command in this process. Returns its status, and the text on both streams."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


def judge(name: str, message: str) -> End:
    """A named error is one line that names the file, at least without its ending. An error about
    the index of feature maps may name the features instead."""
    lines = message.splitlines()
    stem = "features" if "feature_maps" in name else Path(name).stem
    if len(lines) != 1 or not (stem in lines[0] or Path(name).stem in lines[0]):
        return "other message", message
    return NAMED, message


class ImageRoutes:
    """Routes of an image: the command, the API, the check and the function of the page. They share
    a loaded model, and a folder of whole images for the check."""

    def __init__(self, folder: Path):
        self._captioner = Captioner.load()
        self._root = folder / "check"
        self._root.mkdir()
        write_folder(self._root, 4)
        self._routes = (self.command, self.api, self.check, self.page)

    def run(self, random, path: Path) -> tuple[str, End]:
        """Takes a random route. Returns its name and how the case ended."""
        route = self._routes[random.integers(len(self._routes))]
        return route.__name__, route(random, path)

    def command(self, random, path: Path) -> End:
        with patch.object(Captioner, "load", return_value=self._captioner):
            status, out, err = run_main(caption_command.main, path)
        if status == 0 and out.count("\n") == 1 and not err:
            return RESULT, out
        return judge(path.name, err) if status == 2 and not out else ("other message", out + err)

    def api(self, random, path: Path) -> End:
        way = random.integers(3)
        try:
            if way == 0:
                return RESULT, self._captioner.caption(path).text
            if way == 1:
                return RESULT, self._captioner.caption(path.read_bytes()).text
            with path.open("rb") as file:
                return RESULT, self._captioner.caption(file).text
        except (FileNotFoundError, UserError) as error:
            return judge("The image" if way == 1 else path.name, str(error))

    def check(self, random, path: Path) -> End:
        image = self._root / "my_photos" / path.name
        shutil.copyfile(path, image)
        table = self._root / "table.csv"
        whole = (self._root / "my_captions.csv").read_text(encoding="utf-8")
        table.write_text(f"{whole}{path.name},a red circle\n", encoding="utf-8")
        arguments = ("--root", self._root, "check", "--captions", table, "--images", image.parent)
        status, out, err = run_main(cli.main, *arguments)
        image.unlink()
        findings = [line for line in (out + err).splitlines() if path.name in line]
        if findings:
            return NAMED, findings[0]
        captions = json.loads((self._root / "dataset.json").read_text(encoding="utf-8"))["captions"]
        return (RESULT if path.name in captions and not status else "other message"), out + err

    def page(self, random, path: Path) -> End:
        warnings: list[str] = []
        with patch.object(demo.gradio, "Warning", lambda text, **_: warnings.append(text)):
            photograph = demo.open_photograph(self._captioner, path)
            if photograph is None:
                return judge(path.name, *warnings)
            caption, *_ = demo.caption_photograph(self._captioner, photograph, 3)
        return (RESULT, caption) if not warnings else ("other message", warnings[0])


def make_root(folder: Path) -> None:
    """Fills a root folder with all files that the steps read. The model is the shipped one."""
    folder.mkdir()
    write_folder(folder, 5)
    write_archives(folder, 2, 1, 1)
    paths = Paths(folder)
    shutil.copytree(MODELS, paths.models)
    shutil.copy(MODELS.parent / paths.vocabulary.name, folder)
    pipeline.check(paths, [folder / "my_captions.csv"], folder / "my_photos")
    pipeline.extract_features(paths)
    captions = {name: texts for name, (_, texts) in drawings(4).items()}
    images = [{"id": number, "file_name": name} for number, name in enumerate(captions)]
    annotations = [
        {"image_id": number, "caption": text}
        for number, texts in enumerate(captions.values())
        for text in texts
    ]
    sentences = {name: [{"raw": text} for text in texts] for name, texts in captions.items()}
    karpathy = [
        {"filename": name, "split": split, "sentences": sentences[name]}
        for name, split in zip(captions, ("train", "train", "val", "test"), strict=True)
    ]
    for name, content in (
        ("coco.json", {"images": images, "annotations": annotations}),
        ("karpathy.json", {"images": karpathy}),
    ):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    for ending in ("txt", "jsonl", "csv"):
        run_main(caption_command.main, folder / "my_photos", "--output", folder / f"out.{ending}")


class FileRoutes:
    """Routes of the other files: the steps that read them, without the training itself and without
    METEOR."""

    # File -> the routes that read it.
    FILES = {
        "dataset.json": ("features", "train", "evaluate", "report"),
        "descriptions.txt": ("train",),
        "feature_maps.bin.json": ("features", "train"),
        "flipped_feature_maps.bin.json": ("features", "train"),
        "feature_maps.bin": ("features", "train"),
        "features.p": ("pooled", "train_merge"),
        "tokenizer.p": ("caption", "evaluate"),
        "models/training.json": ("train", "report"),
        "models/encoder.xml": ("caption", "features"),
        "models/encoder.bin": ("caption",),
        "models/decoder_prefill.xml": ("caption",),
        "models/decoder_prefill.bin": ("caption",),
        "models/decoder_step.xml": ("caption",),
        "models/decoder_step.bin": ("caption",),
        "models/confidence.json": ("caption",),
        f"models/{TRAINED}": ("export",),
        "my_captions.csv": ("read_captions",),
        "coco.json": ("read_captions",),
        "karpathy.json": ("read_captions",),
        "Flickr8k_Dataset.zip": ("download",),
        "Flickr8k_text.zip": ("download",),
        "out.txt": ("resume",),
        "out.jsonl": ("resume",),
        "out.csv": ("resume",),
    }

    def __init__(self, folder: Path):
        self._folder = folder
        self._captioner = Captioner.load()

    def run(self, random, name: str, content: bytes) -> tuple[str, End]:
        """Puts the damaged content in the place of the file `name` and takes one of its routes."""
        route = str(random.choice(self.FILES[name]))
        root = self._folder / "case"
        shutil.copytree(self._folder / "root", root, copy_function=_link_or_copy)
        (root / name).unlink()
        (root / name).write_bytes(content)
        try:
            return route, getattr(self, route)(root, Path(name).name)
        finally:
            shutil.rmtree(root)

    def _step(self, root: Path, name: str, *arguments: str, loads_model: bool = False) -> End:
        with ExitStack() as stack:
            if not loads_model:
                load = patch.object(Captioner, "load", return_value=self._captioner)
                provide = patch.object(
                    provide_encoder, "provide_encoder", return_value=self._captioner.encoder
                )
                stack.enter_context(load)
                stack.enter_context(provide)
            if arguments[0] == "train":
                target = "captioning.training.train.train_and_export"
                stack.enter_context(patch(target, _begin_to_train))
            stack.enter_context(patch("captioning.evaluation.evaluate.score_captions", _no_scores))
            status, out, err = run_main(cli.main, "--root", root, *arguments)
        return (RESULT, out) if status == 0 and not err else judge(name, err)

    def features(self, root: Path, name: str) -> End:
        is_encoder = name.startswith("encoder")
        return self._step(root, name, "features", loads_model=is_encoder)

    def pooled(self, root: Path, name: str) -> End:
        return self._step(root, name, "features", "--pooled")

    def train(self, root: Path, name: str) -> End:
        if name != "training.json":  # of the shipped model, which was trained on other images
            (root / "models" / "training.json").unlink()
        return self._step(root, name, "train")

    def train_merge(self, root: Path, name: str) -> End:
        for path in root.glob("*.bin*"):
            path.unlink()
        (root / "models" / "training.json").unlink()
        return self._step(root, name, "train", "--set", "decoder=merge")

    def evaluate(self, root: Path, name: str) -> End:
        return self._step(root, name, "evaluate", loads_model=name == "tokenizer.p")

    def report(self, root: Path, name: str) -> End:
        return self._step(root, name, "report")

    def export(self, root: Path, name: str) -> End:
        return self._step(root, name, "export")

    def read_captions(self, root: Path, name: str) -> End:
        images = root / "my_photos"
        arguments = ("check", "--captions", root / name, "--images", images)
        end, text = self._step(root, name, *arguments)
        rows = [judge(name, line) for line in text.splitlines()[:-1]]  # the last may count the rest
        return (NAMED, text) if rows and all(row == NAMED for row, _ in rows) else (end, text)

    def download(self, root: Path, name: str) -> End:
        # Without the note that these are not the official archives.
        with patch("captioning.data.flickr8k._difference_from_official", return_value=None):
            return self._step(root / "new", name, "download", "--source", root)

    def caption(self, root: Path, name: str) -> End:
        arguments = (root / "my_photos" / "000_drawing.jpg", "--model", root)
        status, out, err = run_main(caption_command.main, *arguments)
        return (RESULT, out) if status == 0 and not err else judge(name, err)

    def resume(self, root: Path, name: str) -> End:
        with patch.object(Captioner, "load", return_value=self._captioner):
            arguments = (root / "my_photos", "--output", root / name)
            status, out, err = run_main(caption_command.main, *arguments)
        return (RESULT, out) if status == 0 and not err else judge(name, err)


def _link_or_copy(source: str, target: str) -> None:
    """Links the large files, which no step writes into."""
    is_model = Path(source).parent.name == "models"
    (os.link if is_model else shutil.copyfile)(source, target)


def _no_scores(*_) -> dict[str, float]:
    return {"CIDEr": 0.0}


def _begin_to_train(data, settings, paths: Paths, start: Path | None) -> list:
    """What `train_and_export` does before it builds a model."""
    from captioning.training.batches import CaptionBatches
    from captioning.training.checkpoints import read_record
    from captioning.training.training_data import identify_run

    captions = [caption for captions in data.train.values() for caption in captions]
    vocabulary = Vocabulary.from_captions(captions, settings.min_word_count)
    identity = identify_run(data, vocabulary, settings) | {"start": start}
    record = read_record(paths.models, identity)
    if not record["history"]:
        data = data.pooled() if settings.uses_pooled_features else data
        for variants in (data.encode(vocabulary), data.encode_development(vocabulary)):
            CaptionBatches(variants, settings.batch_size)[0]
    return record["history"]
