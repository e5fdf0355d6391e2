"""The model cache: compiled networks, kept in the user's cache folder from one start of the program
to the next. Compiling takes most of a start; importing a compiled network takes a third of that.

OpenVINO has a cache of its own (`CACHE_DIR`), but it writes its files in place and does not notice
damaged weights. Here a file appears whole or not at all, and a damaged one is replaced. Any number
of processes may share the folder and be killed at any time.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from weakref import finalize

from captioning.files import write_atomically
from captioning.inference.network_files import parse_network, read_network_files
from captioning.inference.openvino_runtime import (
    Network,
    compile_network,
    compile_options,
    core,
    damage_as_user_error,
    openvino,
)

MAX_BYTES = 250_000_000  # of all files together; the networks of the shipped model take 33 MB

# OpenVINO stores the instruction set in each compiled network as well, and imports no other.
_DEVICE_PROPERTIES = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")

_DIGEST = hashlib.sha256
_DIGEST_SIZE = _DIGEST().digest_size
# Names of the files, and of those that a killed process had not finished.
_PATTERN = "[0-9a-f]" * 2 * _DIGEST_SIZE + ".network*"


def load_network(
    path: Path,
    precision: str = "f32",
    cache: Path | None = None,
    check: Callable[[openvino.Model, Path], None] | None = None,
) -> tuple[openvino.Model, Network]:
    """Reads an exported network, `path` (.xml) and the .bin file beside it, and compiles it, or
    imports it from the folder `cache` if it was compiled before. The results are the same to the
    last bit. Without a folder, and where the folder cannot be written, it compiles every time.

    Returns the network as it was read, and as it runs. `precision`: see
    `openvino_runtime.compile_options`. `check` may refuse the network before it is compiled. Raises
    FileNotFoundError if the network is missing and UserError if it is damaged.
    """
    xml, weights = read_network_files(path)
    network = parse_network(path, xml, weights)
    if check:
        check(network, path)
    options = compile_options(precision)
    cached = cache and cache / f"{_key(xml, weights, options)}.network"
    if cached and (imported := _read(cached, options)):
        return network, Network(imported, path)
    with damage_as_user_error(path):
        compiled = compile_network(network, precision)
    run = Network(compiled, path)
    if cached:
        finalize(run, _write, cached, compiled)  # after use, or at exit: no caption waits for it
    return network, run


def clear_cache(cache: Path) -> tuple[int, int]:
    """Deletes the networks in the folder `cache`, and the folder if nothing else is in it. Returns
    their number and their bytes."""
    networks, size = 0, 0
    for path in cache.glob(_PATTERN):
        with suppress(FileNotFoundError):  # another process has renamed or deleted it
            network_size = path.stat().st_size
            path.unlink()
            networks, size = networks + 1, size + network_size
    with suppress(OSError):  # other files, or no folder
        cache.rmdir()
    return networks, size


def _key(xml: bytes, weights: bytes, options: dict[str, str]) -> str:
    """Returns a digest, another one for each network, version of OpenVINO, processor and option."""
    device = [core().get_property("CPU", name) for name in _DEVICE_PROPERTIES]
    digest = _DIGEST(repr((openvino.get_version(), device, options, len(xml))).encode())
    digest.update(xml)
    digest.update(weights)
    return digest.hexdigest()


def _read(path: Path, options: dict[str, str]) -> openvino.CompiledModel | None:
    """Returns the compiled network in a file; None if there is none, or one that cannot be used."""
    try:
        with path.open("rb") as file:
            digest, exported = file.read(_DIGEST_SIZE), file.read()
    except OSError:
        return None
    if digest != _DIGEST(exported).digest():
        return None
    try:
        return core().import_model(exported, "CPU", options)
    except RuntimeError:  # compiled for another processor of the same name
        return None


def _write(path: Path, compiled: openvino.CompiledModel) -> None:
    with suppress(OSError, RuntimeError, MemoryError):  # captions do not depend on the cache
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        exported = compiled.export_model().getvalue()
        with write_atomically(path, shared=True) as file:
            file.write(_DIGEST(exported).digest())
            file.write(exported)
        _delete_oldest(path.parent)


def _delete_oldest(cache: Path) -> None:
    """Deletes the networks written first until the others take at most `MAX_BYTES`."""
    states = {path: path.stat() for path in cache.glob(_PATTERN)}
    size = 0
    for path in sorted(states, key=lambda path: states[path].st_mtime, reverse=True):
        size += states[path].st_size
        if size > MAX_BYTES:
            path.unlink(missing_ok=True)
