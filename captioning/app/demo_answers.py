"""What the demo page answers: captions of a photograph and the attention of each word."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

import gradio
import numpy as np
from PIL import Image

from captioning.data.images import load_image, open_image
from captioning.errors import UserError
from captioning.inference.attention import AttentionMaps, compute_attention
from captioning.inference.captioner import Captioner
from captioning.output.attention_figure import draw_overlays, explain_scale
from captioning.settings import WIDEST_BEAM, SearchSettings

NO_ANSWER = ("", None, None, "")  # no caption, captions, attention maps and unit

_MAX_CAPTIONS = 5  # further captions of a wide beam hardly differ
_TILE_SIZE = 400  # pixels of the longer side of an attention map


@dataclass(frozen=True)
class Photograph:
    """All that is needed of a photograph after its file is deleted: the feature map (cells,
    feature_width) and a small picture."""

    features: np.ndarray
    picture: Image.Image


def open_photograph(captioner: Captioner, path: Path) -> Photograph | None:
    """Opens and encodes an uploaded file. If it cannot be read, shows the error on the page and
    returns None."""
    try:
        pixels = load_image(path, captioner.encoder.image_size)
        picture = open_image(path, at_least=_TILE_SIZE)
    except (OSError, UserError) as error:
        gradio.Warning(escape(str(error).replace(str(path), path.name)), duration=None)
        return None
    picture.thumbnail((_TILE_SIZE, _TILE_SIZE))
    (features,) = captioner.encoder(pixels[None])
    return Photograph(features, picture)


def caption_photograph(
    captioner: Captioner, photograph: Photograph, beam_width: float | None
) -> tuple:
    """Returns the best caption, rows of all captions and their log-probabilities, a tile (attention
    map, label) for each word, and the unit of the maps."""
    beam_width = SearchSettings.beam_width if beam_width is None else round(beam_width)
    search = SearchSettings(min(max(beam_width, 1), WIDEST_BEAM))
    num_captions = min(search.beam_width, _MAX_CAPTIONS)
    decoder, features = captioner.decoder, photograph.features
    (captions,) = decoder.captions(features[None], search, num_captions)
    rows = [[caption.text, round(caption.log_prob, 2)] for caption in captions]
    try:
        attention = compute_attention(decoder, features, captions[0].text)
        overlays = draw_overlays(photograph.picture, attention)
    except UserError as error:  # a caption without words, or a feature map that is no square
        return captions[0].text, rows, None, str(error)
    tiles = list(zip(overlays, _labels(attention), strict=True))
    return captions[0].text, rows, tiles, explain_scale(attention)


def _labels(attention: AttentionMaps) -> list[str]:
    """The label of each tile: the word and the place of its highest weight, such as "dog (top
    left)". Gradio uses the labels as alt texts."""
    labels = []
    for word, weights in zip(attention.words, attention.maps, strict=True):
        rows, columns = weights.shape
        row, column = np.unravel_index(weights.argmax(), weights.shape)
        vertical = ("top", "", "bottom")[3 * (2 * row + 1) // (2 * rows)]
        horizontal = ("left", "", "right")[3 * (2 * column + 1) // (2 * columns)]
        labels.append(f"{word} ({f'{vertical} {horizontal}'.strip() or 'middle'})")
    return labels
