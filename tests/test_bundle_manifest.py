"""The manifest's JSON is canonical, complete and refused with all its faults."""

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.bundle.manifest import (
    Artifact,
    Blob,
    BundleManifest,
    FileRecord,
    Parity,
    ParityRecord,
    Provenance,
    bundle_file_name,
    check_identity,
    default_name,
    encode_manifest,
    golden_sizes,
    manifest_to_json,
)
from edgepack.bundle.reading import parse_manifest
from edgepack.contract.preprocessing import Preprocessing
from edgepack.contract.record import (
    InputContract,
    InputKind,
    IOContract,
    Meaning,
    OutputContract,
    Place,
    plain_contract,
)
from edgepack.data import ImageLayout
from edgepack.errors import BundleError, UsageError
from edgepack.fidelity import Fidelity, OutputFidelity
from edgepack.model import Quantization, Signature, TensorSpec
from edgepack.optimize.recipes.recipe import (
    Granularity,
    InterfaceType,
    LayerScheme,
    PruneKind,
    Pruning,
    RangeMethod,
    Recipe,
    Rounding,
)
from edgepack.profile import EngineName, Scheme
from tests.fixtures.bundle import FIDELITY, PARITY, PROVENANCE, built_in_profile

texts = st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
decibels = st.floats(-300, 300)
shares = st.floats(0, 1)
hexes = st.text("0123456789abcdef", min_size=64, max_size=64)
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def quantizations(draw: st.DrawFn) -> Quantization:
    count = draw(st.integers(1, 3))
    return Quantization(
        scales=tuple(draw(st.lists(finite, min_size=count, max_size=count))),
        zero_points=tuple(draw(st.lists(st.integers(), min_size=count, max_size=count))),
        axis=draw(st.integers(0, 3)),
    )


specs = st.builds(
    TensorSpec,
    name=st.text(max_size=12),
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    dtype=st.sampled_from(["float32", "int8", "uint8", "int64", "bool"]),
    quantization=st.none() | quantizations(),
)
signatures = st.builds(
    Signature,
    inputs=st.lists(specs, max_size=3).map(tuple),
    outputs=st.lists(specs, min_size=1, max_size=3).map(tuple),
    key=st.none() | st.text(max_size=10),
)
recipes = st.builds(
    Recipe,
    name=texts,
    scheme=st.sampled_from(Scheme),
    granularity=st.sampled_from(Granularity),
    interface=st.sampled_from(InterfaceType),
    pruning=st.builds(Pruning, kind=st.sampled_from(PruneKind), share=st.floats(0, 0.99)),
    fuse=st.booleans(),
    equalize=st.booleans(),
    bias_correction=st.booleans(),
    rounding=st.sampled_from(Rounding),
    weight_ranges=st.sampled_from(RangeMethod),
    activation_ranges=st.sampled_from(RangeMethod),
    layers=st.dictionaries(texts, st.sampled_from(Scheme), max_size=3).map(
        lambda table: tuple(LayerScheme(layer=k, scheme=v) for k, v in sorted(table.items()))
    ),
)
fidelities = st.builds(
    Fidelity,
    outputs=st.lists(
        st.builds(
            OutputFidelity,
            output=st.text(max_size=9),
            sqnr_db=decibels,
            max_abs_error=st.floats(0, 1e300),
            cosine=st.floats(-1, 1),
            worst_channel=st.none() | st.integers(0, 999),
            worst_channel_axis=st.none() | st.integers(0, 4),
            worst_channel_sqnr_db=st.none() | decibels,
            top1_agreement=st.none() | shares,
        ),
        max_size=2,
    ).map(tuple),
    num_samples=st.integers(0, 10**6),
    top1_agreement=st.none() | shares,
    accuracy=st.none() | shares,
)
parities = st.builds(
    Parity,
    outputs=st.lists(
        st.builds(
            ParityRecord,
            output=st.text(max_size=9),
            sqnr_db=decibels,
            max_abs_error=st.floats(0, 1e300),
            cosine=st.floats(-1, 1),
        ),
        max_size=2,
    ).map(tuple),
    num_samples=st.integers(1, 1000),
    generated=st.booleans(),
    minimum_db=decibels,
    reference=texts,
)
provenances = st.builds(
    Provenance,
    source_name=texts,
    source_format=texts,
    source_sha256=hexes,
    converter=texts,
    tool_version=texts,
    versions=st.dictionaries(texts, texts, max_size=3).map(
        lambda each: tuple(sorted(each.items()))
    ),
    calibration_digest=st.none() | texts,
    calibration_num_samples=st.integers(0, 1000),
    evaluation_digest=st.none() | texts,
    attempts=st.lists(st.tuples(texts, st.none() | texts), max_size=3).map(tuple),
)
nonzero = st.floats(1e-3, 1e3)
preprocessings = st.builds(
    Preprocessing,
    scale=nonzero,
    mean=st.lists(finite, min_size=1, max_size=1).map(tuple),
    std=st.lists(nonzero, min_size=1, max_size=1).map(tuple),
)
ranges = st.tuples(finite, finite).map(lambda pair: (min(pair), max(pair)))


@st.composite
def contracts(draw: st.DrawFn, signature: Signature) -> IOContract:
    return IOContract(
        inputs=tuple(
            InputContract(
                name=spec.name,
                kind=draw(st.sampled_from(InputKind)),
                layout=draw(st.none() | st.sampled_from(ImageLayout)),
                value_range=draw(st.none() | ranges),
                preprocessing=(done := draw(st.none() | preprocessings)),
                place=draw(st.sampled_from(Place)) if done else Place.CALLER,
            )
            for spec in signature.inputs
        ),
        outputs=tuple(
            OutputContract(
                name=spec.name,
                meaning=draw(st.sampled_from(Meaning)),
                layout=draw(st.none() | st.sampled_from(ImageLayout)),
                class_axis=draw(st.sampled_from([None, *range(len(spec.shape))])),
            )
            for spec in signature.outputs
        ),
    )


@st.composite
def blobs_of(draw: st.DrawFn, num_bytes: int) -> tuple[Blob, ...]:
    ends = sorted({*draw(st.lists(st.integers(1, num_bytes), max_size=4)), num_bytes})
    return tuple(
        Blob(offset=first, num_bytes=end - first, sha256=draw(hexes))
        for first, end in itertools.pairwise([0, *ends])
    )


@st.composite
def manifests(draw: st.DrawFn) -> BundleManifest:
    signature, num_samples = draw(signatures), draw(st.integers(1, 64))
    sizes = {"files/labels.txt": 5, "model.tflite": draw(st.integers(0, 2**31))}
    sizes |= golden_sizes(signature, num_samples)
    return BundleManifest(
        name=draw(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", fullmatch=True)),
        version=draw(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}", fullmatch=True)),
        target=built_in_profile(draw(st.sampled_from(["raspberry-pi-5", "laptop-x86-64"]))),
        recipe=draw(recipes),
        signature=signature,
        contract=draw(contracts(signature)),
        fidelity=draw(fidelities),
        parity=draw(st.none() | parities),
        provenance=draw(provenances),
        artifacts=(Artifact(engine=EngineName.TFLITE, file="model.tflite"),),
        golden_num_samples=num_samples,
        files=tuple(
            FileRecord(path=path, sha256=draw(hexes), num_bytes=sizes[path])
            for path in sorted(sizes)
        ),
        class_names=draw(st.none() | st.just("files/labels.txt")),
        blobs=draw(blobs_of(sizes["model.tflite"])) if sizes["model.tflite"] else (),
    )


SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", shape=(1, 2), dtype="float32"),),
    outputs=(TensorSpec(name="output_0", shape=(1, 3), dtype="float32"),),
    key="serving_default",
)
MANIFEST = BundleManifest(
    name="digits",
    version="1.0",
    target=built_in_profile(),
    recipe=Recipe(name="float32", scheme=Scheme.FLOAT32),
    signature=SIGNATURE,
    contract=plain_contract(SIGNATURE),
    fidelity=FIDELITY,
    parity=PARITY,
    provenance=PROVENANCE,
    artifacts=(Artifact(engine=EngineName.TFLITE, file="model.tflite"),),
    golden_num_samples=1,
    files=tuple(
        FileRecord(path=path, sha256="00" * 32, num_bytes=size)
        for path, size in sorted(({"model.tflite": 9} | dict(golden_sizes(SIGNATURE, 1))).items())
    ),
)


def message_of(table: object) -> str:
    with pytest.raises(BundleError) as caught:
        parse_manifest(canonical(table))
    return caught.value.message


def canonical(table: object) -> bytes:
    return f"{json.dumps(table, indent=1, sort_keys=True)}\n".encode()


@given(manifests())
def test_every_manifest_is_read_back_as_it_was(manifest: BundleManifest) -> None:
    data = encode_manifest(manifest)
    assert parse_manifest(data) == manifest
    assert data == encode_manifest(parse_manifest(data))


def test_what_is_needed_elsewhere_stands_in_the_json() -> None:
    table: Any = manifest_to_json(MANIFEST)
    assert table["format"] == 3
    assert table["target"]["id"] == "raspberry-pi-4"
    assert table["target"]["profile"]["hardware"]["arch"] == "aarch64"
    assert table["provenance"]["source"]["sha256"] == "5d" * 32
    assert table["provenance"]["calibration"] == {"digest": "ca" * 32, "num_samples": 64}
    assert table["fidelity"]["sqnr_db"] == 31.25
    assert table["parity"]["outputs"][0]["output"] == "output_0"


def test_all_faults_are_listed_with_their_keys() -> None:
    table: Any = manifest_to_json(MANIFEST)
    table["name"] = "../digits"
    table["target"]["profile"]["hardware"]["arch"] = "aarch65"
    table["recipe"]["prune"] = {"share": 2}
    table["signature"]["inputs"][0]["dtype"] = "float31"
    table["files"][0]["sha256"] = "no"
    table["provenance"]["source"].pop("name")
    table["extra"] = 1
    assert message_of(table) == (
        "manifest.json: 7 faults\n"
        "  - name: expected letters, digits and '._-', not starting with '.' or '-', but got "
        "'../digits'\n"
        "  - signature.inputs[0].dtype: unknown value 'float31'; did you mean 'float32'?\n"
        "  - target.profile.hardware.arch: unknown value 'aarch65'; did you mean 'aarch64'?\n"
        "  - recipe.prune.share: expected at most 0.99, not 2.0\n"
        "  - provenance.source.name: missing; expected a text\n"
        "  - files[0].sha256: expected 64 lowercase hex digits, not 'no'\n"
        "  - extra: unknown key; known: artifacts, blobs, class_names, contract, fidelity, files, "
        "format, golden, name, parity, provenance, recipe, signature, target, version"
    )


SHA256 = "ab" * 32


@pytest.mark.parametrize(
    ("blobs", "fault"),
    [
        ([f"0 5 {SHA256}", f"6 4 {SHA256}"], "blobs[1]: expected it to begin at 5, not 6"),
        ([f"0 5 {SHA256}", f"4 4 {SHA256}"], "blobs[1]: expected it to begin at 5, not 4"),
        ([f"0 8 {SHA256}"], "blobs: expected 9 bytes of model.tflite in all, not 8"),
        (
            [f"0 9999999999 {SHA256}"],
            "blobs: expected 9 bytes of model.tflite in all, not 9999999999",
        ),
        (
            [f"00 9 {SHA256}"],
            "expected the canonical spelling: it was written by another program",
        ),
        (
            ["0 9 $(reboot)"],
            "blobs[0]: expected offset, bytes and 64 lowercase hex digits, not '0 9 $(reboot)'",
        ),
        (
            [f"0 0 {SHA256}"],
            f"blobs[0]: expected offset, bytes and 64 lowercase hex digits, not '0 0 {SHA256}'",
        ),
        ([], "blobs: expected 1 to 256, not 0"),
        ([f"{place} 1 {SHA256}" for place in range(257)], "blobs: expected 1 to 256, not 257"),
        ([7], "blobs[0]: expected a text, not a whole number (7)"),
    ],
)
def test_blobs_that_are_not_the_models_file_are_refused(blobs: list[object], fault: str) -> None:
    table: Any = manifest_to_json(MANIFEST)
    table["blobs"] = blobs
    assert fault in message_of(table)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b'{"format": NaN}', "NaN is not a finite number"),
        (b'{"format": -Infinity}', "-Infinity is not a finite number"),
        (b"[" * 100_000, "maximum recursion depth exceeded"),
        (b'{"format": ' + b"9" * 5000 + b"}", "Exceeds the limit (4300 digits)"),
        (b"\xff", "'ascii' codec can't decode byte 0xff"),
    ],
)
def test_what_is_no_json_is_refused(data: bytes, fault: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse_manifest(data)
    assert caught.value.message.startswith(
        f"manifest.json: expected JSON, but reading it failed: {fault}"
    )


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([*manifest_to_json(MANIFEST), "id", "inputs", "num_samples"]), inner
    ),
))  # fmt: skip
def test_any_other_json_is_refused(table: object) -> None:
    assert message_of(table)


@given(st.data())
def test_any_value_replaced_by_another_kind_is_a_bundle_error(data: st.DataObject) -> None:
    table: Any = manifest_to_json(MANIFEST)
    place = table
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and data.draw(st.booleans()):
            place = place[key]
            continue
        break
    before = place[key]
    place[key] = data.draw(
        st.sampled_from([None, True, -1, 10**400, 0.5, "", "x", [], [None], {}, {"a": 1}])
    )
    if canonical(before) == canonical(place[key]):
        return
    try:
        manifest = parse_manifest(canonical(table))
    except BundleError:
        return
    assert manifest != MANIFEST  # what was changed was a free value, and was read as it stands


def test_another_spelling_of_the_same_is_refused() -> None:
    compact = json.dumps(manifest_to_json(MANIFEST), sort_keys=True).encode()
    with pytest.raises(BundleError) as caught:
        parse_manifest(compact)
    assert caught.value.message == (
        "manifest.json: expected the canonical spelling: it was written by another program"
    )


def test_a_later_format_says_what_to_do() -> None:
    with pytest.raises(BundleError) as caught:
        parse_manifest(b'{"format": 4, "new": {}}')
    assert caught.value.message == "manifest.json: expected format 3, not 4"
    assert caught.value.remedy == (
        "Use the version of EdgePack that wrote the bundle, or pack the model again."
    )


def test_a_changed_profile_is_found() -> None:
    table: Any = manifest_to_json(MANIFEST)
    table["target"]["profile"]["hardware"]["ram_mib"] = 1
    assert message_of(table) == (
        "manifest.json: target.profile_sha256: expected the digest of `profile`"
    )


def test_records_must_fit_the_signature() -> None:
    files = tuple(record for record in MANIFEST.files if "host" not in record.path)
    stray = FileRecord(path="stray.bin", sha256="00" * 32, num_bytes=1)
    broken = replace(MANIFEST, files=(*files, stray), class_names="files/none.txt")
    assert message_of(manifest_to_json(broken)) == (
        "manifest.json: class_names: expected the path of a listed file, not 'files/none.txt'"
    )
    broken = replace(broken, class_names=None)
    assert message_of(manifest_to_json(broken)) == (
        "manifest.json: 2 faults\n"
        "  - files: expected 'golden/host-000.bin' of 12 bytes, but got none\n"
        "  - files: 'stray.bin' is neither an artifact, golden, example.py, recipe.toml, nor "
        "below files/"
    )


def test_a_manifest_may_not_list_itself_or_climb_out() -> None:
    files = tuple(
        FileRecord(path=path, sha256="00" * 32, num_bytes=1)
        for path in ("../../etc/passwd", "MANIFEST.json", "model.tflite")
    )
    assert message_of(manifest_to_json(replace(MANIFEST, files=files))) == (
        "manifest.json: 2 faults\n"
        "  - entry '../../etc/passwd': expected a relative path of letters, digits and '._+-' "
        "whose parts neither start with '.' or '-' nor end with '.', not '../../etc/passwd'\n"
        "  - entry 'MANIFEST.json': clashes with 'manifest.json', which differs by case at most"
    )


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("digits.keras", "digits"),
        ("mobilenet_v2.1.tflite", "mobilenet_v2.1"),
        ("my model (2).onnx", "my-model-2"),
        ("saved_model_dir", "saved_model_dir"),
        ("...h5", "model"),
        ("größe.PTH", "gr-e"),
        ("net.py:make", "net-make"),
        ("package.module:make", "package.module-make"),
    ],
)
def test_a_bundle_is_named_after_its_source(source: str, name: str) -> None:
    assert default_name(source) == name
    check_identity(name, "0a1b2c3d")


@given(st.text(max_size=80))
def test_every_source_gives_a_valid_name(source: str) -> None:
    check_identity(default_name(source), "1")


@pytest.mark.parametrize("name", ["", ".hidden", "-rf", "a/b", "a b", "..", "x" * 65, "a\n"])
def test_names_that_cannot_be_files_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_identity(name, "1")
    assert caught.value.message == (
        "the bundle's name: name: expected letters, digits and '._-', not starting with '.' or "
        f"'-', but got {name!r}"
    )
    assert caught.value.remedy == "Give another --name or --version; at most 64 characters."


def test_the_file_name() -> None:
    assert bundle_file_name("digits", "1.0", "raspberry-pi-4") == (
        "digits-1.0-raspberry-pi-4.edgepack"
    )
