"""The one-step form of a caption model, in which the search generates captions word by word.

Both networks consist of the parts of the caption model and share its weights. In training, the
positions of the decoder are the words of an image's captions; here they are the beams of the image.
The members of an ensemble run side by side.
"""

from collections.abc import Sequence
from itertools import accumulate

import keras
from keras import ops

from captioning.models.caption_model import (
    ATTENTION,
    DECODER,
    EMBEDDING,
    FEATURE_EXTRACTOR,
    SEQUENCE_PROCESSOR,
    ensemble_members,
    log_mean,
)


def build_step_models(caption_model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Builds the networks `prefill` and `step` of a caption model or an ensemble.

    `prefill` takes the features (images, cells, feature_width) and returns the image context,
    arrays (images, ...): all that is computed once per image.

    `step` takes the last words (images, beams) int32, the last hidden and cell state (images,
    beams, units) and the image context. It returns the log-probabilities of the next word (images,
    beams, vocabulary_size), the new hidden and cell state and, if the decoder has attention, the
    attention weights (images, beams, cells), the mean over its heads.

    An ensemble concatenates the image contexts of its members, and the units of their states. Its
    attention weights are the mean over its members.
    """
    members = ensemble_members(caption_model)
    if len(members) == 1:
        return _prefill(caption_model), _step(caption_model)
    prefills = [_prefill(member, f"_{number}") for number, member in enumerate(members)]
    steps = [_step(member, f"_{number}") for number, member in enumerate(members)]
    return _join_prefills(prefills), _join_steps(steps)


def _prefill(caption_model: keras.Model, suffix: str = "") -> keras.Model:
    feature_extractor = caption_model.get_layer(FEATURE_EXTRACTOR)
    return keras.Model(feature_extractor.input, feature_extractor.outputs, name=f"prefill{suffix}")


def _step(caption_model: keras.Model, suffix: str = "") -> keras.Model:
    embedding, sequence_processor, decoder = map(
        caption_model.get_layer, (EMBEDDING, SEQUENCE_PROCESSOR, DECODER)
    )
    scale, lstm = map(sequence_processor.get_layer, ("scale", "lstm"))
    *context_inputs, _ = decoder.inputs
    word, last_hidden, last_cell = _word_and_state(lstm.layer.units)
    image_context = [keras.Input(part.shape[1:], name=part.name) for part in context_inputs]

    embedded = scale(embedding(word))  # (images, beams, embedding_units)
    hidden, cell = EachBeam(lstm.layer.cell)(embedded, last_hidden, last_cell)
    weights = [layer.output for layer in decoder.layers if layer.name == ATTENTION]
    decoder = keras.Model(decoder.inputs, [decoder.output, *weights])
    output, *weights = decoder([*image_context, hidden])
    log_probs = ops.log_softmax(ops.cast(embedding(output, reverse=True), "float32"))
    weights = [ops.mean(ops.cast(heads, "float32"), axis=1) for heads in weights]

    inputs = [word, last_hidden, last_cell, *image_context]
    return keras.Model(inputs, [log_probs, hidden, cell, *weights], name=f"step{suffix}")


def _word_and_state(units: int) -> list[keras.KerasTensor]:
    """The inputs of a step other than the image context."""
    word = keras.Input((None,), dtype="int32", name="word")
    return [word, *(keras.Input((None, units), name=f"last_{name}") for name in ("hidden", "cell"))]


class EachBeam(keras.layers.Wrapper):
    """Runs one step of an LSTM cell for each beam. It takes the input (images, beams, width) and
    the last hidden and cell state (images, beams, units), and returns the new states."""

    def call(self, inputs, hidden, cell):
        inputs, *state = (ops.reshape(x, (-1, x.shape[-1])) for x in (inputs, hidden, cell))
        _, state = self.layer(inputs, state)  # (images * beams, units) each
        return [ops.reshape(part, ops.shape(hidden)) for part in state]

    def build(self, *input_shapes):
        """The cell is built already: it belongs to a caption model."""

    def compute_output_shape(self, inputs_shape, hidden_shape, cell_shape):
        return [hidden_shape, cell_shape]


def _join_prefills(prefills: Sequence[keras.Model]) -> keras.Model:
    features = keras.Input(prefills[0].input_shape[1:], name="features")
    image_context = [part for prefill in prefills for part in prefill(features)]
    return keras.Model(features, image_context, name="prefill")


def _join_steps(steps: Sequence[keras.Model]) -> keras.Model:
    units = [step.input_shape[1][-1] for step in steps]
    word, last_hidden, last_cell = _word_and_state(sum(units))
    ends = list(accumulate(units))[:-1]
    states = zip(ops.split(last_hidden, ends, 2), ops.split(last_cell, ends, 2), strict=True)
    image_context, outputs = [], []
    for number, (step, state) in enumerate(zip(steps, states, strict=True)):
        _, _, _, *context = step.inputs
        context = [keras.Input(part.shape[1:], name=f"{part.name}_{number}") for part in context]
        outputs.append(step([word, *state, *context]))
        image_context += context

    log_probs, hidden, cell, *weights = zip(*outputs, strict=True)
    hidden, cell = ops.concatenate(hidden, axis=2), ops.concatenate(cell, axis=2)
    weights = [ops.mean(ops.stack(member_weights), axis=0) for member_weights in weights]
    inputs = [word, last_hidden, last_cell, *image_context]
    return keras.Model(inputs, [log_mean(log_probs), hidden, cell, *weights], name="step")
