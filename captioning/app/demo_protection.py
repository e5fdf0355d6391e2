"""Protects the demo page and its visitors: refuses requests that another web site makes or that are
too large, and deletes photographs soon after they have been captioned.

Any page that is open in a browser can send requests to a server on the same computer, under its
address or, by DNS rebinding, under a name of its own. The headers Origin and Host show it.
"""

import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOSTS = ("127.0.0.1", "localhost")

# Seconds after which a file is deleted: long enough for the browser to load it and, in a long
# queue, for a photograph to wait for its turn. They count from the upload.
ANSWERED_SECONDS = 10  # for a photograph that has been captioned
MAX_SECONDS = 120  # for all other files


def server_options(max_bytes: int) -> dict:
    """Returns the arguments of FastAPI with which it answers only requests of its own pages, whose
    body has at most `max_bytes`."""
    return {
        "middleware": [
            Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS, www_redirect=False),
            Middleware(_OwnRequests, max_bytes=max_bytes),
        ],
        "exception_handlers": {TypeError: _refuse_upload_without_file},
    }


class Uploads:
    """The folder of the page's files: uploaded photographs, and attention maps on their way to the
    browser. Deletes them after some time, except the examples of the page."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._kept: set[Path] = set()
        self._answered: set[Path] = set()
        self._gradio_files: Collection[set[str]] = ()

    def keep_present_files(self, gradio_files: Collection[set[str]] = ()) -> None:
        """Keeps what is in the folder now. `gradio_files`: the sets in which Gradio remembers
        files; a deleted file is removed from them as well."""
        self._kept = set(self._folder.rglob("*"))
        self._gradio_files = gradio_files

    def mark_answered(self, path: Path) -> None:
        """Marks a photograph that has been captioned. It is not deleted at once: the browser may
        still load it, or another visitor may have uploaded the same one."""
        if path not in self._kept:
            self._answered.add(path)

    def delete_old(self) -> None:
        """Deletes the files and empty folders that are older than the seconds above."""
        now = time.time()
        for folder, _, names in os.walk(self._folder, topdown=False):
            for path in [*(Path(folder, name) for name in names), Path(folder)]:
                seconds = ANSWERED_SECONDS if path in self._answered else MAX_SECONDS
                if path not in self._kept and path != self._folder:
                    with suppress(OSError):  # gone already, or a folder that is not empty
                        if now - path.stat().st_mtime > seconds:
                            self._delete(path)

    def _delete(self, path: Path) -> None:
        path.rmdir() if path.is_dir() else path.unlink()
        self._answered.discard(path)
        for remembered in self._gradio_files:
            remembered.discard(str(path))


class _OwnRequests:
    def __init__(self, app: ASGIApp, max_bytes: int):
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin not in (None, f"http://{headers['host']}"):
            refusal = PlainTextResponse(
                f"Expected a request of this page, got one of {origin}.", 403
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, self._limited(receive), send)

    def _limited(self, receive: Receive) -> Receive:
        """Receives at most `max_bytes` of the body, whatever length its header announces."""
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(413, f"Expected at most {self._max_bytes:,} bytes, got more.")
            return message

        return receive_limited


async def _refuse_upload_without_file(request: Request, error: Exception) -> Response:
    """Gradio raises a TypeError for a field of text in the place of a file."""
    if not request.url.path.endswith("/upload"):
        raise error
    return PlainTextResponse("Expected a photograph, got no file or one without a name.", 400)
