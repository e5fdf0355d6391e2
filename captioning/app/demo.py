"""The demo page: a model in, a page on this computer's own address out, for who sits before it.

Nothing on it comes from elsewhere and nothing goes there. Not about what it says of a photograph:
see `captioning.app.answer`.
"""

import os
import socket
import webbrowser
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio
from PIL import ImageOps

from captioning.app.answer import INVITATION, answer, image_url
from captioning.data.images import open_image
from captioning.inference.captioner import Captioner
from captioning.output.attention_figure import INK
from captioning.output.page import DARK, LIGHT
from captioning.settings import WIDEST_BEAM, SearchSettings

_LOOPBACK = "127.0.0.1"
_OFFLINE = {
    "GRADIO_ANALYTICS_ENABLED": "False",  # no reports, no question for newer versions
    "NO_PROXY": "*",  # Gradio asks its own page whether it is there: nobody between them
    "no_proxy": "*",
}
_EXAMPLES = {
    path.name: str(path) for path in sorted((Path(__file__).parents[2] / "examples").glob("*.jpg"))
}
_THUMBNAIL = (200, 150)  # width and height in pixels: twice what the page shows
_STYLE = Path(__file__).with_name("demo.css")

_HEADER = """\
<h1>Caption generator</h1>
<p>Say in a sentence what a photograph shows. It stays on this computer.</p>
"""
_SAY_CHANGES = "element.setAttribute('aria-live', 'polite')"  # to who hears the page
_CHOOSE = """\
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("click", { name: button.value });
});
"""
# An image that is pasted goes where a file that is dropped goes.
_PASTE = """\
document.addEventListener("paste", (event) => {
  const input = document.querySelector("#photograph input[type=file]");
  if (!input || !event.clipboardData.files.length) return;
  input.files = event.clipboardData.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
});
"""


def serve_page(captioner: Captioner, port: int, open_browser: bool = False) -> None:
    """Serves the page until Ctrl-C, a KeyboardInterrupt; the photographs that it was given are
    deleted then. Raises OSError where the port cannot be had."""
    _refuse_port_in_use(port)
    with TemporaryDirectory(prefix="captioning-") as photographs:
        os.environ.update(_OFFLINE, GRADIO_TEMP_DIR=photographs)
        page = _build_page(captioner)
        _, address, _ = page.launch(
            server_name=_LOOPBACK,
            server_port=port,
            allowed_paths=list(_EXAMPLES.values()),
            share=False,
            ssr_mode=False,
            mcp_server=False,
            run_history=False,
            footer_links=[],
            theme=_theme(),
            css_paths=_STYLE,
            js=_PASTE,
            quiet=True,
            prevent_thread_lock=True,
        )
        try:
            print(f"The page is at {address} until Ctrl-C ends it.", flush=True)
            if open_browser:
                webbrowser.open(address)
            while page.server.thread.is_alive():
                page.server.thread.join(timeout=1)  # without, Windows hears no Ctrl-C
        finally:
            page.close(verbose=False)


def _build_page(captioner: Captioner) -> gradio.Blocks:
    """The page: a photograph and a beam width on it, and what `answer` says of them."""
    with gradio.Blocks(title="Caption generator") as page:
        gradio.HTML(_HEADER, elem_id="header")
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
                caption = gradio.HTML(INVITATION, elem_id="caption", js_on_load=_SAY_CHANGES)
                beam_width = gradio.Slider(
                    minimum=1,
                    maximum=WIDEST_BEAM,
                    value=SearchSettings.beam_width,
                    step=1,
                    label="Beam width",
                    elem_id="beam-width",
                    info="Sentences followed at a time; 1 is greedy search.",
                )
        examples = gradio.HTML(_examples(), elem_id="examples", js_on_load=_CHOOSE)
        heat_maps = gradio.HTML(elem_id="heat-maps")

        examples.click(_chosen, None, photograph, show_progress="hidden", api_visibility="private")
        gradio.on(
            [photograph.change, beam_width.change],
            partial(_answer_sent, captioner),
            [photograph, beam_width],
            [caption, heat_maps],
            preprocess=False,
            trigger_mode="always_last",
            show_progress_on=caption,
            api_visibility="private",
        )
    return page


def _answer_sent(
    captioner: Captioner, upload: dict | None, beam_width: float | None
) -> tuple[str, str]:
    """`answer` to what the page sends, as it is: whatever there is to say of a file is said by
    `captioning.data.images`, where Gradio would convert an image, and fall over what is none."""
    return answer(captioner, upload and upload["path"], beam_width)


def _examples() -> str:
    """The photographs of `examples/` as buttons, each with the name of its file as value."""
    buttons = "".join(
        f'<button value="{name}"><img src="{_thumbnail(path)}" '
        f'alt="{Path(name).stem.replace("_", " ")}"></button>'
        for name, path in _EXAMPLES.items()
    )
    return f'<h2>Examples</h2><div class="strip">{buttons}</div>'


def _thumbnail(path: str) -> str:
    return image_url(ImageOps.fit(open_image(path), _THUMBNAIL))


def _chosen(event: gradio.EventData) -> str | None:
    """The file of the example that was clicked; the page may name any, and gets these alone."""
    return _EXAMPLES.get(event.name)


def _theme() -> gradio.themes.Base:
    """The look of the other pages (see `captioning.output.page`). Fonts are names only, of what the
    computer has: those of Gradio's themes come from elsewhere."""
    return gradio.themes.Base(
        primary_hue="red",
        neutral_hue="stone",
        font=("system-ui", "sans-serif"),
        font_mono=("monospace",),
    ).set(
        body_background_fill=LIGHT["page"],
        body_background_fill_dark=DARK["page"],
        body_text_color=LIGHT["text"],
        body_text_color_dark=DARK["text"],
        body_text_color_subdued=LIGHT["quiet"],
        body_text_color_subdued_dark=DARK["quiet"],
        block_background_fill=LIGHT["card"],
        block_background_fill_dark=DARK["card"],
        block_radius="0.6rem",
        slider_color=INK,
        slider_color_dark=INK,
    )


def _refuse_port_in_use(port: int) -> None:
    try:
        socket.create_server((_LOOPBACK, port)).close()
    except OSError as error:
        raise OSError(
            f"The page cannot be served at port {port} ({os.strerror(error.errno)}). Name another "
            "with --port."
        ) from error
