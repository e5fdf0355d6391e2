"""Refuses requests to the demo page that another web site makes, or that are too large.

Any page that is open in a browser can send requests to a server on the same computer, under its
address or, by DNS rebinding, under a name of its own. The headers Origin and Host tell.
"""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")


def server_options(max_bytes: int) -> dict:
    """Returns the arguments of FastAPI with which it answers only requests of its own pages, whose
    body has at most `max_bytes`."""
    return {
        "middleware": [
            Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False),
            Middleware(_OwnRequests, max_bytes=max_bytes),
        ],
        "exception_handlers": {TypeError: _refuse_upload_without_file},
    }


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
