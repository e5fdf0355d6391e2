"""Trains a tiny model in a process of its own, with the backend and the devices to test: see
`tests/training/test_devices.py`.

    python tests/train_on_devices.py FOLDER DEVICES SETTINGS

SETTINGS are those of `TrainingSettings`, as JSON. The environment chooses the backend and the
processes. The processor becomes DEVICES devices. Computes in float32, so that results can be
compared closely. The last line that it prints is JSON: the history, and the norm of each weight.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import keras  # noqa: E402
import numpy as np  # noqa: E402
from tiny_world import make_tiny_data  # noqa: E402

from captioning.data.vocabulary import Vocabulary  # noqa: E402
from captioning.settings import TrainingSettings  # noqa: E402
from captioning.training import cross_entropy, self_critical  # noqa: E402
from captioning.training.devices import use_devices  # noqa: E402
from captioning.training.train import train  # noqa: E402


def main(folder: str, devices: str, settings: str) -> None:
    make_devices(int(devices))
    for module in (cross_entropy, self_critical):
        module.training_precision = lambda: "float32"
    data = make_tiny_data()
    vocabulary = Vocabulary.from_captions(sum(data.train.values(), []), min_word_count=1)
    with use_devices():
        model, history = train(
            data, vocabulary, TrainingSettings(**json.loads(settings)), Path(folder)
        )
    norms = [float(np.linalg.norm(weights)) for weights in model.get_weights()]
    print(json.dumps({"history": history, "norms": norms}))


def make_devices(number: int) -> None:
    """Splits the processor into devices."""
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_num_cpu_devices", number)
    else:
        import tensorflow

        (processor,) = tensorflow.config.list_physical_devices("CPU")
        tensorflow.config.set_logical_device_configuration(
            processor, [tensorflow.config.LogicalDeviceConfiguration()] * number
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
