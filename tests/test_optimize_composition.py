"""Variants that are not what their recipe promises."""

from dataclasses import replace

from edgepack.flatbuffer import op_name, read_flatbuffer
from edgepack.model import Model
from edgepack.optimize.judging.composition import check_composition
from edgepack.optimize.judging.findings import FindingKind, Severity
from edgepack.optimize.quantizing.quantize import quantize
from edgepack.optimize.recipes.recipe import InterfaceType, LayerScheme, Recipe, stock_recipe
from edgepack.optimize.walking.layers import find_layers
from edgepack.profile import Scheme
from tests.fixtures.models import make_feeds, small_model

INT8 = stock_recipe(Scheme.INT8)


def build(model: Model, recipe: Recipe) -> Model:
    return quantize(model, recipe, make_feeds(model, seed=5)).model


def test_a_whole_quantization_has_no_findings() -> None:
    model = small_model("cnn")
    for scheme in (Scheme.FLOAT16, Scheme.WEIGHT_ONLY_INT8, Scheme.INT8):
        recipe = stock_recipe(scheme)
        variant = build(model, recipe)
        assert check_composition(variant, replace(model, data=b"x" * 10**6), recipe) == ()


def test_ops_in_float_are_counted_with_their_multiplications() -> None:
    model = small_model("cnn")
    layers = find_layers(read_flatbuffer(model.data))
    layer = layers[0]
    mixed = replace(INT8, layers=(LayerScheme(layer=layer.name, scheme=Scheme.FLOAT32),))
    variant = build(model, mixed)
    # The recipe that wished for it has nothing to say of it.
    found = [each.kind for each in check_composition(variant, model, mixed)]
    assert FindingKind.FLOAT_OPS not in found
    (finding,) = [
        each
        for each in check_composition(variant, model, INT8)
        if each.kind is FindingKind.FLOAT_OPS
    ]
    share = layer.num_macs / sum(each.num_macs for each in layers)
    assert finding.severity is Severity.WARNING
    assert f"ops stayed in float ({layer.op}), with {share:.1%} of the multiplic" in finding.text
    kept = check_composition(variant, model, INT8, kept=(layer.name,))
    assert FindingKind.FLOAT_OPS not in [each.kind for each in kept]


def test_float_weights_count_where_only_weights_are_quantized() -> None:
    model = small_model("cnn")
    recipe = stock_recipe(Scheme.DYNAMIC_RANGE)
    (finding,) = [
        each
        for each in check_composition(model, model, recipe)
        if each.kind is FindingKind.FLOAT_OPS
    ]
    tree = read_flatbuffer(model.data)
    ops = [op_name(tree, each) for each in tree.subgraphs[0].operators]
    num_layers = len(find_layers(tree))
    assert num_layers < len(ops)
    assert finding.text.startswith(f"{num_layers} of {num_layers} ops stayed in float (")
    assert finding.text.endswith(", with 100.0% of the multiplications")


def test_a_file_that_did_not_shrink() -> None:
    model = small_model("cnn")
    found = check_composition(model, model, stock_recipe(Scheme.FLOAT16))
    assert [each.kind for each in found] == [FindingKind.NOT_SMALLER]
    size = f"{model.num_bytes:,}"
    assert (
        found[0].text == f"float16 has {size} bytes, and the float model {size}: it is not smaller"
    )
    assert check_composition(model, model, stock_recipe(Scheme.FLOAT32)) == ()


def test_float_inputs_where_integers_were_asked_for() -> None:
    model = small_model("cnn")
    recipe = stock_recipe(Scheme.INT8, interface=InterfaceType.INTEGER)
    faults = [
        each
        for each in check_composition(build(model, INT8), model, recipe)
        if each.severity is Severity.FAULT
    ]
    names = [repr(s.name) for s in (*model.signature.inputs, *model.signature.outputs)]
    assert [each.text for each in faults] == [
        f"integer inputs and outputs were asked for, but {', '.join(names)} are in float"
    ]
    assert not [
        each
        for each in check_composition(build(model, recipe), model, recipe)
        if each.kind is FindingKind.FLOAT_INTERFACE
    ]
