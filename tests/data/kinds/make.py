# ruff: noqa: INP001 - a script beside its products, not part of a package
"""Make models that came quantized or with state; run in an environment with TensorFlow 2.21.

It needs tf-keras and tensorflow-model-optimization too. Weights are seeded, not trained: the
tests compare a model with its own variants.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # fuses an LSTM into one op, and can be trained so

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tf_keras import layers

FOLDER = Path(__file__).parent
TFLITE = tf.lite.OpsSet
GENERATOR = np.random.default_rng(0)


def save(name: str, converter: tf.lite.TFLiteConverter, **options: object) -> None:
    """Convert a model and write it beside this script."""
    for option, value in options.items():
        setattr(converter, option, value)
    (FOLDER / f"{name}.tflite").write_bytes(converter.convert())


def make_images() -> Iterator[list[np.ndarray[Any, Any]]]:
    """Give images to calibrate by."""
    for _ in range(32):
        yield [GENERATOR.uniform(0, 1, (1, 8, 8, 3)).astype(np.float32)]


def make_frames() -> Iterator[list[np.ndarray[Any, Any]]]:
    """Give frames to calibrate by."""
    for _ in range(32):
        yield [GENERATOR.standard_normal((1, 1, 8)).astype(np.float32)]


def make_classifier() -> keras.Model:
    """Make a classifier with weights enough for the converter to quantize them (1,024)."""
    return keras.Sequential(
        [
            layers.InputLayer((8, 8, 3), batch_size=1, name="pixels"),
            layers.Conv2D(8, 3, activation="relu", bias_initializer="normal"),
            layers.DepthwiseConv2D(3),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(5),
        ]
    )


class Stream(tf.Module):  # type: ignore[misc]
    """Score a window of the last five frames, of which each call brings one."""

    def __init__(self) -> None:
        super().__init__()
        self.window = tf.Variable(tf.zeros((1, 4, 8)), trainable=False)
        self.hidden = tf.Variable(0.2 * GENERATOR.standard_normal((40, 32)).astype(np.float32))
        self.last = tf.Variable(0.3 * GENERATOR.standard_normal((32, 3)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec((1, 1, 8), tf.float32, name="frame")])  # type: ignore[untyped-decorator] # TensorFlow is untyped
    def step(self, frame: tf.Tensor) -> dict[str, tf.Tensor]:
        """Take a frame and give the scores."""
        window = tf.concat([self.window, frame], 1)
        self.window.assign(window[:, 1:])
        hidden = tf.nn.relu(tf.matmul(tf.reshape(window, (1, 40)), self.hidden))
        return {"score": tf.nn.softmax(tf.matmul(hidden, self.last))}

    @tf.function(input_signature=[tf.TensorSpec((1, 8), tf.float32, name="value")])  # type: ignore[untyped-decorator] # likewise
    def scale(self, value: tf.Tensor) -> dict[str, tf.Tensor]:
        """Do something else, without state."""
        return {"scaled": value * 2.0}


def main() -> None:
    """Make them all."""
    keras.utils.set_random_seed(0)
    classifier = make_classifier()
    from_keras = tf.lite.TFLiteConverter.from_keras_model
    smaller = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    static = {**smaller, "representative_dataset": make_images}
    save("float32", from_keras(classifier))
    save("dynamic_range", from_keras(classifier), **smaller)
    save("int8", from_keras(classifier), **static)
    converter = from_keras(classifier)
    converter.target_spec.supported_types = [tf.float16]
    save("float16", converter, **smaller)
    converter = from_keras(classifier)
    converter.target_spec.supported_ops = [
        TFLITE.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    ]
    save("int16x8", converter, **static)

    sequence = layers.InputLayer((8, 6), batch_size=1, name="steps")
    save("lstm", from_keras(keras.Sequential([sequence, layers.LSTM(12), layers.Dense(4)])))
    save("loop", from_keras(keras.Sequential([sequence, layers.SimpleRNN(12), layers.Dense(4)])))

    trained = tfmot.quantization.keras.quantize_model(
        keras.Sequential(
            [layers.InputLayer((8, 8, 3), name="pixels"), layers.Conv2D(4, 3), layers.Flatten()]
        )
    )
    trained.compile("sgd", "mse")
    images = np.concatenate([image for (image,) in make_images()])
    trained.fit(images, np.zeros((32, 144)), verbose=0)
    save("fake_quant", from_keras(trained))

    stream = Stream()
    step, scale = stream.step.get_concrete_function(), stream.scale.get_concrete_function()
    saved = tf.lite.TFLiteConverter.from_concrete_functions
    state = {"experimental_enable_resource_variables": True}
    save("stream", saved([step], stream), **state)
    save(
        "stream_int8", saved([step], stream), **state, **smaller, representative_dataset=make_frames
    )
    folder = FOLDER / "signatures"
    tf.saved_model.save(stream, folder, signatures={"step": step, "scale": scale})
    save("signatures", tf.lite.TFLiteConverter.from_saved_model(str(folder)), **state)
    tf.io.gfile.rmtree(str(folder))


if __name__ == "__main__":
    main()
