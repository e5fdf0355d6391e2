"""Layers of Keras in other forms: recurrence over captions that are kept with their images, which
Keras has for plain rows only, and a sum over axes by name as a product of two matrices.
"""

import re
from math import prod

import keras
from keras import ops


@keras.saving.register_keras_serializable("captioning")
class EachCaption(keras.layers.Wrapper):
    """Runs a recurrent layer over each caption of each image:
    (images, captions, length, width) -> (images, captions, length, units)."""

    def call(self, captions):
        images, captions_each, length, width = ops.shape(captions)
        rows = ops.reshape(captions, (images * captions_each, length, width))
        rows = self.layer(rows)
        return ops.reshape(rows, (images, captions_each, length, self.layer.units))

    def build(self, input_shape):
        self.layer.build((None, *input_shape[2:]))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.layer.units)


class EachCaptionStep(keras.layers.Wrapper):
    """One step of an LSTM cell for each beam of each image: input (images, beams, width), last
    hidden and cell state (images, beams, units) -> new hidden and cell state."""

    def call(self, inputs, hidden, cell):
        inputs, *state = (
            ops.reshape(each, (-1, each.shape[-1])) for each in (inputs, hidden, cell)
        )
        _, state = self.layer(inputs, state)
        return [ops.reshape(rows, ops.shape(hidden)) for rows in state]

    def build(self, *shapes):
        """Nothing: the cell is that of a model which was built."""

    def compute_output_shape(self, inputs_shape, hidden_shape, cell_shape):
        return [hidden_shape, cell_shape]


class AsProduct(keras.layers.Wrapper):
    """An `EinsumDense`, of the same weights, that multiplies two matrices. That is what OpenVINO
    makes of an `einsum` when it runs, too late for it to be quantised.

    The kernel's axes are those summed over and then those that are new, as in "bku,uhd->bhdk".
    """

    def call(self, inputs):
        of_inputs, of_kernel, of_output = re.split(",|->", self.layer.equation)
        summed = [axis for axis in of_kernel if axis in of_inputs]
        kept = [axis for axis in of_inputs if axis not in summed]
        found = [*kept, *of_kernel[len(summed) :]]
        size = dict(zip(of_inputs, ops.shape(inputs), strict=True))
        size |= dict(zip(of_kernel, self.layer.kernel.shape, strict=True))
        rows = ops.transpose(inputs, [of_inputs.index(axis) for axis in (*kept, *summed)])
        width = prod(size[axis] for axis in summed)
        product = ops.matmul(
            ops.reshape(rows, (-1, width)), ops.reshape(self.layer.kernel, (width, -1))
        )
        product = ops.reshape(product, [size[axis] for axis in found])
        return ops.transpose(product, [found.index(axis) for axis in of_output]) + self.layer.bias

    def build(self, input_shape):
        """Nothing: the layer is that of a model which was built."""

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)
