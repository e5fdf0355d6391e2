"""The files of exported networks, an .xml file and a .bin file each: reads, copies and replaces
them, so that an .xml file is never read with the weights of another network.

Networks are replaced all at once, by one renaming of their folder. If a run is killed after that,
the next one that reads or replaces a network moves the files to their places.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from captioning.errors import UserError
from captioning.files import name_in_errors

ENCODER = "encoder.xml"
DECODER_PREFILL = "decoder_prefill.xml"
DECODER_STEP = "decoder_step.xml"

_NETWORKS = (ENCODER, DECODER_PREFILL, DECODER_STEP)

# Folders below the one of the networks: networks that are being written, and networks that have
# replaced others, but may not be in their places yet.
_SAVING = ".saving-networks"
_NEW = ".new-networks"


def network_exists(path: Path) -> bool:
    """Returns whether there is an exported network `path` (.xml)."""
    return _find(path)[0].exists()


def read_network_files(path: Path) -> tuple[bytes, bytes]:
    """Returns the contents of an exported network, `path` (.xml) and the .bin file beside it.
    Raises FileNotFoundError if the network is missing and UserError if its weights are."""
    xml_path, weights_path = _find(path)
    if not xml_path.exists():
        raise FileNotFoundError(
            f"There is no {path}. Name the folder of the exported model, or train one."
        )
    try:
        return xml_path.read_bytes(), weights_path.read_bytes()
    except FileNotFoundError as error:
        raise damaged_network(path) from error


def damaged_network(path: Path) -> UserError:
    """Returns the error for files that are no network."""
    return UserError(
        f"Expected a network in {path} and in the .bin file beside it, got a missing or "
        "damaged one. Fetch both again, or export the model again."
    )


def copy_network(source: Path, target: Path) -> None:
    """Copies a network, .xml and .bin, to a path without one."""
    xml_path, weights_path = _find(source)
    with name_in_errors(target):
        shutil.copyfile(weights_path, target.with_suffix(".bin"))
        shutil.copyfile(xml_path, target)


@contextmanager
def replace_networks(folder: Path) -> Iterator[Path]:
    """Yields an empty folder for new networks. At the end of the block they replace those of the
    same names in `folder`, and other files in it are deleted. If the block raises, all networks
    stay as they were. Only one program may replace networks at a time: see `only_writer`."""
    _finish_replacement(folder)
    new_folder = folder / _SAVING
    shutil.rmtree(new_folder, ignore_errors=True)  # of a killed run
    new_folder.mkdir(parents=True)
    try:
        yield new_folder
        names = {Path(name).stem for name in _NETWORKS if (new_folder / name).exists()}
        for path in new_folder.iterdir():
            if path.stem not in names:
                path.unlink()
        new_folder.replace(folder / _NEW)
    except BaseException:  # also after Ctrl-C
        shutil.rmtree(new_folder, ignore_errors=True)
        raise
    _finish_replacement(folder)


def _find(path: Path) -> tuple[Path, Path]:
    """Returns where the .xml file and the .bin file of a network are."""
    with suppress(OSError):  # the folder cannot be written: the files are read where they are
        _finish_replacement(path.parent)
    new_path = path.parent / _NEW / path.name
    if not new_path.exists():
        return path, path.with_suffix(".bin")
    new_weights_path = new_path.with_suffix(".bin")
    is_moved = not new_weights_path.exists()
    return new_path, path.with_suffix(".bin") if is_moved else new_weights_path


def _finish_replacement(folder: Path) -> None:
    """Moves networks that have replaced others to their places: first the weights of each, then its
    .xml file. Several programs may do so at once."""
    new_folder = folder / _NEW
    for new_path in list(new_folder.glob("*.xml")):
        for path in (new_path.with_suffix(".bin"), new_path):
            with suppress(FileNotFoundError):  # it is moved already
                path.replace(folder / path.name)
    with suppress(FileNotFoundError):
        new_folder.rmdir()
