"""What the passes did, in sentences that name figures."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgepack.cache import Cache
from edgepack.optimize.choosing.account import describe_passes
from edgepack.optimize.choosing.variant import Variant, build_variant
from edgepack.optimize.equalizing.equalize import EqualizeFacts
from edgepack.optimize.fusing.fusion import FusionFacts
from edgepack.optimize.judging.evaluation import make_evaluation
from edgepack.optimize.pruning.structured import ChannelFacts, GroupFacts
from edgepack.optimize.recipes.recipe import stock_recipe
from edgepack.profile import Scheme
from tests.fixtures.mixtures import image_feeds, scaled_detector

_EQUALIZED = EqualizeFacts(
    num_groups=12,
    num_scaled=5,
    num_moved=2,
    num_copied=1,
    before_db=15.2,
    after_db=20.14,
    float_db=120.0,
)


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Variant:
    model = scaled_detector()
    return build_variant(
        model,
        stock_recipe(Scheme.INT8),
        calibration=image_feeds(),
        evaluation=make_evaluation(model, image_feeds(seed=2)),
        cache=Cache(root=Path(tmp_path_factory.mktemp("cache"))),
    )


def test_what_a_recipe_leaves_in_float_by_itself_is_told(variant: Variant) -> None:
    assert describe_passes(variant) == (
        "left in float, as channels of unlike ranges meet there: detections",
    )


def test_each_pass_tells_its_figures(variant: Variant) -> None:
    told = describe_passes(
        replace(
            variant,
            float_layers=tuple("abcdef"),
            float_ops=("MAXIMUM",),
            fusion_facts=FusionFacts(num_folded=1, num_hard_swish=20, float_db=110.0),
            equalize_facts=_EQUALIZED,
            channel_facts=ChannelFacts(
                num_macs_before=1000,
                num_macs_after=696,
                raw_bytes_before=1,
                raw_bytes_after=1,
                groups=(
                    GroupFacts(name="a", num_before=1300, num_after=900),
                    GroupFacts(name="b", num_before=8, num_after=8, blocked="MEAN mixes them"),
                ),
            ),
        )
    )
    assert told == (
        "fusion: 1 constant folded, 20 HARD_SWISH ops made",
        ("channel pruning: 30.4% of the multiplications are gone, 900 of 1,300 channels remain"),
        "channel pruning: 1 group of channels had to stay whole: MEAN mixes them (1)",
        (
            "equalization: 5 of 12 groups of channels scaled, 2 moved, 1 silent channel put to "
            "use; with these tensors alone rounded, 15.2 dB became 20.1 dB"
        ),
        "left in float, as channels of unlike ranges meet there: a, b, c, d and 2 more",
        "left in float, as the quantizer fails at them: MAXIMUM",
    )


def test_a_pass_that_found_nothing_says_so_or_keeps_silent(variant: Variant) -> None:
    idle = replace(_EQUALIZED, num_scaled=0, num_moved=0, num_copied=0)
    nothing = FusionFacts(num_folded=0, num_hard_swish=0, float_db=300.0)
    told = describe_passes(
        replace(variant, float_layers=(), equalize_facts=idle, fusion_facts=nothing)
    )
    assert told == ("equalization: helps none of 12 groups of channels",)
