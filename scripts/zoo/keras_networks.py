"""Small networks of every kind in Keras, beside the architectures of keras.applications."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

OPEN = 16
"""Size a dimension gets that a model leaves open."""
VOCABULARY = 50
KERAS = {"model.keras": ()}
KERAS_ALL = {"model.keras": (), "model.h5": (), "saved_model": ()}
KERAS_ONNX = {"model.keras": (), "keras.onnx": ()}
KERAS_EVERY = {"model.keras": (), "model.h5": (), "saved_model": (), "keras.onnx": ()}

# mypy: the toolchain's frameworks have no types here; a model is whatever keras gives.
Network = Any


def lstm() -> Network:
    """Sequence classifier of two LSTM layers."""
    from keras import Input, Sequential, layers  # noqa: PLC0415 - of the toolchain

    return Sequential(
        [
            Input((24, 6), name="frames"),
            layers.LSTM(16, return_sequences=True),
            layers.LSTM(12),
            layers.Dense(5, activation="softmax", name="classes"),
        ]
    )


def gru() -> Network:
    """Sequence classifier of a GRU."""
    from keras import Input, Sequential, layers  # noqa: PLC0415 - of the toolchain

    return Sequential(
        [Input((24, 6), name="frames"), layers.GRU(16), layers.Dense(5, activation="softmax")]
    )


def bidirectional() -> Network:
    """Both directions of an LSTM and a GRU over a sequence."""
    from keras import Input, Sequential, layers  # noqa: PLC0415 - of the toolchain

    return Sequential(
        [
            Input((20, 8), name="frames"),
            layers.Bidirectional(layers.LSTM(10, return_sequences=True)),
            layers.Bidirectional(layers.GRU(8)),
            layers.Dense(4, name="scores"),
        ]
    )


def conv_lstm() -> Network:
    """Convolutional LSTM over four small pictures."""
    from keras import Input, Sequential, layers  # noqa: PLC0415 - of the toolchain

    return Sequential([Input((4, 12, 12, 2), name="clip"), layers.ConvLSTM2D(4, 3, padding="same")])


def transformer() -> Network:
    """Encoder of two blocks with learned positions over token ids."""
    import keras  # noqa: PLC0415 - of the toolchain
    from keras import layers  # noqa: PLC0415 - of the toolchain

    ids = keras.Input((12,), name="ids", dtype="int32")
    x = layers.Embedding(VOCABULARY, 32)(ids)
    x = x + layers.Embedding(12, 32)(keras.ops.arange(12))
    for _ in range(2):
        attended = layers.MultiHeadAttention(4, 8)(x, x)
        x = layers.LayerNormalization()(x + attended)
        hidden = layers.Dense(64, activation="gelu")(x)
        x = layers.LayerNormalization()(x + layers.Dense(32)(hidden))
    pooled = layers.GlobalAveragePooling1D()(x)
    return keras.Model(ids, layers.Dense(5, activation="softmax")(pooled))


def vision_transformer() -> Network:
    """Patches of a picture through two transformer blocks."""
    import keras  # noqa: PLC0415 - of the toolchain
    from keras import layers  # noqa: PLC0415 - of the toolchain

    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(32, 8, strides=8)(image)
    x = layers.Reshape((16, 32))(x)
    for _ in range(2):
        normed = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 8)(normed, normed)
        hidden = layers.Dense(64, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(32)(hidden)
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


def unet() -> Network:
    """U-Net of two levels with a transposed convolution and an upsampling."""
    import keras  # noqa: PLC0415 - of the toolchain
    from keras import layers  # noqa: PLC0415 - of the toolchain

    def block(x: Network, width: int) -> Network:
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization()(x))

    image = keras.Input((32, 32, 3), name="image")
    first = block(image, 8)
    second = block(layers.MaxPooling2D()(first), 16)
    deep = block(layers.MaxPooling2D()(second), 32)
    up = layers.Conv2DTranspose(16, 2, strides=2)(deep)
    up = block(layers.Concatenate()([up, second]), 16)
    up = layers.UpSampling2D(interpolation="bilinear")(up)
    up = block(layers.Concatenate()([up, first]), 8)
    return keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid", name="mask")(up))


def detector() -> Network:
    """Detector head of SSD's kind: boxes and class scores from two feature maps."""
    import keras  # noqa: PLC0415 - of the toolchain
    from keras import layers  # noqa: PLC0415 - of the toolchain

    image = keras.Input((64, 64, 3), name="image")
    x = image
    for width in (8, 16, 24):
        x = layers.Conv2D(width, 3, strides=2, padding="same")(x)
        x = layers.ReLU(max_value=6.0)(layers.BatchNormalization()(x))
    maps = [x, layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(x)]
    boxes = [layers.Reshape((-1, 4))(layers.Conv2D(12, 3, padding="same")(each)) for each in maps]
    scores = [layers.Reshape((-1, 6))(layers.Conv2D(18, 3, padding="same")(each)) for each in maps]
    all_boxes = layers.Concatenate(axis=1, name="boxes")(boxes)
    classes = layers.Activation("sigmoid", name="scores")(layers.Concatenate(axis=1)(scores))
    return keras.Model(image, {"boxes": all_boxes, "scores": classes})


def keyword_spotting() -> Network:
    """Depthwise-separable network over a spectrogram (DS-CNN)."""
    from keras import Input, Sequential, layers  # noqa: PLC0415 - of the toolchain

    net = Sequential([Input((49, 10, 1), name="spectrogram")])
    net.add(layers.Conv2D(16, (10, 4), strides=(2, 2), padding="same", use_bias=False))
    for _ in range(3):
        net.add(layers.BatchNormalization())
        net.add(layers.ReLU())
        net.add(layers.DepthwiseConv2D(3, padding="same", use_bias=False))
        net.add(layers.BatchNormalization())
        net.add(layers.ReLU())
        net.add(layers.Conv2D(16, 1, use_bias=False))
    net.add(layers.GlobalAveragePooling2D())
    net.add(layers.Dense(12, activation="softmax"))
    return net


def convolution_1d() -> Network:
    """Dilated causal convolutions over a signal, separable and plain, with pooling."""
    from keras import Input, Sequential, layers  # noqa: PLC0415 - of the toolchain

    return Sequential(
        [
            Input((128, 2), name="signal"),
            layers.Conv1D(8, 5, padding="causal", activation="relu"),
            layers.Conv1D(8, 3, padding="causal", dilation_rate=4, activation="tanh"),
            layers.SeparableConv1D(12, 3, padding="same"),
            layers.MaxPooling1D(2),
            layers.Conv1DTranspose(6, 4, strides=2, padding="same"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(4),
        ]
    )


def convolution_3d() -> Network:
    """Convolutions over a volume, with pooling and a transposed one."""
    from keras import Input, Sequential, layers  # noqa: PLC0415 - of the toolchain

    return Sequential(
        [
            Input((8, 12, 12, 2), name="volume"),
            layers.Conv3D(4, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling3D(2),
            layers.Conv3D(6, 3, activation="relu"),
            layers.Conv3DTranspose(3, 2, strides=2),
        ]
    )


def embeddings() -> Network:
    """Averaged embeddings of ids and a scalar feature: two inputs of two types."""
    import keras  # noqa: PLC0415 - of the toolchain
    from keras import layers  # noqa: PLC0415 - of the toolchain

    words = keras.Input((10,), name="words", dtype="int32")
    number = keras.Input((3,), name="numbers")
    pooled = layers.GlobalAveragePooling1D()(layers.Embedding(VOCABULARY, 16)(words))
    joined = layers.Concatenate()([pooled, layers.Dense(8, activation="relu")(number)])
    return keras.Model([words, number], layers.Dense(3, activation="softmax")(joined))


def autoencoder() -> Network:
    """Autoencoder with strided and transposed convolutions."""
    from keras import Input, Sequential, layers  # noqa: PLC0415 - of the toolchain

    return Sequential(
        [
            Input((28, 28, 1), name="image"),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(12, 3, strides=2, padding="same", activation="elu"),
            layers.Flatten(),
            layers.Dense(16, name="code"),
            layers.Dense(7 * 7 * 12),
            layers.Reshape((7, 7, 12)),
            layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="leaky_relu"),
            layers.Conv2DTranspose(1, 3, strides=2, padding="same", activation="sigmoid"),
        ]
    )


def squeeze_excite() -> Network:
    """Inverted residual block with squeeze-and-excite and hard swish."""
    import keras  # noqa: PLC0415 - of the toolchain
    from keras import layers  # noqa: PLC0415 - of the toolchain

    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="hard_swish")(image)
    y = layers.Conv2D(48, 1, activation="hard_swish")(x)
    y = layers.DepthwiseConv2D(5, padding="same", activation="hard_swish")(y)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    gate = layers.Conv2D(12, 1, activation="relu")(gate)
    gate = layers.Conv2D(48, 1, activation="hard_sigmoid")(gate)
    x = layers.Add()([x, layers.Conv2D(16, 1)(layers.Multiply()([y, gate]))])
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def pixel_shuffle() -> Network:
    """Super-resolution by moving channels into space."""
    import keras  # noqa: PLC0415 - of the toolchain
    from keras import layers  # noqa: PLC0415 - of the toolchain

    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(12, 3, padding="same")(x)
    x = layers.Permute((1, 3, 2, 4, 5))(layers.Reshape((16, 16, 2, 2, 3))(x))
    return keras.Model(image, layers.Reshape((32, 32, 3))(x))


def several_inputs() -> Network:
    """A picture, a vector and a mask in; a class and an embedding out."""
    import keras  # noqa: PLC0415 - of the toolchain
    from keras import layers  # noqa: PLC0415 - of the toolchain

    image = keras.Input((16, 16, 3), name="zebra")
    vector = keras.Input((5,), name="apple")
    mask = keras.Input((16, 16, 1), name="mango")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image * mask)
    pooled = layers.GlobalMaxPooling2D()(x)
    code = layers.Dense(6, activation="tanh", name="code")(layers.Concatenate()([pooled, vector]))
    normed = layers.UnitNormalization(name="embedding")(code)
    return keras.Model([image, vector, mask], [layers.Dense(4, name="classes")(code), normed])


def normalizations() -> Network:
    """Group, layer and batch normalization with PReLU and a zero padding."""
    from keras import Input, Sequential, layers  # noqa: PLC0415 - of the toolchain

    return Sequential(
        [
            Input((20, 20, 3), name="image"),
            layers.ZeroPadding2D(((1, 2), (2, 1))),
            layers.Conv2D(8, 3),
            layers.GroupNormalization(4),
            layers.PReLU(shared_axes=[1, 2]),
            layers.LayerNormalization(),
            layers.AveragePooling2D(3, strides=2, padding="same"),
            layers.BatchNormalization(scale=False),
            layers.Cropping2D(1),
            layers.Conv2D(4, 3, dilation_rate=2, activation="softplus"),
        ]
    )


def grouped_convolution() -> Network:
    """Grouped convolutions, which TFLite has no kernel parameter for."""
    from keras import Input, Sequential, layers  # noqa: PLC0415 - of the toolchain

    return Sequential(
        [
            Input((24, 24, 8), name="features"),
            layers.Conv2D(16, 3, groups=4, padding="same", activation="relu"),
            layers.Conv2D(8, 3, groups=2, strides=2),
            layers.GlobalAveragePooling2D(),
        ]
    )


def legacy() -> Network:
    """A tf-keras (Keras 2) model with a nested submodel."""
    import tf_keras  # noqa: PLC0415 - of the toolchain
    from tf_keras import layers  # noqa: PLC0415 - of the toolchain

    tf_keras.utils.set_random_seed(20)
    inner = tf_keras.Sequential([layers.Dense(12, activation="relu"), layers.Dense(8)], name="in")
    image = layers.Input((14, 14, 2), name="image")
    x = layers.SeparableConv2D(6, 3, activation="relu", bias_initializer="normal")(image)
    x = inner(layers.Flatten()(layers.BatchNormalization()(x)))
    return tf_keras.Model(image, layers.Dense(3, activation="softmax", name="classes")(x))


def write_legacy(model: Network, folder: Path) -> None:
    """Write a tf-keras model as .h5 and as its own SavedModel."""
    import warnings  # noqa: PLC0415 - with the toolchain's

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # .h5 is legacy, which is why it is here
        model.save(folder / "model.h5")
    model.save(folder / "saved_model", save_format="tf")


def module() -> Network:
    """A tf.Module with two functions over a matrix."""
    import tensorflow as tf  # noqa: PLC0415 - of the toolchain

    made = tf.Module()
    made.weight = tf.Variable(tf.random.stateless_normal([6, 4], seed=[20, 1]))
    made.bias = tf.Variable(tf.random.stateless_normal([4], seed=[20, 2]))
    return made


def write_signatures(made: Network, folder: Path) -> None:
    """Write a SavedModel of two signatures, and one of them as a frozen graph."""
    import tensorflow as tf  # noqa: PLC0415 - of the toolchain
    from tensorflow.python.framework.convert_to_constants import (  # noqa: PLC0415 - as above
        convert_variables_to_constants_v2,
    )

    spec = tf.TensorSpec([None, 6], tf.float32, name="x")
    made.embed = tf.function(lambda x: {"code": tf.tanh(x @ made.weight)}, input_signature=[spec])
    made.score = tf.function(
        lambda x: {"scores": tf.nn.softmax(x @ made.weight + made.bias)}, input_signature=[spec]
    )
    signatures = {"embed": made.embed, "score": made.score}
    tf.saved_model.save(made, str(folder / "saved_model"), signatures=signatures)
    frozen = convert_variables_to_constants_v2(made.score.get_concrete_function())
    tf.io.write_graph(frozen.graph.as_graph_def(), str(folder), "frozen.pb", as_text=False)


NETWORKS: tuple[
    tuple[
        str,
        Callable[[], Network],
        dict[str, tuple[str, ...]],
        Callable[[Network, Path], None] | None,
    ],
    ...,
] = (
    ("lstm", lstm, KERAS_EVERY, None),
    ("gru", gru, KERAS_EVERY, None),
    ("bidirectional", bidirectional, KERAS_ONNX, None),
    ("conv-lstm", conv_lstm, KERAS, None),
    ("transformer", transformer, KERAS_ALL, None),
    ("vision-transformer", vision_transformer, KERAS, None),
    ("unet", unet, KERAS_EVERY, None),
    ("detector", detector, KERAS_EVERY, None),
    ("keyword-spotting", keyword_spotting, KERAS_EVERY, None),
    ("convolution-1d", convolution_1d, KERAS_EVERY, None),
    ("convolution-3d", convolution_3d, KERAS_EVERY, None),
    ("embeddings", embeddings, KERAS_EVERY, None),
    ("autoencoder", autoencoder, KERAS_ONNX, None),
    ("squeeze-excite", squeeze_excite, KERAS_ONNX, None),
    ("pixel-shuffle", pixel_shuffle, KERAS_ONNX, None),
    ("several-inputs", several_inputs, KERAS_EVERY, None),
    ("normalizations", normalizations, KERAS_ONNX, None),
    ("grouped-convolution", grouped_convolution, KERAS, None),
    ("legacy", legacy, {"model.h5": (), "saved_model": ()}, write_legacy),
    (
        "signatures",
        module,
        {"saved_model": ("--signature", "score"), "frozen.pb": ()},
        write_signatures,
    ),
)
