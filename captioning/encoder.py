"""The encoder that a root folder is to have: the one that is there, the shipped one, or a new one.

Not about what an encoder computes: see `captioning.inference` and `captioning.xception`.
"""

import shutil
from pathlib import Path

from captioning.files import write_atomically
from captioning.inference import ENCODER, Encoder
from captioning.precision import has_bfloat16_units
from captioning.settings import Files


def provide_encoder(folder: Path, weights: str | None = None) -> Encoder:
    """The encoder in `folder`, put there first if need be: copied from this repository or, with
    `weights` ("imagenet", or the path of a weights file), made anew. Where the processor has units
    for bfloat16 it computes in that: its maps agree with those of float32 to a cosine of 0.999."""
    shipped = Files().models / ENCODER
    if weights or not ((folder / ENCODER).exists() or shipped.exists()):
        from captioning.export import export_encoder
        from captioning.xception import build_encoder

        export_encoder(build_encoder(weights or "imagenet"), folder)
    elif not (folder / ENCODER).exists():
        for suffix in (".bin", ".xml"):  # the .xml last: where it is, the encoder is whole
            target = (folder / ENCODER).with_suffix(suffix)
            with (
                shipped.with_suffix(suffix).open("rb") as content,
                write_atomically(target) as copy,
            ):
                shutil.copyfileobj(content, copy)
    return Encoder(folder, "bf16" if has_bfloat16_units() else "f32")
