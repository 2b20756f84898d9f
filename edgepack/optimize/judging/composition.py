"""What a variant is made of, beside what its recipe promises: size, interface, ops in float."""

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Final

from edgepack.model import Model
from edgepack.optimize.judging.findings import Finding, FindingKind, Severity
from edgepack.optimize.recipes.recipe import InterfaceType, Recipe
from edgepack.optimize.walking.works import Work, list_works
from edgepack.profile import Scheme

_FLOAT_SCHEMES: Final = frozenset({Scheme.FLOAT32, Scheme.FLOAT16, Scheme.AS_IS})
_SHOWN_KINDS: Final = 4


def check_composition(
    model: Model, reference: Model, recipe: Recipe, *, kept: Collection[str] = ()
) -> tuple[Finding, ...]:
    """Say where a variant is not what its recipe promises.

    Args:
        model: the variant.
        reference: the float model it was made from.
        recipe: how.
        kept: names of what ops give that were left in float on purpose, beside the recipe's own.
    """
    findings: list[Finding] = []
    if recipe.scheme not in {Scheme.FLOAT32, Scheme.AS_IS} and (
        model.num_bytes >= reference.num_bytes
    ):
        findings.append(
            Finding(
                kind=FindingKind.NOT_SMALLER,
                severity=Severity.WARNING,
                text=f"{recipe.scheme} has {model.num_bytes:,} bytes, and the float model "
                f"{reference.num_bytes:,}: it is not smaller",
                remedy="Pack the float model, unless this one is quicker",
            )
        )
    if recipe.interface is InterfaceType.INTEGER:
        specs = (*model.signature.inputs, *model.signature.outputs)
        floats = [repr(spec.name) for spec in specs if spec.dtype.startswith("float")]
        if floats:
            findings.append(
                Finding(
                    kind=FindingKind.FLOAT_INTERFACE,
                    severity=Severity.FAULT,
                    text=f"integer inputs and outputs were asked for, but {', '.join(floats)} "
                    f"{'is' if len(floats) == 1 else 'are'} in float",
                    remedy="Ask for float inputs and outputs (--io float), or leave out the op at "
                    "the border that cannot be quantized",
                )
            )
    if recipe.scheme not in _FLOAT_SCHEMES:
        findings += _find_float_ops(model, recipe, kept)
    return tuple(findings)


def _find_float_ops(model: Model, recipe: Recipe, kept: Collection[str]) -> Iterator[Finding]:
    works = [each for each in list_works(model) if recipe.is_static or each.has_weights]
    wished = {each.layer for each in recipe.layers} | {*kept}
    left = [each for each in works if _is_float(each, recipe) and each.name not in wished]
    if not left:
        return
    macs = sum(each.num_macs for each in works)
    share = sum(each.num_macs for each in left) / macs if macs else 0.0
    kinds = Counter(each.op for each in left).most_common()
    named = [op if count == 1 else f"{count} {op}" for op, count in kinds[:_SHOWN_KINDS]]
    rest = sum(count for _, count in kinds[_SHOWN_KINDS:])
    listed = ", ".join([*named, *([f"{rest} others"] if rest else [])])
    yield Finding(
        kind=FindingKind.FLOAT_OPS,
        severity=Severity.WARNING,
        text=f"{len(left)} of {len(works)} ops stayed in float ({listed}), with {share:.1%} of the "
        "multiplications",
        remedy="Look at them with `edgepack inspect --layers`; ops at the border of a float part "
        "convert their values each time",
    )


def _is_float(work: Work, recipe: Recipe) -> bool:
    return (work.output if recipe.is_static else work.weights) == "float32"
