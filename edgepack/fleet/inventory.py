"""A fleet file: the devices of a fleet, with their tags, targets and facts."""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edgepack._fields import Fields, describe, join_faults
from edgepack.device.wire.address import parse_address
from edgepack.errors import FleetError, UsageError

SCHEMA: Final = 1
MAXIMUM_FILE_BYTES: Final = 64 * 2**20
_MAX_DEVICES: Final = 100_000
_WORD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
# These are asked for by words of their own.
_RESERVED: Final = frozenset({"address", "tag", "target"})
_REMEDY: Final = "docs/fleets.md has an example of a fleet file."


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetDevice:
    """A device of a fleet.

    Attributes:
        address: as `parse_address` takes it.
        tags: words the user groups devices by.
        target: id of the target profile it is of; None where nobody said.
        root: its deploy root; None for the target's.
        facts: what else is known of it, by name.
    """

    address: str
    tags: tuple[str, ...] = ()
    target: str | None = None
    root: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Defaults:
    tags: tuple[str, ...]
    target: str | None
    root: str | None
    facts: Mapping[str, str]


def parse_fleet(text: str, *, name: str) -> tuple[FleetDevice, ...]:
    """Read a fleet file.

    Args:
        text: TOML.
        name: what the file is called in messages.

    Raises:
        FleetError: not TOML, or breaking the schema; all faults are listed.
    """
    try:
        fields = Fields(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise FleetError(f"{name}: not valid TOML: {error}", remedy=_REMEDY) from error
    schema = fields.integer("schema")
    if not fields.faults and schema != SCHEMA:
        fields.fault("schema", f"expected {SCHEMA}, not {schema}")
    defaults = _read_defaults(fields.table("defaults"))
    tables = fields.tables("devices")
    if not 1 <= len(tables) <= _MAX_DEVICES and not fields.faults:
        fields.fault("devices", f"expected from 1 to {_MAX_DEVICES} devices, not {len(tables)}")
    devices = tuple(_read_device(each, defaults) for each in tables)
    fields.close()
    fields.faults.extend(_twice(devices))
    if fields.faults:
        raise FleetError(join_faults(name, fields.faults[:20]), remedy=_REMEDY)
    return devices


def _read_defaults(fields: Fields) -> _Defaults:
    read = _Defaults(
        tags=_read_tags(fields),
        target=fields.optional_text("target"),
        root=fields.optional_text("root"),
        facts=_read_facts(fields.table("facts")),
    )
    fields.close({"address": "belongs to a device, not to the defaults"})
    return read


def _read_device(fields: Fields, defaults: _Defaults) -> FleetDevice:
    address = fields.text("address")
    if address:
        try:
            address = str(parse_address(address))
        except UsageError as error:
            fields.fault("address", error.message)
    tags = _read_tags(fields)
    target, root = fields.optional_text("target"), fields.optional_text("root")
    facts = _read_facts(fields.table("facts"))
    fields.close({"password": "a fleet file holds no secrets; use keys or an agent"})
    return FleetDevice(
        address=address,
        tags=tuple(dict.fromkeys((*defaults.tags, *tags))),
        target=target or defaults.target,
        root=root or defaults.root,
        facts={**defaults.facts, **facts},
    )


def _read_tags(fields: Fields) -> tuple[str, ...]:
    tags = fields.texts("tags", ())
    for index, tag in enumerate(tags):
        if not _WORD.fullmatch(tag):
            fields.fault(
                f"tags[{index}]", f"expected letters, digits, '.', '_' and '-', not {tag!r}"
            )
    return tags


def _read_facts(fields: Fields) -> dict[str, str]:
    facts: dict[str, str] = {}
    for key in fields.keys():  # noqa: SIM118 - a method of Fields, which is no mapping
        value = fields.raw(key)
        if not _WORD.fullmatch(key) or key in _RESERVED:
            fields.fault(key, "expected another name for a fact")
        elif isinstance(value, bool):
            facts[key] = str(value).lower()
        elif isinstance(value, str | int | float):
            facts[key] = str(value)
        else:
            fields.fault(key, f"expected a text, a number, true or false, not {describe(value)}")
    return facts


def _twice(devices: tuple[FleetDevice, ...]) -> list[str]:
    counts = Counter(each.address for each in devices if each.address)
    return [f"devices: {address!r} stands twice" for address, count in counts.items() if count > 1]
