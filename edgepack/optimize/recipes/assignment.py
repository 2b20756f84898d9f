"""Which representation each op gets where a recipe has exceptions; pure.

A layer that a recipe names gets its own scheme. An op without weights of its own follows its
neighbors: it is computed in the representation that all ops around it share, so that a
boundary lies only where two layers differ. Every other op has the recipe's scheme.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgepack._fields import join_faults, nearest
from edgepack.errors import RecipeError
from edgepack.flatbuffer import decode_name, op_name
from edgepack.optimize.recipes.recipe import Granularity, InterfaceType, LayerScheme, Recipe
from edgepack.profile import Scheme

_STATIC: Final = (Scheme.INT8, Scheme.INT16X8)
_FLOAT32: Final = 0  # TensorType of schema.fbs
# Ops that multiply: where they are computed matters more than a boundary does.
_HEAVY: Final = (
    "BATCH_MATMUL",
    "CONV_2D",
    "CONV_3D",
    "DEPTHWISE_CONV_2D",
    "EMBEDDING_LOOKUP",
    "FULLY_CONNECTED",
    "TRANSPOSE_CONV",
)


def find_exceptions(tree: Any, recipe: Recipe) -> dict[int, Scheme]:  # noqa: ANN401 - the generated classes are untyped
    """Give the scheme of each op that a recipe names, by its position in the main graph.

    An op is named by any tensor it gives; a name that several ops' tensors have means them all.

    Raises:
        RecipeError: names of tensors that no op gives; each with the nearest that one does.
    """
    givers: dict[str, list[int]] = {}
    graph = tree.subgraphs[0]
    for position, operator in enumerate(graph.operators or ()):
        for index in operator.outputs:
            givers.setdefault(decode_name(graph.tensors[int(index)].name), []).append(position)
    unknown = [each.layer for each in recipe.layers if each.layer not in givers]
    if unknown:
        faults = [
            f"layers: the model has no op that gives {name!r}{_near(name, list(givers))}"
            for name in unknown
        ]
        raise RecipeError(
            join_faults(f"recipe {recipe.name!r}", faults),
            remedy="Name the tensor that the layer's op gives; `edgepack inspect --layers` lists "
            "them.",
        )
    return {position: each.scheme for each in recipe.layers for position in givers[each.layer]}


def _near(name: str, known: list[str]) -> str:
    """Name what is near; a list of hundreds of tensors would help nobody."""
    hint = nearest(name, known)
    return "" if hint.startswith("; known") else hint


def assign_schemes(
    tree: Any,  # noqa: ANN401 - the generated classes are untyped
    exceptions: Mapping[int, Scheme],
    *,
    scheme: Scheme,
    interface: InterfaceType,
) -> dict[int, Scheme]:
    """Give the scheme of each op that has not the recipe's, by its position in the main graph.

    Args:
        tree: the float model.
        exceptions: the ops with schemes of their own.
        scheme: the recipe's.
        interface: element type of the inputs and outputs.
    """
    kinds = {_representation(each) for each in exceptions.values()} - {_representation(scheme)}
    outside = Scheme.FLOAT32 if interface is InterfaceType.FLOAT else _representation(scheme)
    assigned = dict(exceptions)
    for kind in sorted(kinds):
        same = {at for at, each in exceptions.items() if _representation(each) is kind}
        followers = _follow(tree, same, taken={*exceptions}, is_outside=outside is kind)
        assigned |= dict.fromkeys(sorted(followers), kind)
    return dict(sorted(assigned.items()))


def _representation(scheme: Scheme) -> Scheme:
    """Give what stands for the representation of activations under a scheme."""
    return scheme if scheme in _STATIC else Scheme.FLOAT32


def _follow(tree: Any, same: set[int], *, taken: set[int], is_outside: bool) -> set[int]:  # noqa: ANN401 - as above
    """Give the ops without weights whose neighbors are all among `same` or such ops themselves."""
    graph = tree.subgraphs[0]
    sources, targets = _neighbors(graph)
    followers = {
        position
        for position, operator in enumerate(graph.operators)
        if position not in taken
        and op_name(tree, operator) not in _HEAVY
        and (sources[position] or targets[position])
    }
    while True:
        kept = {
            position
            for position in followers
            if all(
                is_outside if other is None else other in same or other in followers
                for other in (*sources[position], *targets[position])
            )
        }
        if kept == followers:
            return kept
        followers = kept


def _neighbors(graph: Any) -> tuple[list[set[int | None]], list[set[int | None]]]:  # noqa: ANN401 - as above
    """Give for each op those it reads float tensors of, and those that read its own.

    None stands for the world outside: the model's inputs and outputs.
    """
    writers: dict[int, int | None] = {int(index): None for index in graph.inputs}
    for position, operator in enumerate(graph.operators):
        writers |= {int(index): position for index in operator.outputs}
    sources: list[set[int | None]] = [set() for _ in graph.operators]
    targets: list[set[int | None]] = [set() for _ in graph.operators]
    for position, operator in enumerate(graph.operators):
        for index in _real(graph, operator.inputs):
            if index in writers:
                writer = writers[index]
                sources[position].add(writer)
                if writer is not None:
                    targets[writer].add(position)
    for index in _real(graph, graph.outputs):
        writer = writers.get(index)
        if writer is not None:
            targets[writer].add(None)
    return sources, targets


def _real(graph: Any, indices: Sequence[int]) -> list[int]:  # noqa: ANN401 - as above
    return [int(i) for i in indices if i >= 0 and graph.tensors[int(i)].type == _FLOAT32]


def choose_granularity(granularity: Granularity, scheme: Scheme, op: str) -> Granularity:
    """Give how many weights of an op share a scale under a scheme.

    Depthwise convolutions that quantize while they run answer wrongly without a word when all
    channels share one: -5 dB on LiteRT 2.3, 0 dB on tflite-runtime 2.14.
    """
    if scheme is Scheme.DYNAMIC_RANGE and op == "DEPTHWISE_CONV_2D":
        return Granularity.CHANNELWISE
    return granularity


def name_layers(tree: Any, schemes: Mapping[int, Scheme]) -> tuple[LayerScheme, ...]:  # noqa: ANN401 - as above
    """Give schemes of ops under the names of what they give, as a recipe has them."""
    graph = tree.subgraphs[0]
    return tuple(
        LayerScheme(
            layer=decode_name(graph.tensors[int(graph.operators[position].outputs[0])].name),
            scheme=scheme,
        )
        for position, scheme in schemes.items()
    )
