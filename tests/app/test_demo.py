"""The demo page: its captions, the command that serves it, and the whole page in a browser."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Timer
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from captioning.app import cli, demo
from captioning.inference.attention import AttentionMaps
from captioning.inference.captioner import Captioner
from captioning.output.caption_formats import mark_unsure
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


@pytest.fixture
def warnings(monkeypatch):
    """The warnings that the page shows."""
    shown = []
    monkeypatch.setattr(demo.gradio, "Warning", lambda text, **_: shown.append(text))
    return shown


@pytest.fixture
def caption_on_page(captioner, warnings):
    """Captions a photograph as the page does. Returns the best caption, the rows of all captions,
    tiles and unit."""

    def caption_on_page(path, beam_width=3):
        photograph = demo.open_photograph(captioner, path)
        return demo.caption_photograph(captioner, photograph, beam_width)

    return caption_on_page


def test_a_photograph_gets_captions_with_log_probabilities_and_an_attention_map_a_word(
    caption_on_page, captioner, image_path, warnings
):
    best, rows, tiles, unit = caption_on_page(image_path)
    (captions,) = captioner.caption_batch([image_path], 3, SearchSettings(3))
    assert best == mark_unsure(captions[0])
    assert rows == [
        [caption.text, round(caption.log_prob, 2), f"{caption.confidence:.0%}"]
        for caption in captions
    ]
    assert [label.split(" (")[0] for _, label in tiles] == captions[0].text.split()
    assert {tile.size for tile, _ in tiles} == {Image.open(image_path).size}
    assert "cells of the feature map" in unit
    assert not warnings


@pytest.mark.parametrize(
    ("slider", "beam_width", "caption_count"),
    [(1, 1, 1), (4, 4, 4), (20, 20, 5), (3.6, 4, 4), (0, 1, 1), (1000, 100, 5), (None, 12, 5)],
)
def test_the_slider_sets_the_beam_width_and_at_most_five_captions_are_shown(
    caption_on_page, captioner, image_path, slider, beam_width, caption_count
):
    caption, rows, *_ = caption_on_page(image_path, slider)
    assert caption == mark_unsure(captioner.caption(image_path, SearchSettings(beam_width)))
    assert len(rows) == caption_count


def test_a_photograph_is_captioned_again_after_its_file_is_gone(
    captioner, image_path, tmp_path, caption_on_page
):
    shutil.copy(image_path, tmp_path / "a.jpg")
    photograph = demo.open_photograph(captioner, tmp_path / "a.jpg")
    (tmp_path / "a.jpg").unlink()
    caption, rows, tiles, _ = demo.caption_photograph(captioner, photograph, 4)
    expected = captioner.caption(image_path, SearchSettings(4))
    assert caption == mark_unsure(expected)
    assert (len(rows), len(tiles)) == (4, len(expected.text.split()))


def test_a_label_holds_the_word_and_the_place_of_its_attention(
    caption_on_page, image_path, monkeypatch
):
    weights = np.eye(9, dtype="float32")[[0, 4, 5, 7]]
    attention = AttentionMaps(("red", "circle", "on", "white"), weights, "attention")
    monkeypatch.setattr(demo, "compute_attention", lambda *_: attention)
    _, _, tiles, _ = caption_on_page(image_path)
    labels = ["red (top left)", "circle (middle)", "on (right)", "white (bottom)"]
    assert [label for _, label in tiles] == labels


def test_a_model_without_attention_maps_still_captions(
    caption_on_page, captioner, image_path, monkeypatch
):
    attention = AttentionMaps(("red",), np.ones((1, 6), "float32"), "attention")
    monkeypatch.setattr(demo, "compute_attention", lambda *_: attention)
    caption, _, tiles, unit = caption_on_page(image_path)
    assert caption == mark_unsure(captioner.caption(image_path, SearchSettings(3)))
    assert tiles is None
    assert "6 cells" in unit


def test_a_file_that_is_no_image_is_named_without_its_folder(captioner, warnings, tmp_path):
    broken = tmp_path / "<b>.jpg"
    broken.write_text("no image")
    assert demo.open_photograph(captioner, broken) is None
    assert warnings[0].startswith("&lt;b&gt;.jpg cannot be read as an image")
    assert str(tmp_path) not in warnings[0]


def test_the_help_names_the_address(capsys):
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "http://127.0.0.1:PORT (default 7860)" in text
    assert "--open" in text and "until you press Ctrl-C" in text


def test_a_port_in_use_is_one_line_on_stderr(tiny_root, capsys):
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["serve", "--root", str(tiny_root), "--port", str(port)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"got {port} (Address already in use)" in line and "--port" in line


def test_a_folder_without_a_model_is_one_line_on_stderr(tmp_path, capsys):
    assert cli.main(["serve", "--root", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "tokenizer.p" in line


def test_without_gradio_the_command_names_the_extra_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "captioning.app.demo", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert cli.main(["serve", "--root", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "gradio" in line and ".[demo]" in line


# Python runs this code at the start of the server and of its child processes. It records the hosts
# that they connect to or look up. It also handles Ctrl-C: tests that run in the background ignore
# the signal, and child processes inherit that.
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
        self._hosts_path = folder / "hosts.txt"
        (folder / "sitecustomize.py").write_text(WATCH.format(path=str(self._hosts_path)))
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
        timeout = Timer(120, self.process.kill)
        timeout.start()
        self.first_line = self.process.stdout.readline()
        timeout.cancel()

    @property
    def contacted_hosts(self):
        """The hosts that it connected to or looked up."""
        return set(self._hosts_path.read_text().split("\n")) - {""}

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
        "no-sandbox",  # Chromium refuses a sandbox to root
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
def open_page(server, browser):
    """Opens the page in a window of a given width. Returns a function that waits for an element."""

    def open_page(width):
        window = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
        browser.get(server.address)
        wait = WebDriverWait(browser, 60)
        return lambda selector: wait.until(
            lambda browser: browser.find_element(By.CSS_SELECTOR, selector)
        )

    return open_page


def requested_hosts(browser):
    """The hosts that the page has sent requests to since it was opened."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    urls = (
        urlsplit(message["params"]["request"]["url"])
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        and message["params"]["documentURL"] == browser.current_url
    )
    return {url.hostname for url in urls if url.scheme not in ("data", "blob")}


def wait_for_caption(browser, find, caption):
    """Waits for the caption, and for a loaded attention map for each of its words."""
    wait = WebDriverWait(browser, 60)
    wait.until(lambda _: find("#caption textarea").get_property("value") == mark_unsure(caption))
    find("#attention .gallery-item")
    maps = browser.find_elements(By.CSS_SELECTOR, "#attention .gallery-item img")
    assert [image.get_attribute("alt").split(" (")[0] for image in maps] == caption.text.split()
    wait.until(lambda _: all(int(image.get_property("naturalWidth")) for image in maps))


@pytest.mark.slow
def test_an_uploaded_photograph_is_captioned_beside_it(
    open_page, server, browser, captioner, image_path
):
    find = open_page(1200)
    find("#photograph input[type=file]").send_keys(str(image_path))
    wait_for_caption(browser, find, captioner.caption(image_path))
    photograph, caption = find("#photograph").rect, find("#caption").rect
    assert caption["x"] > photograph["x"] + photograph["width"]
    assert "Log-probability" in find("#captions").text

    find("#beam-width input[type=number]").send_keys(Keys.CONTROL, "a", Keys.NULL, "4")
    find("#captions [role=grid][aria-rowcount='5']")  # the header and four captions
    assert requested_hosts(browser) == server.contacted_hosts == {LOOPBACK}


@pytest.mark.slow
def test_an_example_in_a_narrow_window_is_captioned_below_it(open_page, server, browser, captioner):
    find = open_page(390)
    example = find("button.gallery-item img[src$='cat.jpg']")
    browser.execute_script("arguments[0].click()", example)
    wait_for_caption(browser, find, captioner.caption(ROOT / "examples" / "cat.jpg"))
    photograph, caption = find("#photograph").rect, find("#caption").rect
    assert caption["y"] > photograph["y"] + photograph["height"]
    page = find("html")
    assert page.get_property("scrollWidth") == page.get_property("clientWidth")  # fits the window
    assert requested_hosts(browser) == server.contacted_hosts == {LOOPBACK}


@pytest.mark.slow
def test_the_error_of_a_broken_file_replaces_the_caption(
    open_page, browser, captioner, image_path, tmp_path
):
    find = open_page(1200)
    find("#photograph input[type=file]").send_keys(str(image_path))
    wait_for_caption(browser, find, captioner.caption(image_path))
    (tmp_path / "broken.jpg").write_text("no image")
    find("#photograph input[type=file]").send_keys(str(tmp_path / "broken.jpg"))
    assert "broken.jpg cannot be read as an image" in find(".toast-body").text
    assert find("#caption textarea").get_property("value") == ""
    assert not browser.find_elements(By.CSS_SELECTOR, "#attention .gallery-item")


@pytest.mark.slow
def test_an_upload_of_more_than_20_megabytes_is_refused(server):
    def upload(*megabytes):
        files = [("files", ("a.jpg", b"\0" * (size * 2**20 - 1))) for size in megabytes]
        return httpx.post(f"{server.address}gradio_api/upload", files=files).status_code

    assert (upload(20), upload(21), upload(11, 11)) == (200, 413, 413)


def chunks():
    yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    for _ in range(22):
        yield bytes(2**20)
    yield b"\r\n--x--\r\n"


@pytest.mark.slow
def test_an_upload_of_unannounced_length_is_refused_too(server):
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    upload = httpx.post(f"{server.address}gradio_api/upload", content=chunks(), headers=headers)
    assert upload.status_code == 413


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", ".", "/", "???", "a\0b.jpg", "../../../a.jpg", "x" * 300])
def test_an_upload_with_an_odd_name_or_none_is_stored_or_refused(server, name):
    body = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    content = f"{body}photograph\r\n--x--\r\n".encode()
    upload = httpx.post(f"{server.address}gradio_api/upload", content=content, headers=headers)
    assert upload.status_code == 200
    assert Path(upload.json()[0]).is_relative_to(server.photographs)
    assert Path(upload.json()[0]).read_text() == "photograph"


@pytest.mark.slow
def test_an_upload_without_a_file_is_refused_with_the_reason(server):
    files = {"files": ("", b"a field of text, since httpx leaves out the empty name")}
    upload = httpx.post(f"{server.address}gradio_api/upload", files=files)
    assert (upload.status_code, upload.text) == (
        400,
        "Expected a photograph, got no file or one without a name.",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Host", "evil.example", 400),
        ("Host", "evil.example:{port}", 400),
        ("Host", "127.0.0.1.evil.example", 400),
        ("Host", "localhost:{port}", 200),
        ("Origin", "http://evil.example", 403),
        ("Origin", "http://127.0.0.1:1", 403),
        ("Origin", "https://127.0.0.1:{port}", 403),
        ("Origin", "null", 403),
        ("Origin", "http://127.0.0.1:{port}", 200),
    ],
)
def test_requests_of_other_sites_are_refused(server, header, value, status):
    headers = {header: value.format(port=urlsplit(server.address).port)}
    files = {"files": ("a.jpg", b"photograph")}
    upload = httpx.post(f"{server.address}gradio_api/upload", files=files, headers=headers)
    assert upload.status_code == status
    assert httpx.get(f"{server.address}config", headers=headers).status_code == status


def join_queue(server, path, session):
    """Asks for the caption of a file, as if it were uploaded."""
    upload = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
    body = {
        "data": [upload, SearchSettings().beam_width],
        "fn_index": 1,
        "session_hash": session,
    }  # 0 opens an example
    return httpx.post(f"{server.address}gradio_api/queue/join", json=body)


def ask(server, path):
    """Returns whether a file was captioned, and the values for the page."""
    session = secrets.token_hex(8)
    join_queue(server, path, session).raise_for_status()
    url, parameters = f"{server.address}gradio_api/queue/data", {"session_hash": session}
    with httpx.stream("GET", url, params=parameters, timeout=60) as lines:
        messages = (json.loads(line[5:]) for line in lines.iter_lines() if line.startswith("data:"))
        done = next(message for message in messages if message["msg"] == "process_completed")
    return done["success"], done["output"].get("data")


def upload(server, path):
    with path.open("rb") as file:
        response = httpx.post(f"{server.address}gradio_api/upload", files={"files": file})
    return Path(response.json()[0])


@pytest.mark.slow
def test_no_file_outside_the_upload_folder_can_be_read(server, captioner, image_path):
    for path in (image_path, ROOT / "examples" / "cat.jpg", "tokenizer.p", "/etc/passwd"):
        assert ask(server, path) == (False, None)
        assert httpx.get(f"{server.address}gradio_api/file={path}").status_code == 403
    is_captioned, (_, caption, _, tiles, _) = ask(server, upload(server, image_path))
    assert is_captioned
    expected = captioner.caption(image_path)
    assert caption == mark_unsure(expected)
    assert len(tiles) == len(expected.text.split())


@pytest.mark.slow
def test_a_full_queue_refuses_further_photographs_with_the_reason(server, tmp_path):
    Image.new("RGB", (7000, 7000)).save(tmp_path / "slow.png")
    path = upload(server, tmp_path / "slow.png")
    joined = [join_queue(server, path, secrets.token_hex(8)) for _ in range(30)]
    statuses = [response.status_code for response in joined]
    assert statuses[:20] == [200] * 20
    refused = [response for response in joined if response.status_code == 503]
    assert refused and statuses.count(200) + len(refused) == 30
    for response in refused:
        assert response.json()["detail"].startswith("Queue is full. Max size is 20")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is no signal there")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_server_contacts_no_other_host_and_deletes_the_photographs(
    tiny_root, image_path, tmp_path, end
):
    with Server(tiny_root, tmp_path) as server, image_path.open("rb") as file:
        assert server.first_line == f"The page is at {server.address} until you press Ctrl-C.\n"
        upload = httpx.post(f"{server.address}gradio_api/upload", files={"files": file})
        assert Path(upload.json()[0]).is_relative_to(server.photographs)
        server.process.send_signal(end)
        assert server.process.communicate(timeout=30) == ("", "")
        assert server.process.returncode == 0
        assert server.contacted_hosts == {LOOPBACK}
        assert not [path for path in server.photographs.rglob("*") if path.is_file()]
