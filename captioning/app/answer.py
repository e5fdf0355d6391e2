"""What the demo page says of a photograph: its file and a beam width in, two pieces of HTML out.

Not about the page around them: see `captioning.app.demo`.
"""

from base64 import b64encode
from collections.abc import Iterable
from html import escape
from io import BytesIO
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image

from captioning.data.images import load_image, open_image
from captioning.inference.attention import AttentionMaps, compute_attention
from captioning.inference.captioner import Captioner
from captioning.inference.networks import Caption
from captioning.output.attention_figure import draw_key, draw_words, explain
from captioning.settings import WIDEST_BEAM, SearchSettings

_MOST_SHOWN = 5  # captions: wider beams find more that hardly differ
_TILE = 400  # pixels of the longer side of a heat map: about twice what the page shows
_KEY = (240, 20)  # width and height in pixels, likewise

INVITATION = '<p class="quiet">Give me a photograph, or choose an example.</p>'


def answer(
    captioner: Captioner, image_path: str | None, beam_width: float | None
) -> tuple[str, str]:
    """The caption, its alternatives and the time taken; then what each word looked at. Without an
    image, or with one that cannot be read, the first says so and the second is empty. Of a beam
    width that is none the nearest is taken, and without one the usual."""
    if image_path is None:
        return INVITATION, ""
    started = perf_counter()
    try:
        pixels = load_image(image_path, captioner.encoder.image_size)
    except (OSError, ValueError) as error:
        return _alert(str(error).replace(image_path, Path(image_path).name)), ""
    features = captioner.encoder(pixels[None])
    seen = perf_counter()
    search = _search(beam_width)
    count = min(search.beam_width, _MOST_SHOWN)
    (captions,) = captioner.decoder.captions(features, search, count)
    seconds = (seen - started, perf_counter() - seen)
    try:
        gaze = compute_attention(captioner.decoder, features[0], captions[0].text)
        heat_maps = _heat_maps(open_image(image_path, at_least=_TILE), gaze)
    except ValueError as error:  # of this model's cells no map can be made
        heat_maps = _alert(str(error))
    return _captions(captions, search.beam_width, seconds), heat_maps


def image_url(image: Image.Image) -> str:
    """The image itself as the `src` of an `<img>`."""
    file = BytesIO()
    image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode('ascii')}"


def _search(beam_width: float | None) -> SearchSettings:
    if beam_width is None:
        return SearchSettings()
    return SearchSettings(min(max(round(beam_width), 1), WIDEST_BEAM))


def _captions(captions: list[Caption], beam_width: int, seconds: tuple[float, float]) -> str:
    rows = "".join(
        f"<tr><td>{escape(one.text)}</td><td>{_with_minus(one.log_prob)}</td></tr>"
        for one in captions
    )
    note = (
        "A beam of 1 follows one sentence, which has no alternatives."
        if beam_width == 1
        else "Best first, where longer sentences are allowed to be a little less probable."
    )
    seeing, searching = seconds
    return (
        f'<p class="caption">{escape(captions[0].text)}</p>'
        f"<table><thead><tr><th>Captions found</th><th>log-probability</th></tr></thead>"
        f'<tbody>{rows}</tbody></table><p class="quiet">{note}</p>'
        f'<p class="quiet time">{seeing + searching:.2f} seconds: {seeing:.2f} to see, '
        f"{searching:.2f} to find the words.</p>"
    )


def _with_minus(number: float) -> str:
    return f"{number:.2f}".replace("-", "\N{MINUS SIGN}")


def _heat_maps(photograph: Image.Image, gaze: AttentionMaps) -> str:
    scale = _TILE / max(photograph.size)
    size = tuple(max(round(scale * side), 1) for side in photograph.size)
    figures = "".join(_figures(gaze, draw_words(photograph, gaze, size)))
    key = f'<img src="{image_url(draw_key(_KEY))}" alt="to">'
    return (
        f'<h2>What each word looked at</h2><div class="words">{figures}</div>'
        f'<p class="quiet key">0 {key} {gaze.weights.max(initial=0):.0%}</p>'
        f'<p class="quiet">{escape(explain(gaze))}</p>'
    )


def _figures(gaze: AttentionMaps, tiles: Iterable[Image.Image]) -> Iterable[str]:
    for word, weights, tile in zip(gaze.words, gaze.maps, tiles, strict=True):
        alt = f"{word}: looked most at the {_place(weights)} of the photograph"
        yield (
            f'<figure><img src="{image_url(tile)}" alt="{escape(alt)}">'
            f"<figcaption>{escape(word)}</figcaption></figure>"
        )


def _place(weights: np.ndarray) -> str:
    """Where the heaviest of weights (rows, columns) lies, in words."""
    row, column = np.unravel_index(weights.argmax(), weights.shape)
    height, width = weights.shape
    vertical = ("upper", "middle", "lower")[3 * (2 * row + 1) // (2 * height)]
    horizontal = ("left", "middle", "right")[3 * (2 * column + 1) // (2 * width)]
    return " ".join(dict.fromkeys((vertical, horizontal)))


def _alert(message: str) -> str:
    return f'<p role="alert">{escape(message)}</p>'
