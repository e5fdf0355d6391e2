"""The check of a data set, before anything is built on it: lists what is wrong, and leaves out what
cannot be used. It repairs nothing."""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from captioning.data.dataset import Dataset, Splits, list_image_names, select
from captioning.data.image_names import similar_images
from captioning.data.images import UnreadableImage, load_image
from captioning.data.vocabulary import clean_caption

# Flickr8k's placeholder for an image that the annotator could not see.
PLACEHOLDER = "broken image"
# 99 of 100 captions have at most 22 words. Longer ones are named, and kept.
MAX_WORDS = 30

_IMAGE_SIZE = 299, 299  # an encoder's usual input; images are decoded just as for it
_NAMES_SHOWN = 4


@dataclass
class Findings:
    """What the check found. Captions are named `image.jpg#number`, from 0."""

    names: dict[str, list[str]] = field(default_factory=dict)  # kind of finding -> names
    unusable_images: set[str] = field(default_factory=set)
    unusable_captions: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        """A line for each kind: how many, and the first names."""
        lines = []
        for kind, names in self.names.items():
            shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." * (len(names) > _NAMES_SHOWN))
            lines.append(f"{len(names):6,}  {kind}" + (f": {shown}" if names else ""))
        return "\n".join(lines)


def check_dataset(dataset: Dataset) -> Findings:
    """Checks every caption as written, every name in the splits, and every image file in the folder
    of images, which is decoded as for the encoder (about a minute for Flickr8k)."""
    captions, splits = dataset.captions, dataset.splits
    files = set(list_image_names(dataset.images))
    unreadable = {
        name: reason
        for name in tqdm(sorted(files), desc="images", unit="image")
        if (reason := _why_unreadable(dataset.images / name))
    }
    words = {
        f"{name}#{number}": clean_caption(caption).split()
        for name, image_captions in captions.items()
        for number, caption in enumerate(image_captions)
    }
    short = [name for name, caption in words.items() if len(caption) < 2]
    placeholders = [name for name, caption in words.items() if " ".join(caption) == PLACEHOLDER]
    long = [name for name, caption in words.items() if len(caption) > MAX_WORDS]
    split_counts = Counter(name for names in splits.values() for name in dict.fromkeys(names))
    missing = [name for name in captions if name not in files]
    similar = similar_images(missing, files)
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
    """The data set without unusable captions and captions of unusable images. An image in several
    splits is kept in one of them: in test, else in development, so that no image is both learnt and
    scored. Raises ValueError if a split is empty then."""
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
    for split in reversed(dataset.splits):  # test first: its images are taken from the others
        taken = {name for names in splits.values() for name in names}
        names = select(captions, dataset.splits[split])
        splits[split] = [name for name in names if name not in taken]
    splits = {split: splits[split] for split in dataset.splits}
    for split, names in splits.items():
        if not names:
            raise ValueError(
                f"Expected an image with a usable caption in the {split} split, got none in "
                f"{dataset.splits[split][:3]}. Correct the findings of the check."
            )
    return replace(dataset, captions=captions, splits=splits)


def _why_unreadable(path: Path) -> str | None:
    """In a few words; None for an image that can be read."""
    try:
        load_image(path, _IMAGE_SIZE)
    except FileNotFoundError:
        return "is a link to a missing file"
    except UnreadableImage as error:
        return error.reason
    return None
