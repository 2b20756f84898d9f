"""Train the digits example: a small convolutional network on scikit-learn's real 8x8 images.

Writes `digits.keras` (float32, logits out) and `digits.npz` (held-out images under the model's
input name `pixels`, with their `labels`) beside this file. Needs TensorFlow and scikit-learn:

    pip install "edgepack[tensorflow]" scikit-learn
    python examples/digits/train.py
"""

from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

FOLDER = Path(__file__).parent
SEED = 7


def build_network() -> keras.Model:
    """Build the untrained network: 1x8x8x1 pixels in 0 to 1, ten logits."""
    pixels = keras.Input((8, 8, 1), name="pixels")
    features = pixels
    for filters, strides in ((32, 1), (64, 1), (64, 2)):
        features = keras.layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(
            features
        )
        features = keras.layers.BatchNormalization()(features)
        features = keras.layers.ReLU()(features)
    features = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")(features)
    features = keras.layers.Flatten()(features)
    return keras.Model(pixels, keras.layers.Dense(10, name="digit")(features), name="digits")


def main() -> None:
    """Train, print the held-out accuracy and write both files."""
    keras.utils.set_random_seed(SEED)
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    train_x, held_x, train_y, held_y = train_test_split(
        images, labels, test_size=600, random_state=SEED, stratify=labels
    )
    network = build_network()
    network.compile(
        optimizer=keras.optimizers.Adam(2e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    network.fit(train_x, train_y, batch_size=32, epochs=25, verbose=0)
    _, accuracy = network.evaluate(held_x, held_y, verbose=0)
    print(f"held-out accuracy on {len(held_y)} images: {accuracy:.4f}")
    # A fresh network takes the weights alone: the `.keras` format keeps the optimizer's state
    # (twice the weights again, Keras 3.15) and does not take `include_optimizer`.
    plain = build_network()
    plain.set_weights(network.get_weights())
    plain.save(FOLDER / "digits.keras")
    np.savez_compressed(FOLDER / "digits.npz", pixels=held_x, labels=held_y.astype(np.int64))


if __name__ == "__main__":
    main()
