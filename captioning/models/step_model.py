"""The caption model in, the same network one word at a time out: the form in which it is searched.

Same weights, for some beams of each image. The members of an ensemble step side by side.
"""

import re
from collections.abc import Sequence
from itertools import accumulate, islice
from math import prod

import keras
from keras import ops

from captioning.models.caption_model import SEQUENCE_PROCESSOR
from captioning.models.decoders import ATTENTION, DECODER, FEATURE_EXTRACTOR
from captioning.models.ensemble import log_mean, members_of
from captioning.models.layers import EachCaptionStep

StepModels = tuple[keras.Model, keras.Model]


def build_step_models(caption_model: keras.Model) -> StepModels:
    """`look` and `step` of a caption model, or of an ensemble.

    `look`: features (images, cells, feature_width) -> the parts of what the decoder sees of an
    image, each (images, ...): all that an image costs is paid here, once.
    `step`: last words (images, beams) int32, hidden and cell (images, beams, units), image parts
    -> log-probabilities (images, beams, vocabulary_size) of the next word, new hidden, new cell,
    and of a decoder with attention the share of it that each cell of the feature map got, the mean
    of all heads (images, beams, cells). Parts and units of an ensemble are those of its members,
    one behind the other; its attention is their mean.
    """
    pairs = [
        _of_one(member, f"_{number}") for number, member in enumerate(members_of(caption_model))
    ]
    return pairs[0] if len(pairs) == 1 else _side_by_side(pairs)


def _of_one(caption_model: keras.Model, suffix: str) -> StepModels:
    embedding, sequence_processor, decoder, feature_extractor = (
        caption_model.get_layer(name)
        for name in ("embedding", SEQUENCE_PROCESSOR, DECODER, FEATURE_EXTRACTOR)
    )
    look = keras.models.clone_model(feature_extractor, clone_function=_without_einsum)
    look = keras.Model(look.input, look.outputs, name=f"look{suffix}")
    lstm = sequence_processor.get_layer("lstm").layer
    word, hidden, cell = _inputs(lstm.units)
    image = _image_inputs(look)
    embedded = sequence_processor.get_layer("scale")(embedding(word))
    state = EachCaptionStep(lstm.cell)(embedded, hidden, cell)
    merged, *attention = _at_one_position(_with_attention(decoder))(
        [*image, ops.expand_dims(state[0], 2)]
    )
    logits = embedding(merged, reverse=True)[:, :, 0]
    log_probs = ops.log_softmax(ops.cast(logits, "float32"))
    attention = [ops.mean(ops.cast(heads[:, :, :, 0], "float32"), axis=1) for heads in attention]
    outputs = [log_probs, *state, *attention]
    return look, keras.Model([word, hidden, cell, *image], outputs, name=f"step{suffix}")


def _side_by_side(pairs: Sequence[StepModels]) -> StepModels:
    looks, steps = zip(*pairs, strict=True)
    features = keras.Input(looks[0].input_shape[1:], name="features")
    parts = [part for look in looks for part in look(features)]
    look = keras.Model(features, parts, name="look")

    units = [step.input_shape[1][-1] for step in steps]
    word, hidden, cell = _inputs(sum(units))
    image = _image_inputs(look)
    ends = list(accumulate(units))[:-1]
    parts_left = iter(image)
    answers = [
        step([word, *state, *islice(parts_left, len(of_member.outputs))])
        for step, of_member, *state in zip(
            steps, looks, ops.split(hidden, ends, 2), ops.split(cell, ends, 2), strict=True
        )
    ]
    log_probs, hiddens, cells, *attention = zip(*answers, strict=True)
    state = [ops.concatenate(of_each, axis=2) for of_each in (hiddens, cells)]
    attention = [ops.mean(ops.stack(of_each), axis=0) for of_each in attention]
    outputs = [log_mean(log_probs), *state, *attention]
    return look, keras.Model([word, hidden, cell, *image], outputs, name="step")


def _inputs(units: int) -> list[keras.KerasTensor]:
    """Word, last hidden and last cell state."""
    word = keras.Input((None,), dtype="int32", name="word")
    return [word, *(keras.Input((None, units), name=f"last_{name}") for name in ("hidden", "cell"))]


def _image_inputs(look: keras.Model) -> list[keras.KerasTensor]:
    return [
        keras.Input(part.shape[1:], name=f"image_{number}")
        for number, part in enumerate(look.outputs)
    ]


def _with_attention(decoder: keras.Model) -> keras.Model:
    """The decoder, its output in a list, and behind it the weights of its attention (images, heads,
    captions, length, cells), if it has any."""
    weights = [layer.output for layer in decoder.layers if layer.name == ATTENTION]
    return keras.Model(decoder.inputs, [decoder.output, *weights])


def _at_one_position(decoder: keras.Model) -> keras.Model:
    """The same decoder, for captions of length 1. There its products by image and head are plain
    matrix products. OpenVINO would first copy what both sides of an `einsum` have in common."""

    def call(operation, *inputs, **options):
        if type(operation).__name__ != "Einsum":
            return operation(*inputs, **options)
        of_words, of_image = inputs  # (images, heads, captions, 1, a), (images, heads, a, b)
        return ops.expand_dims(ops.matmul(of_words[:, :, :, 0], of_image), 3)

    return keras.models.clone_model(decoder, clone_function=_without_einsum, call_function=call)


def _without_einsum(layer: keras.Layer) -> keras.Layer:
    """The layer itself, or what takes its place."""
    return EinsumAsMatmul(layer) if isinstance(layer, keras.layers.EinsumDense) else layer


class EinsumAsMatmul(keras.layers.Wrapper):
    """An `EinsumDense` that is computed as one product of two matrices, with the same weights.
    OpenVINO does this by itself when it compiles, after NNCF has chosen what becomes integers.

    Raises ValueError unless the kernel's axes are those summed over, in the order of the input, and
    then those that are new, as in "bku,uhd->bhdk", and there is no activation.
    """

    def __init__(self, layer: keras.layers.EinsumDense):
        super().__init__(layer, name=layer.name, dtype=layer.dtype_policy)
        self._inputs, kernel, self._output = re.split(",|->", layer.equation)
        self._summed = [axis for axis in self._inputs if axis in kernel]
        self._kept = [axis for axis in self._inputs if axis not in kernel]
        self._new = list(kernel[len(self._summed) :])
        in_order = [*self._summed, *self._new] == list(kernel)
        in_order = in_order and not set(self._summed) & set(self._output)
        if not in_order or layer.activation is not keras.activations.linear:
            raise ValueError(
                'Wanted: an EinsumDense such as "bku,uhd->bhdk", without activation. Received: '
                f"{layer.equation}, {layer.activation.__name__}."
            )

    def call(self, inputs):
        size = dict(zip(self._inputs, ops.shape(inputs), strict=True))
        kernel = self.layer.kernel
        summed, new = kernel.shape[: len(self._summed)], kernel.shape[len(self._summed) :]
        rows = ops.transpose(inputs, [self._inputs.index(a) for a in (*self._kept, *self._summed)])
        product = ops.matmul(
            ops.reshape(rows, (-1, prod(summed))), ops.reshape(kernel, (prod(summed), -1))
        )  # (all that is kept, all that is new)
        product = ops.reshape(product, [*(size[axis] for axis in self._kept), *new])
        axes = [*self._kept, *self._new]
        product = ops.transpose(product, [axes.index(axis) for axis in self._output])
        return product if self.layer.bias is None else product + self.layer.bias

    def build(self, input_shape):
        """Nothing: the layer is that of a model which was built."""

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)
