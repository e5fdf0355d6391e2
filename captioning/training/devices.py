"""The devices on which Keras trains: processors or graphics cards, of one process or of several.

In `models` and `training`, only this module imports a backend of Keras: models, losses and the
stages of training are plain Keras. Each device computes its share of the rows of every batch, and
the gradients are summed, so that all devices have the weights that one device would have; with
TensorFlow, self-critical training uses one device. JAX trains on the devices of one process or of
several (`keras.distribution.DataParallel`), TensorFlow on those of one process
(`MirroredStrategy`).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import inf

import keras
import numpy as np

from captioning.errors import UserError
from captioning.inference import openvino_runtime

# Set this and the other variables of `keras.distribution.initialize` to train in several processes.
_NUM_PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
_PROCESS_ID = "KERAS_DISTRIBUTION_PROCESS_ID"

_BFLOAT16_GENERATION = 8  # the first compute capability of NVIDIA's cards with such units

_strategy = None  # TensorFlow's, for several devices; JAX's is `keras.distribution.distribution()`


@contextmanager
def use_devices(devices: int | None = None) -> Iterator[None]:
    """Inside the block, models train on the given number of devices: by default on all graphics
    cards, or on the processor if there are none. Prints their names, unless it is one processor.
    The environment sets the number of processes; several of them use all devices.

    Raises UserError if the backend of Keras is neither JAX nor TensorFlow, finds fewer devices or
    cannot use several processes, or if the environment numbers the processes wrongly.
    """
    backend = keras.backend.backend()
    if backend not in ("jax", "tensorflow"):
        raise UserError(
            f"Expected the backend jax or tensorflow for training, got {backend}. Set "
            "KERAS_BACKEND=tensorflow."
        )
    processes = _read_number(_NUM_PROCESSES, default=1, least=1)
    if processes > 1 and backend != "jax":
        raise UserError(
            f"Expected the backend jax for training in {processes} processes, got {backend}. Set "
            f"KERAS_BACKEND=jax, or unset {_NUM_PROCESSES}."
        )
    if processes > 1:
        _join_processes(processes)
    names = _choose(keras.distribution.list_devices(), devices, processes)
    with _distribute(names, backend) if len(names) > 1 else nullcontext():
        if names != ["cpu:0"] and is_first_process():
            print(f"Training on {len(names)} device(s) with {backend}: {', '.join(names)}")
        yield


def model_scope() -> AbstractContextManager:
    """Returns the context in which to build or load the model that is to be trained."""
    return _strategy.scope() if _strategy else nullcontext()


@contextmanager
def in_this_process() -> Iterator[None]:
    """Inside the block, the models that Keras builds or saves belong to this process alone, so that
    the others need not do the same at the same time."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def num_devices() -> int:
    """Returns the number of devices that share each batch, those of all processes together."""
    if _strategy:
        return _strategy.num_replicas_in_sync
    distribution = keras.distribution.distribution()
    return distribution.num_model_replicas if distribution else 1


def num_processes() -> int:
    """Returns the number of processes that share each batch."""
    distribution = keras.distribution.distribution()
    return distribution.num_processes if distribution else 1


def process_number() -> int:
    """Returns the number of this process, from 0."""
    distribution = keras.distribution.distribution()
    return distribution.data_shard_id if distribution else 0


def is_first_process() -> bool:
    """Returns whether this process writes the files of a run; the others only read them."""
    return process_number() == 0


def from_first_process(numbers: Mapping[str, float]) -> dict[str, float]:
    """Returns the numbers of the first process in all of them, so that all make the same decisions.
    Every process must call it, with the same names. It waits for all processes."""
    if num_processes() == 1:
        return dict(numbers)
    from jax.experimental.multihost_utils import broadcast_one_to_all

    bits = np.array(list(numbers.values()), "float64").view("uint32")  # JAX computes in 32 bits
    values = np.asarray(broadcast_one_to_all(bits)).view("float64")
    return dict(zip(numbers, values.tolist(), strict=True))


def wait_for_all_processes() -> None:
    """Waits until every process has called this, for example because the first writes a file."""
    from_first_process({"here": 1.0})


@contextmanager
def first_process_first() -> Iterator[None]:
    """The first process runs the block alone. Then all others run it, and find the files that the
    first has written. Every process must run it."""
    if not is_first_process():
        wait_for_all_processes()
    yield
    if is_first_process():
        wait_for_all_processes()


def training_precision() -> str:
    """Returns the fastest dtype policy of Keras on the device: "mixed_bfloat16" (about twice as
    fast) if it has units for bfloat16, else "float32"."""
    return "mixed_bfloat16" if _has_bfloat16_units() else "float32"


def _has_bfloat16_units() -> bool:
    backend, device = keras.backend.backend(), keras.distribution.list_devices()[0]
    if device.startswith("cpu"):
        return backend == "tensorflow" and openvino_runtime.has_bfloat16_units()
    if not device.startswith("gpu"):
        return True  # a TPU
    if backend == "jax":
        import jax

        generation = jax.local_devices()[0].compute_capability.partition(".")[0]
        # Cards of AMD have a name instead of a number, such as gfx942.
        return generation.isdecimal() and int(generation) >= _BFLOAT16_GENERATION
    import tensorflow

    card = tensorflow.config.list_physical_devices("GPU")[0]
    details = tensorflow.config.experimental.get_device_details(card)
    return details.get("compute_capability", (0, 0))[0] >= _BFLOAT16_GENERATION


def _read_number(name: str, default: int, least: int, most: float = inf) -> int:
    """Returns the whole number in an environment variable, or the default if it is not set. Raises
    UserError if it is not a number from `least` to `most`."""
    value = os.environ.get(name, str(default))
    if not value.isdecimal() or not least <= int(value) <= most:
        limit = f" to {most}" if most < inf else ""
        raise UserError(
            f"Expected a whole number from {least}{limit} in {name}, got {value!r}. Correct the "
            "environment variable, or unset it."
        )
    return int(value)


def _join_processes(processes: int) -> None:
    _read_number(_PROCESS_ID, default=0, least=0, most=processes - 1)  # Keras reads it itself
    import jax

    if not jax.distributed.is_initialized():
        keras.distribution.initialize()


def _choose(available: Sequence[str], devices: int | None, processes: int) -> list[str]:
    """Returns the names of the devices to use, of all that are `available`. Raises UserError if
    there are fewer, or if several processes would use a part."""
    least, most = len(available) if processes > 1 else 1, len(available)
    if devices is not None and not least <= devices <= most:
        raise UserError(
            f"Expected a number of devices from {least} to {most}, got {devices}: Keras finds "
            f"{', '.join(available)}. Name another number."
        )
    return list(available[:devices])


@contextmanager
def _distribute(names: Sequence[str], backend: str) -> Iterator[None]:
    """Inside the block, training uses these devices."""
    global _strategy
    if backend == "jax":
        # The batches are shards already: see `captioning.training.device_batches`.
        distribution = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
        with distribution.scope():
            yield
    else:
        import tensorflow

        _strategy = tensorflow.distribute.MirroredStrategy(list(names))
        try:
            yield
        finally:
            _strategy = None
