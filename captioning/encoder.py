"""The encoder that a root folder is to have: the one that is there, the shipped one, or a new one.

Not about what an encoder computes: see `captioning.inference` and `captioning.image_networks`.
"""

import shutil
from pathlib import Path

from captioning.files import write_atomically
from captioning.inference import Encoder
from captioning.networks import ENCODER, encoder_note, read_network
from captioning.precision import has_bfloat16_units
from captioning.settings import DEFAULT_ENCODER, Files


def provide_encoder(folder: Path, name: str | None = None, weights: str | None = None) -> Encoder:
    """The encoder in `folder`, put there first if need be.

    `name`: an image network of `keras.applications`; without one, whichever is there, or else the
    default. It is copied from this repository if that has it, or made anew with `weights`
    ("imagenet", or the path of a weights file), which make it anew in any case. Where the processor
    has units for bfloat16 it computes in that: its maps agree with those of float32 to a cosine of
    0.999.
    """
    shipped = Files().models
    if weights or not (has_encoder(folder, name) or has_encoder(shipped, name)):
        from captioning.export import export_encoder
        from captioning.image_networks import IMAGENET, build_encoder

        export_encoder(build_encoder(name or DEFAULT_ENCODER, weights or IMAGENET), folder)
    elif not has_encoder(folder, name):
        for suffix in (".bin", ".xml"):  # the .xml last: where it is, the encoder is whole
            source = (shipped / ENCODER).with_suffix(suffix)
            target = (folder / ENCODER).with_suffix(suffix)
            with source.open("rb") as content, write_atomically(target) as copy:
                shutil.copyfileobj(content, copy)
    return Encoder(folder, "bf16" if has_bfloat16_units() else "f32")


def has_encoder(folder: Path, name: str | None = None) -> bool:
    """Whether there is an encoder in `folder`; with a `name`, whether it is that network."""
    if name is None or not (folder / ENCODER).exists():
        return (folder / ENCODER).exists()
    # Before encoders were named, all were what is now the default.
    note = encoder_note(read_network(folder / ENCODER)) or DEFAULT_ENCODER
    present = note.split()[0]
    return present.casefold() == name.casefold()
