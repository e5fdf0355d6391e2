"""Recurrence over captions that are kept with their images, which Keras has for plain rows only."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("captioning")
class EachCaption(keras.layers.Wrapper):
    """Runs an LSTM over each caption of each image:
    (images, captions, length, width) -> (images, captions, length, units).

    What a word brings to the gates does not depend on the words before it, so it is multiplied for
    all positions at once; only what the last state brings waits for that state.
    """

    def call(self, captions):
        cell = self.layer.cell
        images, captions_each, length, width = ops.shape(captions)
        rows = ops.reshape(captions, (images * captions_each, length, width))
        rows = ops.transpose(rows, (1, 0, 2))  # (length, rows, width)
        projected = ops.matmul(rows, cell.kernel) + cell.bias  # (length, rows, 4 units)
        states = _run_lstm(projected, ops.cast(cell.recurrent_kernel, projected.dtype))
        states = ops.transpose(states, (1, 0, 2))
        return ops.reshape(states, (images, captions_each, length, cell.units))

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


def _run_lstm(projected, recurrent_kernel):
    """What the words bring to the gates (length, rows, 4 units), in Keras' order, and the weights
    of the last state (units, 4 units) -> the states (length, rows, units), from zeros on.

    What differentiation makes of the loop by itself adds up the gradient of the weights step by
    step; here it is one product for all positions.
    """
    units = recurrent_kernel.shape[0]

    @ops.custom_gradient
    def of(projected, recurrent_kernel):
        nothing = ops.zeros_like(projected[0])  # (rows, 4 units)

        def step(last, projected):
            hidden, cell, _ = last
            gates = _gates(projected + ops.matmul(hidden, recurrent_kernel))
            let_in, keep, new, let_out = ops.split(gates, 4, axis=-1)
            cell = keep * cell + let_in * new
            now = (let_out * ops.tanh(cell), cell, gates)
            return now, now

        start = (nothing[:, :units], nothing[:, :units], nothing)
        _, (hiddens, cells, gates) = ops.scan(step, start, projected)

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream  # (length, rows, units)

            cells_before = _shifted(cells)

            def step_back(later, position):
                of_hidden, of_cell, _ = later
                let_in, keep, new, let_out = ops.split(gates[position], 4, axis=-1)
                squashed = ops.tanh(cells[position])
                of_hidden = of_hidden + upstream[position]
                of_cell = of_cell + of_hidden * let_out * (1 - squashed * squashed)
                of_projected = ops.concatenate(
                    [
                        of_cell * new * let_in * (1 - let_in),
                        of_cell * cells_before[position] * keep * (1 - keep),
                        of_cell * let_in * (1 - new * new),
                        of_hidden * squashed * let_out * (1 - let_out),
                    ],
                    axis=-1,
                )
                of_hidden = ops.matmul(of_projected, ops.transpose(recurrent_kernel))
                before = (of_hidden, of_cell * keep, of_projected)
                return before, before

            positions = ops.arange(ops.shape(upstream)[0])
            _, (_, _, of_projected) = ops.scan(step_back, start, positions, reverse=True)
            of_kernel = ops.matmul(
                ops.transpose(ops.reshape(_shifted(hiddens), (-1, units))),
                ops.reshape(of_projected, (-1, 4 * units)),
            )
            return of_projected, of_kernel

        return hiddens, gradient

    return of(projected, recurrent_kernel)


def _gates(raw):
    """(rows, 4 units): what is let in, what is kept, what is new, what is let out."""
    let_in, keep, new, let_out = ops.split(raw, 4, axis=-1)
    return ops.concatenate(
        [ops.sigmoid(let_in), ops.sigmoid(keep), ops.tanh(new), ops.sigmoid(let_out)], axis=-1
    )


def _shifted(states):
    """(length, rows, units), each at the place of the next, after zeros."""
    return ops.concatenate([ops.zeros_like(states[:1]), states[:-1]], axis=0)
