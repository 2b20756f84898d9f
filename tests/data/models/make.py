# ruff: noqa: INP001 - a script beside its products, not part of a package
"""Make the small real models of the tests; run in an environment with TensorFlow 2.21.

Weights are seeded, not trained: the tests compare a model with its own variants.
"""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from keras import layers

FOLDER = Path(__file__).parent


def save(name: str, model: keras.Model) -> None:
    """Convert a model and write it beside this script."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (FOLDER / f"{name}.tflite").write_bytes(converter.convert())


def make_cnn() -> keras.Model:
    """Make a classifier of 8x8 gray images."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="pixels", batch_size=1),
            layers.Conv2D(8, 3, activation="relu", padding="same", bias_initializer="normal"),
            layers.MaxPool2D(),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, name="digit"),
        ]
    )


def make_depthwise() -> keras.Model:
    """Make a classifier with the blocks of mobile networks."""
    return keras.Sequential(
        [
            keras.Input((12, 12, 3), name="image", batch_size=1),
            layers.Conv2D(8, 3, strides=2, activation="relu6"),
            layers.DepthwiseConv2D(3, activation="relu6", padding="same"),
            layers.Conv2D(12, 1),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, activation="softmax", name="class"),
        ]
    )


def make_two() -> keras.Model:
    """Make a model of two inputs and two outputs, of unlike shapes."""
    left = keras.Input((4,), name="left", batch_size=1)
    right = keras.Input((2, 3), name="right", batch_size=1)
    joined = layers.Concatenate()([left, layers.Flatten()(right)])
    hidden = layers.Dense(16, activation="tanh")(joined)
    score = layers.Dense(1)(hidden)
    grid = layers.Reshape((2, 4))(layers.Dense(8)(hidden))
    return keras.Model({"left": left, "right": right}, {"score": score, "grid": grid})


def make_embedding() -> keras.Model:
    """Make a classifier of six word ids."""
    return keras.Sequential(
        [
            keras.Input((6,), name="ids", batch_size=1, dtype="int32"),
            layers.Embedding(32, 8),
            layers.GlobalAveragePooling1D(),
            layers.Dense(16, activation="relu"),
            layers.Dense(4, name="topic"),
        ]
    )


def make_floor() -> keras.Model:
    """Make a model with a MAXIMUM of a tensor and a scalar, which cannot be quantized."""
    rows = keras.Input((4, 3), name="rows", batch_size=1)
    hidden = layers.Dense(8)(rows)
    return keras.Model(rows, layers.Dense(2)(keras.ops.maximum(hidden, -0.25)))


if __name__ == "__main__":
    for name, make in (
        ("cnn", make_cnn),
        ("depthwise", make_depthwise),
        ("two", make_two),
        ("embedding", make_embedding),
        ("floor", make_floor),
    ):
        keras.utils.set_random_seed(7)
        save(name, make())
