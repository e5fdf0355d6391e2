"""What Keras lacks: recurrence over captions that are kept with their images, and cheap dropout."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("captioning")
class EachCaption(keras.layers.Wrapper):
    """Runs a `keras.layers.LSTM` with its usual activations and a bias over each caption of each
    image, from zeros, by the weights that it has; its other settings are not heeded:
    (images, captions, length, width) -> (images, captions, length, units)."""

    def call(self, captions):
        images, captions_each, length, width = ops.shape(captions)
        rows = ops.reshape(captions, (images * captions_each, length, width))
        states = self.layer(rows)
        return ops.reshape(states, (images, captions_each, length, self.layer.units))

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
