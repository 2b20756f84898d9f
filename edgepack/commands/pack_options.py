"""Options of the verbs that pack, and the request they make."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from edgepack._fields import nearest
from edgepack.commands.console import warn
from edgepack.commands.contract_options import make_contract_request
from edgepack.commands.floor_options import (
    floor_options,
    make_floors,
    parse_metric,
    parse_share,
)
from edgepack.commands.import_options import make_import_options
from edgepack.commands.named_shapes import (
    parse_shapes,
    requests_by_shape,
    select_source,
    shape_option,
)
from edgepack.commands.options import (
    EXISTING_FILE,
    OUTPUT_FILE,
    apply_options,
)
from edgepack.commands.signing_options import sign_option
from edgepack.errors import UsageError

if TYPE_CHECKING:
    from edgepack.data import ImagePreprocessing
    from edgepack.optimize.recipes.recipe import Pruning, Recipe
    from edgepack.workflow.request import PackRequest

F = TypeVar("F", bound=Callable[..., Any])

_LARGEST_PRUNE: Final = 0.99
AUTO: Final = "auto"
_NUMBERS: Final = re.compile(r"-?\d+(\.\d+)?(,-?\d+(\.\d+)?)*")


def parse_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read numbers separated by commas.

    Raises:
        UsageError: anything else.
    """
    if text is None:
        return None
    if not _NUMBERS.fullmatch(text):
        raise UsageError(
            f"{option}: expected numbers separated by commas, not {text!r}",
            remedy=f"Write for instance {option} 0.485,0.456,0.406.",
        )
    return tuple(float(number) for number in text.split(","))


def image_options(function: F) -> F:
    """Add the options that say how pictures become arrays."""
    return apply_options(
        click.option("--image-size", metavar="HxW", help="Resize pictures to this."),
        click.option("--image-mean", metavar="M[,M,M]", help="Subtract from scaled pixels."),
        click.option("--image-std", metavar="S[,S,S]", help="Then divide by."),
        click.option(
            "--image-scale", type=float, metavar="X", help="Multiply pixels by [default: 1/255]."
        ),
        click.option(
            "--image-layout", type=click.Choice(["NHWC", "NCHW"]), help="Layout of pictures."
        ),
    )(function)


def pack_options(function: F) -> F:
    """Add the options that say what is built, from which data, and within which floors."""
    return apply_options(
        click.option("--target", "-t", required=True, metavar="NAME|FILE", help="Target profile."),
        shape_option,
        click.option(
            "--recipe",
            "recipes",
            multiple=True,
            metavar="NAME|FILE",
            help="auto searches for the best variant; else a recipe to build, or several to choose "
            "from [default: auto].",
        ),
        click.option(
            "--objective",
            type=click.Choice(["latency", "size", "memory"]),
            default="latency",
            show_default=True,
            help="What the best variant is best in; memory is what an inference adds to the "
            "process that runs it.",
        ),
        click.option(
            "--prune",
            metavar="[KIND:]SHARE",
            help="Share of each layer's weights to set to zero, smallest first: 50% or 0.5; "
            "sparsegpt:0.7 makes up for them in the others; structured:0.3 takes whole channels "
            "out, until that share of the multiplications is gone.",
        ),
        click.option(
            "--io",
            "interface",
            type=click.Choice(["float", "integer"]),
            default="float",
            show_default=True,
            help="Element type of inputs and outputs of static recipes.",
        ),
        click.option(
            "--data",
            multiple=True,
            metavar="[SHAPE=]SOURCE",
            help="Calibration and evaluation data: .npz, .npy, a folder of images, or "
            "module:function. Every other sample calibrates, the rest evaluates; of a model that "
            "keeps state, the first half and the second.",
        ),
        click.option(
            "--eval-data",
            multiple=True,
            metavar="[SHAPE=]SOURCE",
            help="Evaluate on these data instead.",
        ),
        click.option("--labels", type=EXISTING_FILE, help="Class ids of the evaluated samples."),
        click.option("--class-names", type=EXISTING_FILE, help="Class names, one a line."),
        image_options,
        floor_options,
        click.option(
            "--remeasure",
            is_flag=True,
            help="Take this machine's latencies anew instead of those kept from earlier.",
        ),
        click.option(
            "--save-recipe",
            type=OUTPUT_FILE,
            metavar="FILE",
            help="Write the packed variant's recipe to this TOML file: packing with --recipe FILE "
            "gives the same variant again.",
        ),
        click.option("--strict", is_flag=True, help="Exit with 4 when the variant is not inside."),
        click.option("--name", help="Name of the bundle [default: the model's file name]."),
        click.option("--version", help="Version [default: start of the source's digest]."),
        sign_option,
        click.option(
            "--file",
            "extra_files",
            type=EXISTING_FILE,
            multiple=True,
            help="Further file to put into the bundle.",
        ),
    )(function)


def parse_pruning(text: str | None) -> "Pruning":
    """Read `50%`, `0.5` or `structured:0.3` as what to prune.

    Raises:
        UsageError: none of these, or a share outside 0 to 0.99.
    """
    from edgepack.optimize.recipes.recipe import NO_PRUNING, PruneKind, Pruning

    if text is None:
        return NO_PRUNING
    kind, colon, number = text.rpartition(":")
    known = [each.value for each in PruneKind]
    if colon and kind not in known:
        raise UsageError(
            f"--prune: unknown kind {kind!r}{nearest(kind, known)}",
            remedy=f"Write --prune SHARE, or KIND:SHARE with a kind of {', '.join(known)}.",
        )
    share = parse_share("--prune", number)
    if share > _LARGEST_PRUNE:
        raise UsageError(
            f"--prune: expected at most 99%, not {text!r}",
            remedy="A layer of zeros is no layer; write for instance --prune 50%.",
        )
    return Pruning(kind=PruneKind(kind) if colon else PruneKind.MAGNITUDE, share=share)


def make_images(given: Mapping[str, Any]) -> "ImagePreprocessing | None":
    """Make the preprocessing of pictures of `image_options`; None when none asks for any.

    Raises:
        UsageError: a size that is not HxW, or means that are no numbers.
    """
    from edgepack.data import ImageLayout, ImagePreprocessing

    names = ("image_size", "image_mean", "image_std", "image_scale", "image_layout")
    size, mean, std, scale, layout = (given[name] for name in names)
    if all(each is None for each in (size, mean, std, scale, layout)):
        return None
    match = re.fullmatch(r"(\d{1,5})(?:[x,](\d{1,5}))?", size) if size else None
    if size and match is None:
        raise UsageError(
            f"--image-size: expected HEIGHTxWIDTH, not {size!r}",
            remedy="Write for instance --image-size 224x224.",
        )
    return ImagePreprocessing(
        size=(int(match[1]), int(match[2] or match[1])) if match else None,
        mean=parse_numbers("--image-mean", mean) or (0.0,),
        std=parse_numbers("--image-std", std) or (1.0,),
        scale=scale,
        layout=ImageLayout(layout) if layout else None,
    )


def make_requests(
    model: Path, output: Path | None, given: Mapping[str, Any]
) -> "tuple[tuple[str | None, PackRequest], ...]":
    """Make the request of each named shape, or the only one under None.

    Raises:
        UsageError, ProfileError, RecipeError: as `make_request`.
    """
    shapes = parse_shapes(given["shapes"])

    def make(shape: str | None) -> "PackRequest":
        sources = {
            key: select_source(option, given[key], shapes=shapes, shape=shape)
            for key, option in (("data", "--data"), ("eval_data", "--eval-data"))
        }
        return make_request(model, output, {**given, **sources})

    return requests_by_shape(make, shapes, output=output)


def make_request(model: Path, output: Path | None, given: Mapping[str, Any]) -> "PackRequest":
    """Make the request from the options of `import_options`, `contract_options`, `pack_options`.

    `data` and `eval_data` are single sources here.

    Raises:
        UsageError, ProfileError, RecipeError: an option is not right, or names nothing known.
    """
    from edgepack.catalog import find_profile, user_profile_directory
    from edgepack.optimize.choosing.choose import Objective
    from edgepack.optimize.recipes.recipe import InterfaceType
    from edgepack.workflow.request import DataRequest, PackRequest

    profile, origin = find_profile(given["target"], user_directory=user_profile_directory())
    if origin.shadows_built_in:
        warn(f"{origin.path} hides the built-in target {profile.id}")
    imports = make_import_options(given)
    images = make_images(given)
    _check_images(images, (given["data"], given["eval_data"]))
    data = DataRequest(
        source=given["data"],
        evaluation=given["eval_data"],
        labels=given["labels"],
        images=images,
        metric=parse_metric(given["metric"]),
    )
    return PackRequest(
        model=model,
        profile=profile,
        recipes=_make_recipes(given),
        pruning=parse_pruning(given["prune"]),
        interface=InterfaceType(given["interface"]),
        objective=Objective(given["objective"]),
        floors=make_floors(given),
        data=data,
        imports=imports,
        contract=make_contract_request(given),
        minimum_parity_db=given["allow_parity"],
        name=given["name"],
        version=given["version"],
        output=output,
        class_names=given["class_names"],
        extra_files=tuple(given["extra_files"]),
        remeasure=given["remeasure"],
    )


def _check_images(images: "ImagePreprocessing | None", sources: "tuple[str | None, ...]") -> None:
    """Refuse options for pictures when there are none they could apply to."""
    named = [source for source in sources if source is not None]
    if images is None or any(not source.endswith((".npz", ".npy")) for source in named):
        return
    raise UsageError(
        "--image-size, --image-mean, --image-std, --image-scale and --image-layout say how "
        "pictures become arrays, but "
        + (f"{named[0]} holds arrays" if named else "there is no --data"),
        remedy="Leave them out, or give a folder of images with --data.",
    )


def _check_recipe_files(given: Mapping[str, Any]) -> None:
    """Refuse options that a recipe file decides for itself: they would be ignored.

    Raises:
        UsageError: names the options and the first such file.
    """
    from edgepack.optimize.recipes.recipe import InterfaceType
    from edgepack.profile import Scheme

    files = [name for name in given["recipes"] if name not in {each.value for each in Scheme}]
    is_float = InterfaceType(given["interface"]) is InterfaceType.FLOAT
    options = [] if given["prune"] is None else [("--prune", "[prune]")]
    options += [] if is_float else [("--io", "interface")]
    if not files or not options:
        return
    names, keys = (" and ".join(column) for column in zip(*options, strict=True))
    raise UsageError(
        f"{names}: the recipe file {files[0]} says by itself what it prunes and what its inputs "
        "and outputs are",
        remedy=f"Leave {names} out, and write {keys} into the file.",
    )


def _make_recipes(given: Mapping[str, Any]) -> "tuple[Recipe, ...]":
    """Give the recipes the user named; none when the best is to be searched for.

    Raises:
        UsageError: a name stands twice, or `auto` stands beside others.
    """
    from edgepack.optimize.recipes.recipe import InterfaceType
    from edgepack.optimize.recipes.recipe_file import find_recipe

    names = given["recipes"]
    if names in {(), (AUTO,)}:
        return ()
    if AUTO in names:
        raise UsageError(
            f"--recipe: {AUTO} searches for the best variant and stands alone",
            remedy=f"Leave out the others, or {AUTO}.",
        )
    interface = InterfaceType(given["interface"])
    pruning = parse_pruning(given["prune"])
    recipes = tuple(find_recipe(name, pruning=pruning, interface=interface) for name in names)
    _check_recipe_files(given)
    repeated = {
        recipe.name for recipe in recipes if [r.name for r in recipes].count(recipe.name) > 1
    }
    if repeated:
        raise UsageError(
            f"--recipe: {', '.join(sorted(repeated))} stands twice",
            remedy="Name each recipe once; a recipe file can set a `name` of its own.",
        )
    return recipes
