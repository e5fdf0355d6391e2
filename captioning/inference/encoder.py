"""The image network: photographs -> feature maps. It needs no Keras."""

from pathlib import Path

import numpy as np

from captioning.inference.model_cache import load_network
from captioning.inference.network_files import ENCODER, image_size, require_encoder_layout
from captioning.inference.openvino_runtime import read_encoder_id

# Images per call of encoder and prefill: larger batches leave the caches and take more memory.
ENCODER_BATCH_SIZE = 4


class Encoder:
    """The image network: photographs -> feature maps. Safe to call from several threads.

    `image_size`: height and width of the input images in pixels; `feature_width`: numbers in a cell
    of the feature map; `encoder_id`: see `openvino_runtime.read_encoder_id`.
    """

    def __init__(self, folder: Path, precision: str = "f32", cache: Path | None = None):
        """Reads `encoder.xml` and `encoder.bin` in `folder`; `precision`: "f32" or "bf16", see
        `openvino_runtime.compile_options`; `cache`: a folder for compiled networks, see
        `model_cache.load_network`. Raises FileNotFoundError or UserError for missing or damaged
        files."""
        network, self._run = load_network(
            folder / ENCODER, precision, cache, check=require_encoder_layout
        )
        self.encoder_id = read_encoder_id(network)
        self.image_size = image_size(network)
        self.feature_width = network.output(0).partial_shape[2].get_length()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Takes uint8 RGB (batch, height, width, 3) of `image_size`. Returns float32 feature maps
        (batch, cells, feature_width), the cells row by row."""
        (feature_maps,) = self._run([images])
        return feature_maps
