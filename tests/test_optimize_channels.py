"""Channels that stand or fall together, and taking them out."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.graph import read_constant, set_constant
from edgepack.model import read_model
from edgepack.optimize.pruning.channel_table import ChannelMap
from edgepack.optimize.pruning.channels import map_channels
from edgepack.optimize.pruning.removal import remove_channels
from edgepack.optimize.walking.layers import find_layers
from tests.fixtures.graphs import GraphMaker, answer
from tests.fixtures.models import small_model

SHAPE = (1, 6, 5, 3)


def groups_of(data: bytes) -> list[tuple[int, int, str | None]]:
    """Give each group's channels, makers, and why it must stay."""
    found = map_channels(read_flatbuffer(data)).groups
    return [(len(each.channels), len(each.producers), each.blocked) for each in found]


def without(data: bytes, removed: frozenset[int]) -> bytes:
    tree = read_flatbuffer(data)
    remove_channels(tree, map_channels(tree), removed)
    return write_flatbuffer(tree)


def masked(data: bytes, removed: frozenset[int]) -> bytes:
    """Give the model with the weights at zero that read the channels."""
    tree = read_flatbuffer(data)
    channel_map = map_channels(tree)
    for layer in find_layers(tree):
        axes = channel_map.axes[layer.weights]
        weights = read_constant(tree, layer.weights)
        assert weights is not None
        if len(axes) == 2:
            weights[..., np.isin(axes[0].channels, list(removed))] = 0
            set_constant(tree, layer.weights, weights)
    return write_flatbuffer(tree)


def free(channel_map: ChannelMap) -> list[tuple[int, ...]]:
    return [group.channels for group in channel_map.groups if group.blocked is None]


def grow(maker: GraphMaker, draw: st.DrawFn, tensors: list[int]) -> int:  # noqa: C901, PLR0911, PLR0912 - one case a step
    """Add one step that a network might have, behind a tensor of NHWC."""
    source = draw(st.sampled_from(tensors))
    channels = maker.shape(source)[-1]
    alike = [each for each in tensors if maker.shape(each) == maker.shape(source)]
    near = [each for each in tensors if maker.shape(each)[:3] == maker.shape(source)[:3]]
    side = draw(st.sampled_from([1, 3]))
    vector = maker.random.normal(size=(1, 1, channels)).astype(np.float32)
    match draw(st.integers(0, 14)):
        case 0 | 1 | 2:
            return maker.layer(
                "CONV_2D",
                source,
                draw(st.integers(2, 7)),
                kernel=(side, side),
                activation=draw(st.sampled_from([0, 1, 3])),
            )
        case 3:
            return maker.layer("DEPTHWISE_CONV_2D", source, draw(st.integers(1, 2)), kernel=(3, 3))
        case 4:
            return maker.add(source, draw(st.sampled_from(alike)))
        case 5:
            return maker.concatenate([source, draw(st.sampled_from(near))])
        case 6:
            return maker.excite(source, draw(st.integers(1, 4)), is_moved=draw(st.booleans()))
        case 7:
            return maker.pool(draw(st.sampled_from(["MAX_POOL_2D", "AVERAGE_POOL_2D"])), source)
        case 8:
            return maker.pad(source)
        case 9:
            return maker.op(draw(st.sampled_from(["HARD_SWISH", "LOGISTIC", "RELU6"])), [source])
        case 10:
            return maker.op("PRELU", [source, maker.constant(vector)])
        case 11:
            return maker.add(source, maker.constant(vector))
        case 12:
            return maker.multiply(source, maker.constant(np.array([0.5], np.float32)))
        case 13:
            return maker.op("SOFTMAX", [source], options=("SoftmaxOptions", {"beta": 1.0}))
        case _:
            return maker.layer("TRANSPOSE_CONV", source, 4, kernel=(2, 2), stride=(2, 2))


@st.composite
def graphs(draw: st.DrawFn) -> bytes:
    maker = GraphMaker(SHAPE, seed=draw(st.integers(0, 99)))
    tensors = [maker.layer("CONV_2D", maker.input, draw(st.integers(2, 6)))]
    for _ in range(draw(st.integers(1, 7))):
        made = grow(maker, draw, tensors)
        if np.prod(maker.shape(made)) < 3000:
            tensors.append(made)
    last = tensors[-1]
    if draw(st.booleans()):
        last = maker.reshape(last, (1, int(np.prod(maker.shape(last)))))
    else:
        last = maker.mean(last, keep_dims=False)
    outputs = [maker.layer("FULLY_CONNECTED", last, 4)]
    if draw(st.booleans()):
        outputs.append(draw(st.sampled_from(tensors)))
    return maker.finish(*outputs)


@settings(max_examples=60)
@given(graphs(), st.data())
def test_what_remains_answers_as_if_the_channels_were_not_read(
    data: bytes, choice: st.DataObject
) -> None:
    removed: set[int] = set()
    for channels in free(map_channels(read_flatbuffer(data))):
        gone = choice.draw(st.sets(st.sampled_from(channels), max_size=len(channels) - 1))
        removed |= gone
    small = without(data, frozenset(removed))
    array = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    assert read_model(small).signature == read_model(data).signature
    wanted, came = answer(masked(data, frozenset(removed)), array), answer(small, array)
    for ours, theirs in zip(wanted, came, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4 * (1 + np.abs(ours).max()))


def flatten_channels_first(maker: GraphMaker, source: int) -> int:
    """Flatten NHWC as NCHW would be: each channel's values stand together."""
    _, height, width, channels = maker.shape(source)
    order = maker.constant(np.array([0, 3, 1, 2], np.int32))
    turned = maker.op(
        "TRANSPOSE", [source, order], (1, channels, height, width), ("TransposeOptions", {})
    )
    return maker.reshape(turned, (1, channels * height * width))


@pytest.mark.parametrize(
    "step",
    [
        lambda maker, source: maker.layer("DEPTHWISE_CONV_2D", source, 2, kernel=(3, 3)),
        lambda maker, source: maker.concatenate([source, maker.input, source]),
        lambda maker, source: maker.concatenate([source, source], axis=1),
        lambda maker, source: maker.reshape(source, (1, 1, 30, maker.shape(source)[-1])),
        lambda maker, source: maker.layer("TRANSPOSE_CONV", source, 4, kernel=(2, 2)),
        lambda maker, source: maker.excite(source, 3, is_moved=True),
        lambda maker, source: maker.enlarge(maker.pool("MAX_POOL_2D", maker.pad(source))),
        flatten_channels_first,
    ],
)
def test_one_channel_of_each_group_goes_through_each_step(
    step: Callable[[GraphMaker, int], int],
) -> None:
    maker = GraphMaker(SHAPE)
    made = step(maker, maker.layer("CONV_2D", maker.input, 4))
    if len(maker.shape(made)) == 4:
        made = maker.reshape(made, (1, int(np.prod(maker.shape(made)))))
    data = maker.finish(maker.layer("FULLY_CONNECTED", made, 3))
    array = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    removed = frozenset(channels[1] for channels in free(map_channels(read_flatbuffer(data))))
    assert removed
    (wanted,), (came,) = answer(masked(data, removed), array), answer(without(data, removed), array)
    np.testing.assert_allclose(came, wanted, rtol=1e-4, atol=1e-4)
    (whole,) = answer(data, array)
    assert not np.allclose(whole, wanted, atol=1e-3)


def test_every_tensor_becomes_smaller() -> None:
    maker = GraphMaker(SHAPE)
    first = maker.layer("CONV_2D", maker.input, 8)
    second = maker.layer("DEPTHWISE_CONV_2D", first, 2, kernel=(3, 3))
    flat = maker.reshape(second, (1, 6 * 5 * 16))
    data = maker.finish(maker.layer("FULLY_CONNECTED", flat, 4))
    (channels,) = free(map_channels(read_flatbuffer(data)))
    tree = read_flatbuffer(without(data, frozenset(channels[2:])))
    shapes = [
        maker.tree.subgraphs[0].tensors[first].shape,
        *(t.shape for t in tree.subgraphs[0].tensors),
    ]
    assert [list(shape) for shape in shapes if len(shape) == 4 and shape[-1] == 8] == [[1, 6, 5, 8]]
    layers = find_layers(tree)
    assert [each.num_weights for each in layers] == [2 * 3, 9 * 4, 4 * 6 * 5 * 4]


def test_an_addition_makes_channels_one_and_a_concatenation_does_not() -> None:
    maker = GraphMaker(SHAPE)
    first, second = (maker.layer("CONV_2D", maker.input, 6) for _ in range(2))
    joined = maker.concatenate([maker.add(first, second), maker.layer("CONV_2D", first, 5)])
    data = maker.finish(maker.layer("CONV_2D", joined, 4))
    assert groups_of(data) == [
        (3, 1, "they are an input of the model"),
        (6, 2, None),
        (5, 1, None),
        (4, 1, "they are an output of the model"),
    ]


def test_squeeze_and_excitation_of_converters_from_nchw_is_followed() -> None:
    maker = GraphMaker(SHAPE)
    source = maker.layer("CONV_2D", maker.input, 8)
    data = maker.finish(maker.layer("CONV_2D", maker.excite(source, 4, is_moved=True), 2))
    assert groups_of(data)[1:3] == [(8, 2, None), (4, 1, None)]


@pytest.mark.parametrize(
    ("op", "options", "reason"),
    [
        ("SOFTMAX", ("SoftmaxOptions", {"beta": 1.0}), "SOFTMAX is not followed"),
        ("L2_NORMALIZATION", ("L2NormOptions", {}), "L2_NORMALIZATION is not followed"),
    ],
)
def test_an_op_that_mixes_channels_blocks_them(
    op: str, options: tuple[str, dict[str, float]], reason: str
) -> None:
    maker = GraphMaker(SHAPE)
    mixed = maker.op(op, [maker.layer("CONV_2D", maker.input, 8)], options=options)
    data = maker.finish(maker.layer("CONV_2D", mixed, 2))
    assert [each for each in groups_of(data) if each[0] == 8] == [(8, 1, reason), (8, 1, reason)]


def test_a_grouped_convolution_keeps_its_channels() -> None:
    maker = GraphMaker(SHAPE)
    source = maker.layer("CONV_2D", maker.input, 8)
    grouped = maker.layer("CONV_2D", source, 8, num_groups=2)
    data = maker.finish(maker.layer("CONV_2D", grouped, 2))
    reasons = {each[2] for each in groups_of(data) if each[0] == 8}
    assert reasons == {"CONV_2D reads them in groups"}


def test_a_reshape_that_splits_channels_blocks_them() -> None:
    maker = GraphMaker(SHAPE)
    source = maker.layer("CONV_2D", maker.input, 8)
    split = maker.reshape(source, (1, 30, 2, 4))
    data = maker.finish(maker.layer("CONV_2D", split, 2))
    assert (8, 1, "RESHAPE splits them") in groups_of(data)


def test_weights_that_serve_twice_make_their_layers_channels_one() -> None:
    maker = GraphMaker(SHAPE)
    source = maker.layer("CONV_2D", maker.input, 4)
    first, second = (maker.layer("CONV_2D", source, 6) for _ in range(2))
    one, other = maker.tree.subgraphs[0].operators[1:3]
    other.inputs = [int(other.inputs[0]), int(one.inputs[1]), int(other.inputs[2])]
    data = maker.finish(*(maker.layer("CONV_2D", each, 2) for each in (first, second)))
    assert (6, 2, None) in groups_of(data)


def test_weights_that_are_also_added_keep_their_channels() -> None:
    maker = GraphMaker((1, 1, 1, 3))
    source = maker.layer("CONV_2D", maker.input, 4)
    maker.layer("FULLY_CONNECTED", source, 1)
    operator = maker.tree.subgraphs[0].operators[-1]
    weights = maker.reshape(int(operator.inputs[1]), (1, 1, 1, 4))
    data = maker.finish(int(operator.outputs[0]), maker.add(source, weights))
    assert all(reason is not None for _, _, reason in groups_of(data))


def test_channels_that_must_stay_cannot_be_removed() -> None:
    data = small_model("cnn").data
    (blocked, *_) = [g for g in map_channels(read_flatbuffer(data)).groups if g.blocked]
    with pytest.raises(ValueError, match="must stay"):
        without(data, frozenset(blocked.channels[:1]))


def test_no_tensor_can_lose_all_its_channels() -> None:
    data = small_model("cnn").data
    channels = free(map_channels(read_flatbuffer(data)))[0]
    with pytest.raises(ValueError, match="would lose all its channels"):
        without(data, frozenset(channels))
