"""The LSTM of Hochreiter and Schmidhuber (1997): its weights and rows of inputs in, its states out.

Equal to `keras.layers.LSTM` as it is by default, without mask or dropout, and faster where
gradients are asked for. Only what waits for the position before is computed position by position,
one small product forwards and one backwards; the products with the inputs, and those for the
gradients of all weights, are made once for all positions. Differentiation by itself would make
them anew at each.
"""

from keras import ops


def lstm_states(inputs, kernel, recurrent_kernel, bias):
    """(length, rows, width) -> the hidden state after each position (length, rows, units).

    `kernel` (width, 4 * units), `recurrent_kernel` (units, 4 * units) and `bias` (4 * units,) are
    those of `keras.layers.LSTMCell`: side by side for what enters the cell, what it forgets, its
    content and what leaves it. All are of one dtype, in which the products are computed; gates and
    cell states are float32.
    """

    @ops.custom_gradient
    def of(inputs, kernel, recurrent_kernel, bias):
        projected = _project(inputs, kernel, bias)
        hidden, cells, gates = _read(projected, recurrent_kernel)

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            change = _read_backwards(upstream, recurrent_kernel, cells, gates)
            return (
                _project(change, ops.transpose(kernel)),
                _product_of_rows(inputs, change),
                _product_of_rows(_one_later(hidden), change),
                ops.sum(change, axis=(0, 1)),
            )

        return hidden, gradient

    return of(inputs, kernel, recurrent_kernel, bias)


def _read(projected, recurrent_kernel):
    """What the inputs bring to the gates (length, rows, 4 * units) -> hidden states, cell states
    and the four gates, each (length, rows, units)."""

    def step(state, position):
        hidden, cell, *_ = state
        gates = projected[position] + ops.matmul(hidden, recurrent_kernel)
        gates = ops.cast(gates, "float32")  # first: splits in bfloat16 take eight times as long
        gates = ops.split(gates, 4, axis=-1)
        enter, forget, leave = (ops.sigmoid(gates[index]) for index in (0, 1, 3))
        content = ops.tanh(gates[2])
        cell = forget * cell + enter * content
        hidden = ops.cast(leave * ops.tanh(cell), projected.dtype)
        state = hidden, cell, enter, forget, content, leave
        return state, state

    length, rows, _ = ops.shape(projected)
    nothing = ops.zeros((rows, recurrent_kernel.shape[0]))
    first = ops.cast(nothing, projected.dtype), *(5 * [nothing])
    _, (hidden, cells, *gates) = ops.scan(step, first, ops.arange(length))
    return hidden, cells, gates


def _read_backwards(upstream, recurrent_kernel, cells, gates):
    """Gradient of the hidden states (length, rows, units) -> that of what enters the activations of
    the gates (length, rows, 4 * units)."""
    enter, forget, content, leave = gates
    seen = ops.tanh(cells)
    to_cell = leave * (1 - seen * seen)
    slopes = (
        content * enter * (1 - enter),
        _one_later(cells) * forget * (1 - forget),
        enter * (1 - content * content),
        seen * leave * (1 - leave),
    )
    back = ops.transpose(recurrent_kernel)

    def step(state, position):
        change, of_cell = state  # at the position behind this one
        of_hidden = ops.cast(upstream[position] + ops.matmul(change, back), "float32")
        of_cell = of_cell + of_hidden * to_cell[position]
        causes = of_cell, of_cell, of_cell, of_hidden
        changes = [cause * slope[position] for cause, slope in zip(causes, slopes, strict=True)]
        change = ops.concatenate([ops.cast(each, change.dtype) for each in changes], axis=-1)
        state = change, of_cell * forget[position]
        return state, state

    length, rows, units = ops.shape(upstream)
    last = ops.zeros((rows, 4 * units), upstream.dtype), ops.zeros((rows, units))
    _, (changes, _) = ops.scan(step, last, ops.arange(length), reverse=True)
    return changes


def _one_later(states):
    """(length, rows, units) -> at each position what was at the one before it, zeros at first."""
    return ops.concatenate([ops.zeros_like(states[:1]), states[:-1]], axis=0)


def _project(inputs, kernel, bias=None):
    """(length, rows, a), (a, b), (b,) -> (length, rows, b), as one product of matrices."""
    length, rows, width = ops.shape(inputs)
    product = ops.matmul(ops.reshape(inputs, (-1, width)), kernel)
    product = product if bias is None else ops.add(product, bias)
    return ops.reshape(product, (length, rows, kernel.shape[-1]))


def _product_of_rows(left, right):
    """(length, rows, a), (length, rows, b) -> (a, b), summed over all rows."""
    left, right = (ops.reshape(each, (-1, each.shape[-1])) for each in (left, right))
    return ops.matmul(ops.transpose(left), right)
