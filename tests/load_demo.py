"""Puts load on the demo page: `python -m tests.load_demo --clients 50 --seconds 600`.

Every client opens the page as a new visitor, uploads a photograph, asks for its caption, and begins
again. Some photographs are damaged. Every request must be answered, or refused with a reason; the
server's memory must not grow after the first fifth of the time; no uploaded file may be left.
Prints the counts, and returns 1 if something else happened. Needs Linux, for /proc.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from captioning.app.demo_protection import MAX_SECONDS

ROOT = Path(__file__).parents[1]
MAX_GROWTH = 0.1  # of the memory, after the warm-up
WARM_UP = 0.2  # of the time


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load_demo", description=__doc__)
    parser.add_argument("--clients", type=int, default=50, metavar="N")
    parser.add_argument("--seconds", type=float, default=600, metavar="N")
    parser.add_argument("--port", type=int, default=7870, metavar="PORT")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "captioning", "serve", "--port", str(options.port)]
        environment = os.environ | {"TMPDIR": folder}
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        address = re.search(r"http\S+/", server.stdout.readline())[0]
        try:
            before = count_files(folder)
            ends, memory = asyncio.run(load(address, server.pid, options.clients, options.seconds))
            time.sleep(MAX_SECONDS + 5)
            after = count_files(folder)
        finally:
            server.terminate()
            _, errors = server.communicate(timeout=60)
        left = count_files(folder)
    warm = memory[int(WARM_UP * len(memory)) :]
    growth = max(warm[-len(warm) // 4 :]) / max(warm[: len(warm) // 4]) - 1
    print(json.dumps({end: ends[end] for end in sorted(ends)}, indent=1))
    print(
        f"memory {warm[0] / 1e6:,.0f} MB after the warm-up, {memory[-1] / 1e6:,.0f} MB at the end"
    )
    print(f"growth {growth:.1%}; files {before} before, {after} after, {left} at the end")
    print(f"{errors.count('Traceback')} tracebacks of the server")
    bad = [end for end in ends if not end.startswith(("answered", "refused"))]
    return int(bool(bad) or growth > MAX_GROWTH or after > before or left > 0 or bool(errors))


async def load(
    address: str, server: int, clients: int, seconds: float
) -> tuple[Counter[str], list[int]]:
    """Returns how the requests ended, and the memory of the server in bytes, second by second."""
    end = time.monotonic() + seconds
    ends: Counter[str] = Counter()
    memory = []
    limits = httpx.Limits(max_connections=None, keepalive_expiry=2)  # the server closes after 5 s
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as http:
        visits = [asyncio.create_task(visit(http, number, end, ends)) for number in range(clients)]
        while any(not task.done() for task in visits):
            memory.append(resident_bytes(server))
            await asyncio.sleep(1)
        await asyncio.gather(*visits)
    return ends, memory


async def visit(http: httpx.AsyncClient, number: int, end: float, ends: Counter[str]) -> None:
    """Asks for captions again and again, each time as another visitor. Counts the `ends`."""
    random = np.random.default_rng(number)
    while time.monotonic() < end:
        try:
            ends[await ask(http, random)] += 1
        except Exception as error:
            ends[f"failed: {type(error).__name__} {error}"[:200]] += 1
        await asyncio.sleep(random.random())


async def ask(http: httpx.AsyncClient, random: np.random.Generator) -> str:
    """Opens the page, uploads a photograph and asks for its caption. Returns how that ended."""
    session = random.bytes(8).hex()
    (await http.get("")).raise_for_status()
    config = (await http.get("config")).raise_for_status().json()
    (event,) = (entry for entry in config["dependencies"] if entry["api_name"] == "answer_upload")
    is_whole = random.integers(10) > 0
    files = {"files": ("photo.jpg", photograph(random)[: None if is_whole else 1000])}
    (path,) = (await http.post("gradio_api/upload", files=files)).raise_for_status().json()
    upload = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = {"data": [upload, 3], "fn_index": event["id"], "session_hash": session}
    joined = await http.post("gradio_api/queue/join", json=body)
    if joined.status_code == 503:
        return f"refused: {joined.json()['detail'].partition('.')[0]}"
    joined.raise_for_status()
    parameters = {"session_hash": session}
    warnings = []
    async with http.stream("GET", "gradio_api/queue/data", params=parameters) as messages:
        async for line in messages.aiter_lines():
            message = json.loads(line.removeprefix("data:")) if line else {}
            if message.get("msg") == "log":
                warnings.append(message["log"])
            if message.get("msg") == "process_completed":
                break
    if not message["success"]:
        return f"failed: {message['output']}"
    _, caption, _, tiles, _ = message["output"]["data"]
    if not is_whole:
        return "answered: the photograph is damaged" if warnings else "failed: no warning"
    for tile in tiles:
        (await http.get(tile["image"]["url"])).raise_for_status()
    return "answered: a caption" if caption else f"failed: {warnings}"


def photograph(random: np.random.Generator) -> bytes:
    """A JPEG file that is like no other, of about 300 kB."""
    coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype="uint8"))
    file = BytesIO()
    coarse.resize((1600, 1200), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def count_files(folder: str) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def resident_bytes(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status)[1])


if __name__ == "__main__":
    sys.exit(main())
