"""What a user is told of a model that came as .tflite."""

from typing import Any

import numpy as np

from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.model import read_model
from edgepack.workflow.doubts import nature_warnings
from tests.fixtures.models import came_as, small_model


def test_state_and_several_signatures_are_told() -> None:
    assert nature_warnings(small_model("cnn")) == ()
    (told,) = nature_warnings(came_as("stream"))
    assert told == (
        "the model keeps state: its samples are run as one stream, in order, from the state it "
        "starts with"
    )
    assert nature_warnings(came_as("signatures")) == (
        "the model has 2 signatures (scale, step): scale is judged and measured",
    )


def test_open_shapes_are_told_and_an_open_batch_is_none() -> None:
    tree: Any = read_flatbuffer(small_model("cnn").data)
    tensor = tree.subgraphs[0].tensors[int(tree.subgraphs[0].inputs[0])]
    tensor.shapeSignature = np.array([-1, 8, 8, 1], np.int32)
    assert nature_warnings(read_model(write_flatbuffer(tree))) == ()
    tensor.shapeSignature = np.array([-1, -1, -1, 1], np.int32)
    (told,) = nature_warnings(read_model(write_flatbuffer(tree)))
    assert told == (
        "the model leaves dimensions of its inputs open: it is run with those it was saved with "
        "(pixels 1x8x8x1); convert its source again for others"
    )
