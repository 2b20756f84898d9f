"""What is doubtful about the data behind a variant."""

from edgepack.cache import Cache
from edgepack.errors import ModelError
from edgepack.optimize.activity import check_calibration
from edgepack.optimize.recipe import Recipe
from edgepack.workflow.material import Material
from edgepack.workflow.request import StepCallback


def calibration_doubts(
    material: Material, recipe: Recipe, *, cache: Cache, on_step: StepCallback
) -> tuple[str, ...]:
    """Say that calibration data are too few, or unlike what the variant was judged on.

    Recipes that look at no calibration data have no such doubts.

    Raises:
        CacheError: the result cannot be kept.
    """
    calibration = material.calibration_feeds
    if not recipe.needs_calibration or not calibration:
        return ()
    on_step("comparing calibration and evaluation data")
    try:
        findings = check_calibration(
            material.model, calibration, material.evaluation_set.feeds, cache=cache
        )
    # Keeping every tensor takes more memory than running the model, which has worked already.
    except ModelError as error:
        return (f"calibration and evaluation data could not be compared: {error.message}",)
    return tuple(each.advice for each in findings)
