"""Serves the demo page, which captions a photograph and shows the attention of each word.

Only this computer can open the page. It loads nothing from the network and sends nothing to it.
"""

import os
import socket
import webbrowser
from functools import partial
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio
import numpy as np

from captioning.data.images import open_image
from captioning.errors import UserError
from captioning.inference.attention import AttentionMaps
from captioning.inference.captioner import Captioner
from captioning.output.attention_figure import draw_overlays, explain_scale
from captioning.paths import find_model
from captioning.settings import WIDEST_BEAM, SearchSettings

_LOOPBACK = "127.0.0.1"
_OFFLINE = {
    "GRADIO_ANALYTICS_ENABLED": "False",  # neither reports nor checks for newer versions
    "NO_PROXY": "*",  # Gradio checks that its own page answers, which a proxy would prevent
    "no_proxy": "*",
}
_LARGEST_UPLOAD = "20mb"
_MAX_QUEUE_SIZE = 20  # photographs that wait for their captions
_MAX_CAPTIONS = 5  # further captions of a wide beam hardly differ
_TILE_SIZE = 400  # pixels of the longer side of an attention map

_EMPTY = ("", None, None, "")  # no caption, captions, attention maps and unit

_FONTS = ("system-ui", "sans-serif")  # of this computer; Gradio would download those of its themes
_STYLE = """
.gradio-container .main { max-width: 72rem; }
#caption textarea { font-size: 1.6rem; font-weight: 600; }
#attention .grid-wrap { max-height: none; overflow: visible; }
"""


def serve_page(captioner: Captioner, port: int, open_browser: bool = False) -> None:
    """Serves the page until Ctrl-C raises KeyboardInterrupt, and then deletes the uploaded
    photographs. Raises OSError if the port is in use."""
    _require_free_port(port)
    with TemporaryDirectory(prefix="captioning-") as uploads:
        os.environ.update(_OFFLINE, GRADIO_TEMP_DIR=uploads)
        page = build_page(captioner)
        _, address, _ = page.launch(
            server_name=_LOOPBACK,
            server_port=port,
            max_file_size=_LARGEST_UPLOAD,
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
        try:
            print(f"The page is at {address} until you press Ctrl-C.", flush=True)
            if open_browser:
                webbrowser.open(address)
            while page.server.thread.is_alive():
                page.server.thread.join(timeout=1)  # without a timeout, Windows ignores Ctrl-C
        finally:
            page.close(verbose=False)


def build_page(captioner: Captioner) -> gradio.Blocks:
    """Builds the page from Gradio components, with the example photographs of the shipped model."""
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
                    label="All captions found",
                    elem_id="captions",
                    headers=["Caption", "Log-probability"],
                    datatype=["str", "number"],
                    column_widths=["67%", "33%"],
                    wrap=True,
                    buttons=[],
                )
                beam_width = gradio.Slider(
                    minimum=1,
                    maximum=WIDEST_BEAM,
                    value=SearchSettings.beam_width,
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
        gradio.on(
            [photograph.change, beam_width.change],
            partial(caption_photograph, captioner),
            [photograph, beam_width],
            [caption, captions, attention, unit],
            preprocess=False,  # or Gradio opens the photograph, with errors of its own
            trigger_mode="always_last",
            show_progress_on=caption,
            api_visibility="private",
        )
    return page.queue(max_size=_MAX_QUEUE_SIZE)


def caption_photograph(
    captioner: Captioner, upload: dict | None, beam_width: float | None
) -> tuple:
    """Captions a photograph for the page.

    Returns the best caption, rows of all captions and their log-probabilities, a tile (attention
    map, label) for each word, and the unit of the maps. If the file cannot be read, the page shows
    the error.
    """
    if upload is None:
        return _EMPTY
    path = upload["path"]
    beam_width = SearchSettings.beam_width if beam_width is None else round(beam_width)
    search = SearchSettings(min(max(beam_width, 1), WIDEST_BEAM))
    try:
        num_captions = min(search.beam_width, _MAX_CAPTIONS)
        (captions,) = captioner.caption_batch([path], num_captions, search)
        photograph = open_image(path, at_least=_TILE_SIZE)
    except (OSError, UserError) as error:
        message = escape(str(error).replace(path, Path(path).name))
        gradio.Warning(message, duration=None)
        return _EMPTY
    rows = [[caption.text, round(caption.log_prob, 2)] for caption in captions]
    try:
        attention = captioner.attention(path, captions[0])
        photograph.thumbnail((_TILE_SIZE, _TILE_SIZE))
        overlays = draw_overlays(photograph, attention)
    except UserError as error:  # a feature map that is no square cannot be drawn
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


def _require_free_port(port: int) -> None:
    try:
        socket.create_server((_LOOPBACK, port)).close()
    except OSError as error:
        raise OSError(
            f"Expected a free port, got {port} ({os.strerror(error.errno)}). Name another with "
            "--port."
        ) from error
