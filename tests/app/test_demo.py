"""The demo page: what it says, the command that serves it, and the whole of it in a browser."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from threading import Timer
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from gradio import EventData
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from captioning.app import cli as command
from captioning.app import demo
from captioning.app.answer import answer
from captioning.inference.attention import AttentionMaps
from captioning.inference.captioner import Captioner
from captioning.inference.networks import Encoder
from captioning.paths import Paths
from captioning.settings import SearchSettings

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"


@pytest.fixture(scope="module")
def captioner(tiny_root):
    return Captioner.load(tiny_root)


@pytest.fixture(scope="module")
def image_path(tiny_root):
    return min(Paths(tiny_root).images.glob("*.jpg"))


class Piece(HTMLParser):
    """A piece of the page: the texts of its elements, by tag, and the `alt` texts of its images."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.alts, self._open = {}, [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.alts.append(dict(attributes)["alt"])
        else:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self._open[-1], []).append(data)


def test_an_answer_is_the_caption_its_alternatives_and_a_heat_map_a_word(captioner, image_path):
    said, seen = map(Piece, answer(captioner, str(image_path), 3))
    (found,) = captioner.caption_batch([image_path], num_captions=3)
    assert said.texts["p"][0] == found[0].text
    assert said.texts["td"] == [
        text for one in found for text in (one.text, f"{one.log_prob:.2f}".replace("-", "−"))
    ]
    assert "seconds" in said.texts["p"][-1]
    assert seen.texts["figcaption"] == found[0].text.split()
    assert len(seen.alts) == len(found[0].text.split()) + 1  # and the key to the colours


def test_a_narrow_beam_has_no_alternatives_and_of_a_wide_one_five_are_shown(captioner, image_path):
    for beam_width, shown in ((1, 1), (4, 4), (20, 5)):
        said = Piece(answer(captioner, str(image_path), beam_width)[0])
        best = captioner.caption(image_path, SearchSettings(beam_width))
        assert said.texts["p"][0] == best.text
        assert len(said.texts["td"]) == 2 * shown
        assert ("no alternatives" in said.texts["p"][1]) == (beam_width == 1)


def test_of_a_beam_width_that_is_none_the_nearest_is_taken(captioner, image_path):
    for sent, taken in ((3.6, 4), (1.2, 1), (0, 1), (1000, 100), (None, 3)):
        said, expected = (
            Piece(answer(captioner, str(image_path), width)[0]) for width in (sent, taken)
        )
        assert said.texts["td"] == expected.texts["td"]
        assert said.texts["p"][1] == expected.texts["p"][1]


def test_a_rotated_photograph_is_captioned_as_everywhere_else(captioner, image_path, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8  # to be turned by a quarter
    with Image.open(image_path) as image:
        image.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "a.png", exif=exif)
    said, _ = answer(captioner, str(tmp_path / "a.png"), 3)
    assert Piece(said).texts["p"][0] == captioner.caption(tmp_path / "a.png").text


def test_a_large_photograph_is_seen_as_everywhere_else(
    captioner, image_path, tmp_path, monkeypatch
):
    """12 megapixels, which are decoded at a fraction of their size."""
    with Image.open(image_path) as drawing:
        drawing.resize((4000, 3000)).save(tmp_path / "large.jpg")
    seen, see = [], Encoder.__call__

    def watched(encoder, images):
        seen.append(see(encoder, images))
        return seen[-1]

    monkeypatch.setattr(Encoder, "__call__", watched)
    said, _ = answer(captioner, str(tmp_path / "large.jpg"), 3)
    assert Piece(said).texts["p"][0] == captioner.caption(tmp_path / "large.jpg").text
    on_page, elsewhere = seen
    np.testing.assert_array_equal(on_page, elsewhere)


def test_alt_texts_say_where_a_word_looked(captioner, image_path, monkeypatch):
    gaze = AttentionMaps(("red", "circle"), np.eye(9, dtype="float32")[[0, 4]], "attention")
    monkeypatch.setattr("captioning.app.answer.compute_attention", lambda *_: gaze)
    _, seen = answer(captioner, str(image_path), 3)
    assert Piece(seen).alts[:2] == [
        "red: looked most at the upper left of the photograph",
        "circle: looked most at the middle of the photograph",
    ]


def test_a_model_without_heat_maps_still_captions(captioner, image_path, monkeypatch):
    gaze = AttentionMaps(("red",), np.ones((1, 6), "float32"), "attention")
    monkeypatch.setattr("captioning.app.answer.compute_attention", lambda *_: gaze)
    said, seen = answer(captioner, str(image_path), 3)
    assert Piece(said).texts["p"][0] == captioner.caption(image_path).text
    assert "got 6 cells" in seen


def test_a_file_that_is_no_image_is_named_without_its_folder(captioner, tmp_path):
    broken = tmp_path / "<b>.jpg"
    broken.write_text("no image")
    said, seen = answer(captioner, str(broken), 3)
    assert said.startswith('<p role="alert">&lt;b&gt;.jpg cannot be read as an image')
    assert str(tmp_path) not in said
    assert seen == ""


def test_without_a_photograph_the_page_asks_for_one(captioner):
    said, seen = answer(captioner, None, 3)
    assert "choose an example" in said
    assert seen == ""


def test_the_page_may_choose_an_example_and_no_other_file():
    def chosen(name):
        return demo._chosen(EventData(None, {"name": name}))

    assert chosen("cat.jpg") == str(ROOT / "examples" / "cat.jpg")
    for name in ("..", ".", "", "/etc/passwd", "CREDITS.md", "../examples/cat.jpg"):
        assert chosen(name) is None


def test_the_help_names_the_address(capsys):
    with pytest.raises(SystemExit):
        command.main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "http://127.0.0.1:PORT (default 7860)" in text
    assert "--open" in text and "until Ctrl-C" in text


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_a_port_that_is_none_is_refused(port, capsys):
    with pytest.raises(SystemExit):
        command.main(["serve", f"--port={port}"])
    assert f"wanted a port from 1 to 65535, received {port}" in capsys.readouterr().err


def test_a_port_in_use_is_one_line_on_stderr(tiny_root, capsys):
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        assert command.main(["serve", "--root", str(tiny_root), "--port", str(port)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"port {port} (Address already in use)" in line and "--port" in line


def test_a_folder_without_a_model_is_one_line_on_stderr(tmp_path, capsys):
    assert command.main(["serve", "--root", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "tokenizer.p" in line


def test_without_gradio_the_command_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "captioning.app.demo", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert command.main(["serve", "--root", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "gradio" in line and "./[demo]" in line


# What Python runs at the start of the server, and of each process that it starts: it writes down
# whom they connect to, and whose address they ask for. Where the tests themselves run in the
# background, Ctrl-C is ignored, and inherited so: it is heard again.
WATCH = """\
import signal
import sys

signal.signal(signal.SIGINT, signal.default_int_handler)

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments["connect" in event or "sendto" in event]
        with open({path!r}, "a") as file:
            print(host[0] if isinstance(host, tuple) else host, file=file)

sys.addaudithook(watch)
"""


class Server:
    """`python -m captioning serve` at a free port, with the tiny world's model."""

    def __init__(self, root, folder):
        self.photographs = folder / "photographs"
        self.photographs.mkdir()
        self._asked = folder / "asked.txt"
        (folder / "sitecustomize.py").write_text(WATCH.format(path=str(self._asked)))
        with socket.create_server((LOOPBACK, 0)) as free:
            port = str(free.getsockname()[1])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "captioning", "serve", "--root", root, "--port", port],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(folder), "TMPDIR": str(self.photographs)},
        )
        self.address = f"http://{LOOPBACK}:{port}/"
        too_late = Timer(120, self.process.kill)
        too_late.start()
        self.said = self.process.stdout.readline()
        too_late.cancel()

    @property
    def asked(self):
        """The hosts that it wanted to reach."""
        return set(self._asked.read_text().split("\n")) - {""}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def server(tiny_root, tmp_path_factory):
    with Server(tiny_root, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in paths:
        pytest.skip("needs chromium: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    for option in (
        "headless=new",
        "no-sandbox",  # which root may not have
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "no-first-run",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(f"--{option}")
    with webdriver.Chrome(options, webdriver.ChromeService(paths[1])) as browser:
        yield browser


@pytest.fixture
def opened(server, browser):
    """Opens the page in a window of a width; what gives the element of a selector, once there."""

    def opened(width):
        window = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
        browser.get(server.address)
        wait = WebDriverWait(browser, 60)
        return lambda selector: wait.until(
            lambda browser: browser.find_element(By.CSS_SELECTOR, selector)
        )

    return opened


def requested_hosts(browser):
    """Whom the page asked for something since it was opened; what lies in it is no request."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    urls = (
        urlsplit(message["params"]["request"]["url"])
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        and message["params"]["documentURL"] == browser.current_url
    )
    return {url.hostname for url in urls if url.scheme not in ("data", "blob")}


def check_answer(browser, find, caption):
    """The page shows this caption, and a heat map for each of its words."""
    assert find("#caption .caption").text == caption
    find("#heat-maps figure")
    maps = browser.find_elements(By.CSS_SELECTOR, "#heat-maps figure")
    assert [each.text for each in maps] == caption.split()
    for image in browser.find_elements(By.CSS_SELECTOR, "#heat-maps figure img"):
        assert int(image.get_property("naturalWidth")) > 0


def test_a_photograph_dropped_in_a_wide_window_is_captioned_beside_it(
    opened, server, browser, captioner, image_path
):
    find = opened(1200)
    find("input[type=file]").send_keys(str(image_path))
    check_answer(browser, find, captioner.caption(image_path).text)
    photograph, caption = find("#photograph").rect, find("#caption").rect
    assert caption["x"] > photograph["x"] + photograph["width"]
    assert requested_hosts(browser) == server.asked == {LOOPBACK}


def test_an_example_chosen_in_a_narrow_window_is_captioned_below_it(
    opened, server, browser, captioner
):
    find = opened(390)
    find("button[value='cat.jpg']").click()
    check_answer(browser, find, captioner.caption(ROOT / "examples" / "cat.jpg").text)
    photograph, caption = find("#photograph").rect, find("#caption").rect
    assert caption["y"] > photograph["y"] + photograph["height"]
    page = find("html")
    assert page.get_property("scrollWidth") == page.get_property("clientWidth")  # nothing beside it
    assert requested_hosts(browser) == server.asked == {LOOPBACK}


def test_a_beam_width_between_two_that_is_typed_is_rounded(opened):
    find = opened(1200)
    find("button[value='cat.jpg']").click()
    find("#caption tbody tr:last-child:nth-child(3)")
    find("#beam-width input[type=number]").send_keys(Keys.CONTROL, "a", Keys.NULL, "3.6")
    find("#caption tbody tr:last-child:nth-child(4)")


PASTE = """
const [url, done] = arguments;
fetch(url).then((response) => response.blob()).then((image) => {
  const clipboardData = new DataTransfer();
  clipboardData.items.add(new File([image], "pasted.jpg", { type: image.type }));
  document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
  done();
});
"""


def test_an_image_that_is_pasted_takes_the_place_of_another(opened, browser, captioner, tmp_path):
    find = opened(1200)
    find("button[value='cat.jpg']").click()
    find("#caption .caption")
    url = find("button[value='breaking_wave.jpg'] img").get_attribute("src")
    browser.execute_async_script(PASTE, url)
    (tmp_path / "pasted.jpg").write_bytes(b64decode(url.partition(",")[2]))
    find("#photograph img[src$='pasted.jpg']")
    log_prob = f"{captioner.caption(tmp_path / 'pasted.jpg').log_prob:.2f}".replace("-", "−")
    wait = WebDriverWait(browser, 60, ignored_exceptions=[StaleElementReferenceException])
    wait.until(lambda _: find("#caption td + td").text == log_prob)


def test_a_broken_file_is_explained_on_the_page(opened, tmp_path):
    (tmp_path / "broken.jpg").write_text("no image")
    find = opened(1200)
    find("input[type=file]").send_keys(str(tmp_path / "broken.jpg"))
    assert find("#caption [role=alert]").text.startswith("broken.jpg cannot be read as an image")


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is no signal there")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_server_reaches_for_nobody_and_ends_without_a_trace(
    tiny_root, image_path, tmp_path, end
):
    with Server(tiny_root, tmp_path) as server, image_path.open("rb") as file:
        assert server.said == f"The page is at {server.address} until Ctrl-C ends it.\n"
        upload = httpx.post(f"{server.address}gradio_api/upload", files={"files": file})
        assert Path(upload.json()[0]).is_relative_to(server.photographs)
        server.process.send_signal(end)
        assert server.process.communicate(timeout=30) == ("", "")
        assert server.process.returncode == 0
        assert server.asked == {LOOPBACK}
        assert not [path for path in server.photographs.rglob("*") if path.is_file()]
