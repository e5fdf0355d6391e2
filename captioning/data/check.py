"""The data, looked at before anything is built on it: a data set in, findings out.

Nothing is repaired here; `usable` leaves out what a training run should not see.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from captioning.data.dataset import Dataset, Splits, list_image_names, select
from captioning.data.images import UnreadableImage, load_image
from captioning.data.vocabulary import clean_caption

# Flickr8k's placeholder for a picture that the annotator could not see.
PLACEHOLDER = "broken image"
# 99 of 100 captions have at most 22 words. Longer ones are outliers, which are looked at and kept.
MAX_WORDS = 30

_SIZE = 299, 299  # as the encoder loads images


@dataclass
class Findings:
    """What was found, by name. Images are named by file, captions as `image.jpg#number`."""

    found: dict[str, list[str]] = field(default_factory=dict)  # kind of finding -> names
    unusable_images: set[str] = field(default_factory=set)
    unusable_captions: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        """A line for each kind: how many, and the first few names."""
        lines = []
        for kind, names in self.found.items():
            shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            lines.append(f"{len(names):6,}  {kind}" + (f": {shown}" if names else ""))
        return "\n".join(lines)


def check_dataset(dataset: Dataset) -> Findings:
    """Looks at every caption (as written), every name in the splits, and every image file below the
    folder of images, which is decoded in full (about a minute for Flickr8k)."""
    captions, splits = dataset.captions, dataset.splits
    files = set(list_image_names(dataset.images))
    broken = {
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
    listed = Counter(name for names in splits.values() for name in dict.fromkeys(names))
    missing = [name for name in captions if name not in files]
    return Findings(
        {
            "captioned images that do not exist": missing,
            "images without a caption": sorted(files - captions.keys()),
            "images that cannot be read whole": [f"{n} {why}" for n, why in broken.items()],
            "captions of no or one word": short,
            f'captions that say "{PLACEHOLDER}"': placeholders,
            f"captions of more than {MAX_WORDS} words": long,
            "images in more than one split": [name for name, n in listed.items() if n > 1],
            "images of a split that do not exist": [name for name in listed if name not in files],
            "images of a split without a caption": [n for n in listed if n not in captions],
            "images in no split": sorted(files - listed.keys()),
        },
        unusable_images={*missing, *broken},
        unusable_captions={*short, *placeholders},
    )


def usable(dataset: Dataset, findings: Findings) -> Dataset:
    """The data set less the captions that the findings call unusable, or whose image is. An image
    in more than one split stays in one of them: test, else development, so that nothing is learnt
    that is scored. Raises ValueError if that leaves nothing of a split."""
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
    for split in reversed(dataset.splits):  # test first: what it names is taken from the others
        taken = {name for names in splits.values() for name in names}
        names = select(captions, dataset.splits[split])
        splits[split] = [name for name in names if name not in taken]
    splits = {split: splits[split] for split in dataset.splits}
    for split, names in splits.items():
        if not names:
            raise ValueError(
                f"The {split} split holds no usable image with a usable caption. Wanted: one at "
                f"least. Received: {dataset.splits[split][:3]}. Mend what the check names."
            )
    return replace(dataset, captions=captions, splits=splits)


def _why_unreadable(path: Path) -> str | None:
    """In a few words; None for an image that can be read."""
    try:
        load_image(path, _SIZE)
    except FileNotFoundError:
        return "is a link that leads nowhere"
    except UnreadableImage as error:
        return error.reason
    return None
