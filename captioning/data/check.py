"""Checks a data set before training: lists its faults and leaves out unusable images and captions.
Repairs nothing."""

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from captioning.data.dataset import Captions, Dataset, Splits, select
from captioning.data.image_paths import list_image_names
from captioning.data.images import UnreadableImage, load_image
from captioning.data.read_dataset import similar_images
from captioning.data.vocabulary import clean_caption, has_spaces
from captioning.errors import UserError, printable

# Flickr8k's caption for an image that the annotator could not see.
PLACEHOLDER = "broken image"
# 99 of 100 captions have at most 22 words. The check lists longer ones and keeps them.
MAX_WORDS = 30

_IMAGE_SIZE = 299, 299  # the usual input of an encoder, so that images are decoded as for it
_NAMES_SHOWN = 4


@dataclass
class Findings:
    """The faults of a data set. Captions are numbered from 0: `image.jpg#0`."""

    names: dict[str, list[str]] = field(default_factory=dict)  # kind of finding -> names
    unusable_images: set[str] = field(default_factory=set)
    unusable_captions: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        """Returns a line for each kind: the number of findings and the first names."""
        lines = []
        for kind, names in self.names.items():
            shown = ", ".join(map(printable, names[:_NAMES_SHOWN])) + (
                ", ..." * (len(names) > _NAMES_SHOWN)
            )
            lines.append(f"{len(names):6,}  {kind}" + (f": {shown}" if names else ""))
        return "\n".join(lines)


def check_dataset(dataset: Dataset) -> Findings:
    """Checks every caption as written, every name in the splits, and every image in the folder,
    which it decodes as for the encoder (about a minute for Flickr8k). Raises UserError for captions
    in a language that puts no spaces between words."""
    captions, splits = dataset.captions, dataset.splits
    _require_spaces(captions)
    image_names = sorted(list_image_names(dataset.images))
    files = set(image_names)
    unreadable = {
        name: reason
        for name in tqdm(image_names, desc="images", unit="image")
        if (reason := _why_unreadable(dataset.images / name))
    }
    short, placeholders, long = [], [], []
    for name, image_captions in captions.items():
        for number, caption in enumerate(image_captions):
            words = clean_caption(caption).split()
            if len(words) < 2:
                short.append(f"{name}#{number}")
            if " ".join(words) == PLACEHOLDER:
                placeholders.append(f"{name}#{number}")
            if len(words) > MAX_WORDS:
                long.append(f"{name}#{number}")
    split_counts = Counter(name for names in splits.values() for name in dict.fromkeys(names))
    missing = [name for name in captions if name not in files]
    similar = similar_images(missing, image_names)
    return Findings(
        {
            "captioned images that do not exist": [
                f"{name} (there is {similar[name]})" if name in similar else name
                for name in missing
            ],
            "images without a caption": sorted(files - captions.keys()),
            "unreadable images": [f"{name} {reason}" for name, reason in unreadable.items()],
            "captions of no or one word": short,
            f'captions that read "{PLACEHOLDER}"': placeholders,
            f"captions of more than {MAX_WORDS} words": long,
            "images in more than one split": [
                name for name, count in split_counts.items() if count > 1
            ],
            "images of a split that do not exist": [
                name for name in split_counts if name not in files
            ],
            "images of a split without a caption": [
                name for name in split_counts if name not in captions
            ],
            "images in no split": sorted(files - split_counts.keys()),
        },
        unusable_images={*missing, *unreadable},
        unusable_captions={*short, *placeholders},
    )


def keep_usable(dataset: Dataset, findings: Findings) -> Dataset:
    """Returns the data set without unusable captions and without unusable images. Keeps an image
    that is in several splits in one of them: in test, else in development, so that no image is used
    both for training and for scoring. Raises UserError, with the findings, if that leaves a split
    empty."""
    kept = {
        name: [
            caption
            for number, caption in enumerate(image_captions)
            if f"{name}#{number}" not in findings.unusable_captions
        ]
        for name, image_captions in dataset.captions.items()
        if name not in findings.unusable_images
    }
    captions = {name: image_captions for name, image_captions in kept.items() if image_captions}
    splits: Splits = {}
    for split in reversed(dataset.splits):  # test first: the others lose the images that it shares
        assigned = {name for names in splits.values() for name in names}
        names = select(captions, dataset.splits[split])
        splits[split] = [name for name in names if name not in assigned]
    splits = {split: splits[split] for split in dataset.splits}
    for split, names in splits.items():
        if not names:
            raise UserError(
                f"{findings}\nExpected an image with a usable caption in the {split} split, got "
                f"none in {dataset.splits[split][:3]}. Correct the findings of the check."
            )
    return replace(dataset, captions=captions, splits=splits)


def _require_spaces(captions: Captions) -> None:
    written = list(chain.from_iterable(captions.values()))
    unspaced = [caption for caption in written if not has_spaces(clean_caption(caption))]
    if len(unspaced) > len(written) / 2:
        raise UserError(
            f"Expected captions with spaces between the words, got {unspaced[0]!r} and others, "
            f"{len(unspaced):,} of {len(written):,}. Separate the words first, for example with "
            "jieba (Chinese), fugashi (Japanese) or PyThaiNLP (Thai)."
        )


def _why_unreadable(path: Path) -> str | None:
    """Returns the reason in a few words; None for an image that can be read."""
    try:
        load_image(path, _IMAGE_SIZE)
    except FileNotFoundError:
        return "is a link to a missing file"
    except UnreadableImage as error:
        return error.reason
    return None
