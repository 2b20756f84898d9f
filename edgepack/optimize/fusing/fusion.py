"""Fusion: a float model of fewer ops that answers the same.

Constants fold into the layers beside them, and what spells a hard-swish becomes one op. Each is
exact but for float32's rounding, so it serves every scheme, float32 itself included; and the
result is compared with the model as it came before anything is built on it.
"""

from dataclasses import asdict, dataclass
from typing import Final

from edgepack._fields import Fields
from edgepack.fidelity import LIMIT_DB
from edgepack.flatbuffer import read_flatbuffer, write_flatbuffer
from edgepack.graph import Tree, drop_unused
from edgepack.model import Model, read_model
from edgepack.optimize.fusing.folding import fold_constants
from edgepack.optimize.fusing.hard_swish import fuse_hard_swish, widen_relu_0_to_1
from edgepack.optimize.judging.evaluation import EvaluationSet, answer_candidate, compare_answers
from edgepack.optimize.recipes.recipe import Recipe

# Two orders of float32's operations differ by 100 dB and more; what is nearer than this is no
# longer the same function.
_PROOF_DB: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionFacts:
    """What fusion did to the float model.

    Attributes:
        num_folded: ops whose constants went into a layer beside them.
        num_hard_swish: HARD_SWISH ops that several others spelled.
        float_db: SQNR of the fused model against the one that came. Below 60 dB the model was
            left as it came, and the numbers are 0.
    """

    num_folded: int
    num_hard_swish: int
    float_db: float


def fusion_facts_to_json(facts: FusionFacts) -> dict[str, object]:
    """Give what fusion did as JSON values."""
    return asdict(facts)


def read_fusion_facts(fields: Fields) -> FusionFacts:
    """Read what fusion did from a table, noting faults in `fields`."""
    facts = FusionFacts(
        num_folded=fields.integer("num_folded", minimum=0),
        num_hard_swish=fields.integer("num_hard_swish", minimum=0),
        float_db=fields.number("float_db", minimum=-LIMIT_DB, maximum=LIMIT_DB),
    )
    fields.close()
    return facts


def fuse_tree(tree: Tree) -> tuple[int, int]:
    """Fuse in place; give the numbers of folded constants and of HARD_SWISH ops made."""
    num_hard_swish = fuse_hard_swish(tree)
    num_folded = fold_constants(tree)
    if num_folded or num_hard_swish:
        drop_unused(tree)
    return num_folded, num_hard_swish


def count_fusible(model: Model) -> int:
    """Give the number of ops that fusion would spare."""
    return sum(fuse_tree(read_flatbuffer(model.data)))


def fuse(model: Model, recipe: Recipe, evaluation: EvaluationSet) -> tuple[Model, FusionFacts]:
    """Give a float model of fewer ops; the same one where that is no longer the same function.

    Args:
        model: float32.
        recipe: whose part it is; for messages.
        evaluation: what the two are compared on.

    Raises:
        OptimizeError: the result cannot run on this machine.
    """
    tree = read_flatbuffer(model.data)
    # For the quantizer alone: in float it gains nothing, so it is no reason to fuse.
    num_widened = widen_relu_0_to_1(tree) if recipe.is_static else 0
    num_folded, num_hard_swish = fuse_tree(tree)
    if not (num_widened or num_folded or num_hard_swish):
        return model, FusionFacts(num_folded=0, num_hard_swish=0, float_db=LIMIT_DB)
    fused = read_model(write_flatbuffer(tree))
    proof = compare_answers(answer_candidate(fused, recipe, evaluation), fused, evaluation).sqnr_db
    if proof < _PROOF_DB:
        return model, FusionFacts(num_folded=0, num_hard_swish=0, float_db=proof)
    return fused, FusionFacts(num_folded=num_folded, num_hard_swish=num_hard_swish, float_db=proof)
