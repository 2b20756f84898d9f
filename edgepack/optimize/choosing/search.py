"""The search for the best variant, as a conversation: it proposes a recipe, and is told what came.

Pure: whoever holds the conversation builds, judges and measures. The way is from what costs
little to what costs much:

1. the float model as it came, the reference of latency; the same with what the user wants taken
   away from every variant; the same with fewer ops, where there are ops to fuse, which all that
   follows is made from then; and float16;
2. each scheme with integer weights, refined (GPTQ, bias correction) where there are samples to
   see each layer's inputs, stock where there are none;
3. a scheme outside the floors with its worst layers left in float: as many more each time as the
   last time, until it is inside, then halved back: two runs for each doubling, where trying one
   layer after the other takes one run a layer;
4. the best that is inside with whole channels taken out, twice as many each time until it falls
   outside the floors, then halved back.

What was built before is not built again: results are kept by content, so that a search that was
broken off goes on where it was.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edgepack.optimize.choosing.choose import Objective
from edgepack.optimize.recipes.recipe import (
    NO_PRUNING,
    InterfaceType,
    LayerScheme,
    PruneKind,
    Pruning,
    RangeMethod,
    Recipe,
    Rounding,
    stock_recipe,
)
from edgepack.profile import Scheme

_INTEGER_WEIGHTS: Final = (
    Scheme.INT8,
    Scheme.DYNAMIC_RANGE,
    Scheme.WEIGHT_ONLY_INT8,
    Scheme.INT16X8,
)
_STATIC: Final = (Scheme.INT8, Scheme.INT16X8)
# The most of the multiplications that is taken out, in tenths.
_MOST_TENTHS: Final = 8
# More layers in float than this part of all are another scheme by the name of this one.
_LARGEST_FLOAT_PART: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSpace:
    """What may be tried on a model.

    Attributes:
        base: the scheme that leaves the model as it came: float32, or as_is.
        schemes: those of the target that this model can have, best first.
        objective: what the best variant is best in.
        can_refine: whether each layer's inputs can be seen: there are samples, and the model has
            no loop and no state.
        can_fuse: whether there are ops that fusion would spare.
        can_prune: whether whole channels may be taken out.
        num_layers: with weights.
        pruning: what the user asks of every variant; the float model is tried without it, too.
        interface: of the static schemes; with integers no others are tried beside the float model.
    """

    base: Scheme
    schemes: tuple[Scheme, ...]
    objective: Objective
    can_refine: bool
    can_fuse: bool
    can_prune: bool
    num_layers: int
    pruning: Pruning = NO_PRUNING
    interface: InterfaceType = InterfaceType.FLOAT

    @property
    def is_integer(self) -> bool:
        """Whether inputs and outputs are to be integers, which only static schemes have."""
        return self.interface is InterfaceType.INTEGER


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What came of a recipe that was proposed.

    Attributes:
        is_inside: whether it was built and is inside the floors.
        num_bytes: of the flatbuffer; None when it was not built.
        median_ns: its latency where that decides; None when it was not measured there.
        memory_bytes: most that an inference took; None when that is not known.
    """

    is_inside: bool
    num_bytes: int | None = None
    median_ns: float | None = None
    memory_bytes: int | None = None


RankLayers = Callable[[Scheme], Sequence[str]]
"""Names a model's layers, the worst in a scheme first."""

Search = Generator[Recipe, Trial, None]
"""Yields recipes, and is sent what came of each."""


def search(space: SearchSpace, rank_layers: RankLayers) -> Search:
    """Propose recipes one after the other, each in the light of those before.

    Args:
        space: what may be tried.
        rank_layers: asked at most once a scheme, when a scheme is outside the floors.
    """
    inside = [(yield from _propose(stock_recipe(space.base)))]
    base = stock_recipe(space.base, pruning=space.pruning)
    if space.pruning.share and not space.is_integer:
        yield from _propose(base)
    if space.can_fuse and not space.is_integer:
        fused = yield from _propose(_fused(base, space))
        inside += [fused] if fused[1].is_inside else []
    if Scheme.FLOAT16 in space.schemes and not space.is_integer:
        float16 = stock_recipe(Scheme.FLOAT16, pruning=space.pruning)
        found = yield from _propose(_fused(float16, space))
        inside += [found] if found[1].is_inside else []
    for scheme in space.schemes:
        if scheme not in (_STATIC if space.is_integer else _INTEGER_WEIGHTS):
            continue
        found = yield from _propose(_first_recipe(scheme, space))
        if not found[1].is_inside and found[1].num_bytes is not None and space.can_refine:
            found = yield from _leave_in_float(found[0], space, rank_layers)
        if found[1].is_inside:
            inside.append(found)
    if space.can_prune and not space.pruning.share:
        # Of float inputs and outputs nothing is made where integers are asked for.
        inside = inside[1:] if space.is_integer else inside
        if inside:
            yield from _take_channels_out(inside, space)


def _propose(recipe: Recipe) -> Generator[Recipe, Trial, tuple[Recipe, Trial]]:
    trial = yield recipe
    return recipe, trial


def _first_recipe(scheme: Scheme, space: SearchSpace) -> Recipe:
    """Give a scheme's most promising recipe: refined, where that can be done."""
    stock = stock_recipe(scheme, pruning=space.pruning, interface=space.interface)
    return refined(stock) if space.can_refine else _fused(stock, space)


def _fused(recipe: Recipe, space: SearchSpace) -> Recipe:
    """Give a recipe of fewer ops, where the model has some to spare."""
    return replace(recipe, name=f"{recipe.name}+fused", fuse=True) if space.can_fuse else recipe


def refined(recipe: Recipe) -> Recipe:
    """Give a recipe with all passes that better it, under a name that says so.

    Equalization is for static int8 alone: it betters activations, and weights hardly
    (EfficientNet-Lite0 int8 25.4 to 26.4 dB, weight_only_int8 33.6 to 32.8 dB).
    """
    return replace(
        recipe,
        name=f"{recipe.name}+refined",
        fuse=True,
        equalize=recipe.scheme is Scheme.INT8,
        bias_correction=True,
        rounding=Rounding.GPTQ,
        activation_ranges=RangeMethod.BEST if recipe.is_static else RangeMethod.MINMAX,
    )


def _leave_in_float(
    recipe: Recipe, space: SearchSpace, rank_layers: RankLayers
) -> Generator[Recipe, Trial, tuple[Recipe, Trial]]:
    """Find few layers whose absence brings a recipe inside the floors; the last trial if none."""
    order = tuple(rank_layers(recipe.scheme))
    largest = min(len(order), int(space.num_layers * _LARGEST_FLOAT_PART))
    scheme = _float_scheme(space)
    outside, count = 0, 1
    found: tuple[Recipe, Trial] = (recipe, Trial(is_inside=False))
    while outside < largest:
        found = yield from _propose(_with_float(recipe, order[:count], scheme))
        if found[1].is_inside:
            break
        outside, count = count, min(count * 2, largest)
    if not found[1].is_inside:
        return found
    while count - outside > max(1, count // 8):
        middle = (outside + count) // 2
        nearer = yield from _propose(_with_float(recipe, order[:middle], scheme))
        if nearer[1].is_inside:
            found, count = nearer, middle
        else:
            outside = middle
    return found


def _float_scheme(space: SearchSpace) -> Scheme:
    """Give what a layer that is left in float is stored as.

    Half as many bytes where bytes are what matters. They are made float32 when the model is
    loaded: with 8 of EfficientNet-Lite0's largest layers in float 7.2 instead of 11.4 MB, at 1.00x
    the latency (0.89 to 1.07; LiteRT 2.3 with XNNPACK) and the same SQNR.
    """
    is_half = space.objective is Objective.SIZE and Scheme.FLOAT16 in space.schemes
    return Scheme.FLOAT16 if is_half else Scheme.FLOAT32


def _with_float(recipe: Recipe, names: Sequence[str], scheme: Scheme) -> Recipe:
    layers = tuple(LayerScheme(layer=name, scheme=scheme) for name in sorted(names))
    word = "half" if scheme is Scheme.FLOAT16 else "float"
    return replace(recipe, name=f"{recipe.name}+{word}{len(layers)}", layers=layers)


def _take_channels_out(
    inside: Sequence[tuple[Recipe, Trial]], space: SearchSpace
) -> Generator[Recipe, Trial, None]:
    """Take channels out of the best that is inside, the most that stays there to a tenth."""
    recipe, _ = min(inside, key=lambda each: _cost(each[1], space.objective))
    kept, lost, tenths = 0, _MOST_TENTHS + 1, 1
    while kept < tenths < lost:
        pruning = Pruning(kind=PruneKind.STRUCTURED, share=tenths / 10)
        proposed = replace(recipe, name=f"{recipe.name}+{pruning.label}", pruning=pruning)
        trial = yield proposed
        if trial.is_inside:
            kept = tenths
        else:
            lost = tenths
        is_open = lost > _MOST_TENTHS
        tenths = min(2 * kept, _MOST_TENTHS) if is_open else (kept + lost) // 2


def _cost(trial: Trial, objective: Objective) -> tuple[float, float]:
    """Give what the objective wants little of; bytes where latency does not tell."""
    num_bytes = float("inf") if trial.num_bytes is None else float(trial.num_bytes)
    if objective is Objective.LATENCY and trial.median_ns is not None:
        return (trial.median_ns, num_bytes)
    if objective is Objective.MEMORY and trial.memory_bytes is not None:
        return (trial.memory_bytes, num_bytes)
    return (num_bytes, 0.0)
