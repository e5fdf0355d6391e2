"""The files and folders below a root folder that the steps read and write, and the lookup of the
model to caption with and of the model cache."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

MODEL_VARIABLE = "CAPTIONING_MODEL"
CACHE_VARIABLE = "CAPTIONING_CACHE"
NO_CACHE = "off"  # the value of the variable that stands for no folder

_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Paths:
    """The files below `root`, by default the current folder. The sizes are those of Flickr8k."""

    root: Path = Path()

    @property
    def images(self) -> Path:
        """The photographs, in a folder spelt as in the official archive."""
        return self.root / "Flicker8k_Dataset"

    @property
    def texts(self) -> Path:
        """The caption file and the lists of image names, one for each split."""
        return self.root / "Flickr_8k_text"

    @property
    def dataset(self) -> Path:
        """Usable images, captions as written, and splits; written by the check."""
        return self.root / "dataset.json"

    @property
    def descriptions(self) -> Path:
        """Cleaned captions, one a line: image name, tab, caption."""
        return self.root / "descriptions.txt"

    @property
    def feature_maps(self) -> Path:
        """The encoder's feature maps of all images: 3.3 GB."""
        return self.root / "feature_maps.bin"

    def augmented_feature_maps(self, name: str) -> Path:
        """The feature maps of the training images after the augmentation `name`: 2.5 GB."""
        return self.root / f"{name}_feature_maps.bin"

    @property
    def development_feature_maps(self) -> Path:
        """The feature maps of the development images alone, for a training that computes those of
        the training images: 0.4 GB."""
        return self.root / "development_feature_maps.bin"

    @property
    def backbone_maps(self) -> Path:
        """The output of the encoder's backbone for the development images: 0.5 GB."""
        return self.root / "backbone_maps.bin"

    @property
    def features(self) -> Path:
        """Pooled features of up to 50,000 images, a pickled dict of image name -> float32 vector:
        66 MB."""
        return self.root / "features.p"

    @property
    def pooled_feature_maps(self) -> Path:
        """Pooled features of more than 50,000 images, a `FeatureStore` of maps with one cell: 4 KB
        each."""
        return self.root / "pooled_feature_maps.bin"

    @property
    def vocabulary(self) -> Path:
        """The words in the order of their ids, pickled."""
        return self.root / "tokenizer.p"

    @property
    def drawing(self) -> Path:
        """A drawing of the caption model."""
        return self.root / "model.png"

    @property
    def models(self) -> Path:
        """The trained models and their record, and the networks for captioning."""
        return self.root / "models"

    @property
    def scores(self) -> Path:
        """The scores of the trained model on the test split."""
        return self.models / "scores.json"

    @property
    def report(self) -> Path:
        """The report on a training run, a page with images of the data set."""
        return self.root / "report.html"

    @property
    def fine_tuning(self) -> Path:
        """The run of the encoder's fine-tuning, with the caption model that learned with it."""
        return self.models / "fine_tuning"

    @property
    def fine_tuned_weights(self) -> Path:
        """The fine-tuned weights of the image network, which can replace its ImageNet weights."""
        return self.models / "fine_tuned.weights.h5"


def find_model(root: str | Path | None = None) -> Path:
    """Returns the folder with `models/` and `tokenizer.p` of the model to caption with: `root`,
    else the value of the environment variable CAPTIONING_MODEL, else the folder of the model that
    was installed with this package, else the checkout that contains this package."""
    named_folder = root or os.environ.get(MODEL_VARIABLE)
    if named_folder:
        return Path(named_folder)
    shipped = _PACKAGE / "shipped"
    return shipped if shipped.is_dir() else _PACKAGE.parent


def find_cache() -> Path | None:
    """Returns the folder of the model cache: the value of the environment variable
    CAPTIONING_CACHE, else `captioning` in the folder that the system keeps for caches of this user.
    Returns None if the value is "off", or if this user has no such folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return None if chosen == NO_CACHE else Path(chosen)
    if sys.platform == "win32":
        folder = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        folder = os.path.expanduser("~/Library/Caches")
    else:
        folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(folder, "captioning") if os.path.isabs(folder) else None
