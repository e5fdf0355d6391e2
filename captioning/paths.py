"""Every file name of the project, below one root folder."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """Where everything lies, below one root folder."""

    root: Path = Path(__file__).parents[1]  # the checkout that this package lies in

    @property
    def images(self) -> Path:
        """The photographs; the spelling is the official archive's."""
        return self.root / "Flicker8k_Dataset"

    @property
    def texts(self) -> Path:
        """Caption file and the three lists of image names."""
        return self.root / "Flickr_8k_text"

    @property
    def dataset(self) -> Path:
        """What the check found usable: images, captions as written, splits."""
        return self.root / "dataset.json"

    @property
    def descriptions(self) -> Path:
        """Cleaned captions, a line each: image name, tab, caption."""
        return self.root / "descriptions.txt"

    @property
    def feature_maps(self) -> Path:
        """What the encoder sees in each cell of every image: 3.3 GB for Flickr8k."""
        return self.root / "feature_maps.bin"

    def augmented_feature_maps(self, view: str) -> Path:
        """The same of the training images in a further view: 2.5 GB each."""
        return self.root / f"{view}_feature_maps.bin"

    @property
    def backbone_maps(self) -> Path:
        """What the encoder's backbone sees of training and development images: 3.7 GB."""
        return self.root / "backbone_maps.bin"

    @property
    def flipped_backbone_maps(self) -> Path:
        """The same of the training images in a mirror: 3.2 GB."""
        return self.root / "flipped_backbone_maps.bin"

    @property
    def features(self) -> Path:
        """Pickled dict: image name -> float32 array, the average over its feature map."""
        return self.root / "features.p"

    @property
    def vocabulary(self) -> Path:
        """Pickled words, in the order of their ids."""
        return self.root / "tokenizer.p"

    @property
    def drawing(self) -> Path:
        """The network, drawn."""
        return self.root / "model.png"

    @property
    def scores(self) -> Path:
        """What the trained model scores on the test list."""
        return self.models / "scores.json"

    @property
    def report(self) -> Path:
        """The page about a run; it shows images of the data set."""
        return self.root / "report.html"

    @property
    def fine_tuning(self) -> Path:
        """The run in which the encoder learns."""
        return self.models / "fine_tuning"

    @property
    def fine_tuned_weights(self) -> Path:
        """Of the image network: from them an encoder can be made, as from its ImageNet weights."""
        return self.models / "fine_tuned.weights.h5"

    @property
    def models(self) -> Path:
        """What training leaves behind, and all that captioning needs besides the vocabulary."""
        return self.root / "models"


def find_model(root: str | Path | None = None) -> Path:
    """The root folder of the model to caption with: the argument, else the environment variable
    CAPTIONING_MODEL, else the one that comes with this package, else the checkout."""
    if chosen := root or os.environ.get("CAPTIONING_MODEL"):
        return Path(chosen)
    shipped = Path(__file__).parent / "shipped"
    return shipped if shipped.exists() else Paths().root
