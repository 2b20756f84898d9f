from pathlib import Path

import pytest

from edgepack.errors import ModelError
from edgepack.importers import SourceFormat, detect_format
from tests.fixtures.keras_sources import AskTensorflow, make_request

_FORM = "--signature 'IN1,IN2->OUT1,OUT2'"
# A GraphDef of one node named "x" of the op "Const".
_GRAPH = b"\x0a\x0a\x0a\x01x\x12\x05Const"


def test_a_graph_is_told_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "m.pb"
    path.write_bytes(_GRAPH)
    assert detect_format(path) is SourceFormat.FROZEN_GRAPH


@pytest.mark.parametrize(
    ("name", "content", "message", "remedy"),
    [
        (
            "saved_model.pb",
            b"\x08\x01\x12\x02\x0a\x00",
            "it is the graph of a SavedModel, which is a whole directory",
            "Give the folder instead: ",
        ),
        (
            "m.pb",
            _GRAPH[:-1],
            (
                "expected a TensorFlow graph, but its last field ends at byte 12 of 11: "
                "it is truncated"
            ),
            "Copy or freeze the model again",
        ),
        (
            "m.pb",
            b"\xff" * 20,
            (
                "expected a TensorFlow graph, but byte 0 starts no field of a TensorFlow graph: "
                "it is damaged"
            ),
            "Copy or freeze the model again",
        ),
        (
            "m.pb",
            b"\x0a\x02\x12\x00",
            "expected a TensorFlow graph, but it has no named node",
            "Copy or freeze the model again",
        ),
        (
            "m.onnx",
            _GRAPH,
            "expected an ONNX model by its name, but it holds a TensorFlow graph",
            "Rename it to m.pb",
        ),
    ],
)
def test_other_messages_are_refused_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, message: str, remedy: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        detect_format(path)
    assert caught.value.message == f"{path}: {message}"
    assert remedy in caught.value.remedy


@pytest.mark.toolchain
def test_ends_are_chosen_by_signature(
    keras_sources: Path, ask_tensorflow: AskTensorflow, tmp_path: Path
) -> None:
    path = keras_sources / "old.pb"

    def choose(wish: str | None, **shapes: list[int]) -> dict[str, object]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return make_request("convert", path, folder, signature=wish, input_shapes=shapes)

    answers = ask_tensorflow(
        [
            choose("->probs"),
            choose("scores->probs"),
            choose("shapeless->more", shapeless=[2, 3]),
            choose(None),
            choose("probs"),
            choose("x->nothing"),
            choose("shapeless->probs"),
            make_request("convert", keras_sources / "unfrozen.pb", tmp_path / "unfrozen"),
        ]
    )
    described = [
        [(spec["name"], spec["shape"]) for side in ("inputs", "outputs") for spec in each[side]]
        for each in answers[:3]
    ]
    assert described == [
        [("x", [1, 4]), ("probs", [1, 3])],
        [("scores", [1, 3]), ("probs", [1, 3])],
        [("shapeless", [2, 3]), ("more", [2, 3])],
    ]
    assert [(each["message"], each["remedy"]) for each in answers[3:]] == [
        (
            (
                "expected fixed input shapes, but input 'shapeless' has none, not even a number of "
                "dimensions"
            ),
            "Give --input-shape shapeless=1,... with its whole shape.",
        ),
        (
            (
                "--signature probs: expected the names of the graph's input and output nodes, each "
                "once, with '->' between them"
            ),
            f"Write {_FORM}; leave a side empty to keep what the graph itself tells.",
        ),
        (
            (
                "old.pb: --signature names nothing, but the graph has no such node with an output; "
                "its last ones are x, scores/ReadVariableOp, scores, probs, shapeless, more"
            ),
            f"Write names of nodes that the graph has: {_FORM}.",
        ),
        ("old.pb: the outputs probs also need x", f"Name every input: {_FORM}."),
        (
            (
                "unfrozen.pb: expected a frozen graph, whose weights are constants, but it has 1 "
                "variables without values: w"
            ),
            (
                "Freeze it with convert_variables_to_constants_v2 of the function that runs the "
                "model, or save it as a SavedModel and give that folder."
            ),
        ),
    ]
