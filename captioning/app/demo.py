"""The demo page, which captions a photograph and shows the attention of each word.

Only this computer can open the page. It loads nothing from the network and sends nothing to it.
`captioning.app.demo_protection` refuses requests of other sites and deletes the photographs.
"""

import os
import socket
import webbrowser
from dataclasses import dataclass
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio
import numpy as np
from PIL import Image

from captioning.app.demo_protection import Uploads, server_options
from captioning.data.images import load_image, open_image
from captioning.errors import UserError
from captioning.inference.attention import AttentionMaps, compute_attention
from captioning.inference.captioner import Captioner
from captioning.inference.decoding import find_captions
from captioning.output.attention_figure import draw_overlays, explain_scale
from captioning.output.caption_formats import mark_unsure
from captioning.paths import find_model
from captioning.settings import WIDEST_BEAM, SearchSettings

_LOOPBACK = "127.0.0.1"
_OFFLINE = {
    "GRADIO_ANALYTICS_ENABLED": "False",  # neither reports nor checks for newer versions
    "NO_PROXY": "*",  # Gradio checks that its own page answers, which a proxy would prevent
    "no_proxy": "*",
}
_LARGEST_UPLOAD = 20 * 2**20  # bytes
_LARGEST_REQUEST = _LARGEST_UPLOAD + 2**16  # with its headers
_MAX_QUEUE_SIZE = 20  # photographs that wait for their captions; further ones are refused
_MAX_VISITORS = 20  # whose last photograph is kept, 2 MB each, so that the beam width can change

_NO_ANSWER = ("", None, None, "")  # no caption, captions, attention maps and unit
_MAX_CAPTIONS = 5  # further captions of a wide beam hardly differ
_TILE_SIZE = 400  # pixels of the longer side of an attention map

_FONTS = ("system-ui", "sans-serif")  # of this computer; Gradio would download those of its themes
_STYLE = """
.gradio-container .main { max-width: 72rem; }
#caption textarea { font-size: 1.6rem; font-weight: 600; }
#attention .grid-wrap { max-height: none; overflow: visible; }
"""


def serve_page(captioner: Captioner, port: int, open_browser: bool = False) -> None:
    """Serves the page until Ctrl-C raises KeyboardInterrupt. Deletes each photograph soon after it
    is captioned. Raises OSError if the port is in use."""
    _require_free_port(port)
    with TemporaryDirectory(prefix="captioning-") as folder:
        os.environ.update(_OFFLINE, GRADIO_TEMP_DIR=folder)
        uploads = Uploads(Path(folder))
        page = build_page(captioner, uploads)
        _, address, _ = page.launch(
            server_name=_LOOPBACK,
            server_port=port,
            max_file_size=_LARGEST_UPLOAD,
            app_kwargs=server_options(_LARGEST_REQUEST),
            state_session_capacity=_MAX_VISITORS,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            run_history=False,
            footer_links=[],
            theme=gradio.themes.Base(primary_hue="red", font=_FONTS, font_mono=_FONTS),
            css=_STYLE,
            quiet=True,
            prevent_thread_lock=True,
        )
        uploads.keep_present_files(page.temp_file_sets)
        try:
            print(f"The page is at {address} until you press Ctrl-C.", flush=True)
            if open_browser:
                webbrowser.open(address)
            while page.server.thread.is_alive():
                page.server.thread.join(timeout=1)  # without a timeout, Windows ignores Ctrl-C
                uploads.delete_old()
        finally:
            page.close(verbose=False)


def build_page(captioner: Captioner, uploads: Uploads) -> gradio.Blocks:
    """Builds the page from Gradio components, with the example photographs of the shipped model."""

    def answer_upload(upload: dict | None, beam_width: float | None) -> tuple:
        """Captions an upload, whose file may then be deleted. Also returns the photograph, to be
        kept."""
        if upload is None:
            return None, *_NO_ANSWER
        path = Path(upload["path"])
        try:
            photograph = open_photograph(captioner, path)
        finally:
            uploads.mark_answered(path)
        return photograph, *answer(photograph, beam_width)

    def answer_again(
        photograph: Photograph | None, beam_width: float | None, caption: str
    ) -> tuple:
        """Captions the kept photograph with another beam width."""
        if photograph is None and caption:
            gradio.Warning("Choose the photograph again: it is no longer kept.")
        return answer(photograph, beam_width)

    def answer(photograph: Photograph | None, beam_width: float | None) -> tuple:
        return caption_photograph(captioner, photograph, beam_width) if photograph else _NO_ANSWER

    examples = sorted(map(str, (find_model() / "examples").glob("*.jpg")))
    with gradio.Blocks(title="Caption generator") as page:
        gradio.Markdown(
            "# Caption generator\nDescribes a photograph in a sentence. It stays on this computer."
        )
        with gradio.Row():
            with gradio.Column():
                photograph = gradio.Image(
                    label="Photograph",
                    elem_id="photograph",
                    sources=["upload", "clipboard", "webcam"],
                    buttons=[],
                    height="26rem",
                )
            with gradio.Column():
                caption = gradio.Textbox(label="Caption", elem_id="caption", buttons=["copy"])
                captions = gradio.Dataframe(
                    label="Best captions",
                    elem_id="captions",
                    headers=["Caption", "Log-probability", "Confidence"],
                    datatype=["str", "number", "str"],
                    column_widths=["50%", "27%", "23%"],
                    wrap=True,
                    buttons=[],
                )
                beam_width = gradio.Slider(
                    minimum=1,
                    maximum=WIDEST_BEAM,
                    value=SearchSettings().beam_width,
                    step=1,
                    label="Beam width",
                    elem_id="beam-width",
                    info="Captions searched at a time; 1 is greedy search.",
                )
        if examples:
            gradio.Examples(examples, photograph, examples_per_page=len(examples))
        attention = gradio.Gallery(
            label="Attention of each word",
            elem_id="attention",
            columns=5,
            object_fit="contain",
            buttons=[],
        )
        unit = gradio.Markdown()
        kept = gradio.State()
        results = [caption, captions, attention, unit]
        options = {
            "trigger_mode": "always_last",
            "concurrency_id": "answers",  # one after the other, in the order of the queue
            "show_progress_on": caption,
            "api_visibility": "private",
        }
        photograph.change(
            answer_upload,
            [photograph, beam_width],
            [kept, *results],
            preprocess=False,  # or Gradio opens the photograph, with errors of its own
            **options,
        )
        beam_width.change(answer_again, [kept, beam_width, caption], results, **options)
    return page.queue(max_size=_MAX_QUEUE_SIZE)


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
    """Returns the best caption, rows of the best captions (five at most) with log-probability and
    confidence, a tile (attention map, label) for each word, and the unit of the maps."""
    if beam_width is not None:
        beam_width = min(max(round(beam_width), 1), WIDEST_BEAM)
    search = SearchSettings(beam_width)
    num_captions = min(search.beam_width, _MAX_CAPTIONS)
    decoder, features = captioner.decoder, photograph.features
    (captions,) = find_captions(decoder, features[None], search, num_captions)
    rows = [
        [caption.text, round(caption.log_prob, 2), _percent(caption.confidence)]
        for caption in captions
    ]
    best = mark_unsure(captions[0])
    try:
        attention = compute_attention(decoder, features, captions[0].text)
        overlays = draw_overlays(photograph.picture, attention)
    except UserError as error:  # a caption without words, or a feature map that is not square
        return best, rows, None, str(error)
    tiles = list(zip(overlays, _labels(attention), strict=True))
    return best, rows, tiles, explain_scale(attention)


def _percent(confidence: float | None) -> str:
    return "unknown" if confidence is None else f"{confidence:.0%}"


def _require_free_port(port: int) -> None:
    try:
        socket.create_server((_LOOPBACK, port)).close()
    except OSError as error:
        raise OSError(
            f"Expected a free port, got {port} ({os.strerror(error.errno)}). Name another with "
            "--port."
        ) from error


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
