"""Typed readers for TOML and JSON tables; each fault names its key path, and all are collected.

Modeled on the readers of pypa/packaging (`pylock.py`), which prefix every error with the
key path; here faults are gathered so that a user sees all of them at once.
"""

import difflib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, Self, TypeVar

E = TypeVar("E", bound=StrEnum)

_MISSING: Final = object()

_NAMES: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a table",
    list: "a list",
}


def describe(value: object) -> str:
    """Say what a TOML or JSON value is, in the user's words, bounded in length."""
    if value is None:
        return "null"
    text = repr(value)
    shown = text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - one line on a terminal
    return f"{_NAMES.get(type(value), type(value).__name__)} ({shown})"


class Fields:
    """Reads the keys of one table, noting faults instead of raising them.

    Every reader returns a value of the asked type in any case, so that reading goes on;
    `faults` is empty when, and only when, all values are real. Call `close` after the
    last reader: it reports keys that no reader asked for.
    """

    def __init__(
        self, table: Mapping[str, object], *, path: str = "", faults: list[str] | None = None
    ) -> None:
        self._table = table
        self._path = path
        self._asked: set[str] = set()
        self.faults: list[str] = [] if faults is None else faults

    def key_path(self, key: str) -> str:
        """Give the full dotted path of a key of this table."""
        return f"{self._path}.{key}" if self._path else key

    def has(self, key: str) -> bool:
        """Tell whether the table has the key."""
        return key in self._table

    def keys(self) -> tuple[str, ...]:
        """Give the table's keys, for a table whose keys are data."""
        return tuple(self._table)

    def fault(self, key: str, text: str) -> None:
        """Note a fault of a key."""
        self.faults.append(f"{self.key_path(key)}: {text}")

    def _read(self, key: str, kind: type, default: object) -> object:
        self._asked.add(key)
        if key not in self._table:
            if default is _MISSING:
                self.fault(key, f"missing; expected {_NAMES[kind]}")
            return _MISSING
        value = self._table[key]
        if kind is float and type(value) is int:
            return _to_float(value)
        if type(value) is not kind:  # bool is a subclass of int, so isinstance would let it pass
            self.fault(key, f"expected {_NAMES[kind]}, not {describe(value)}")
            return _MISSING
        return value

    def text(self, key: str, default: str | None = None, *, empty: bool = False) -> str:
        """Read a text; required when there is no default; `empty` allows an empty one."""
        value = self._read(key, str, _MISSING if default is None else default)
        if not isinstance(value, str):
            return default or ""
        if not value.strip() and not empty:
            self.fault(key, "expected a text, not an empty one")
        return value

    def optional_text(self, key: str) -> str | None:
        """Read a text that may be absent."""
        value = self._read(key, str, None)
        return value if isinstance(value, str) else None

    def nullable_text(self, key: str) -> str | None:
        """Read a required key whose value is a text (an empty one too) or null."""
        if self._table.get(key, _MISSING) is None:
            self._asked.add(key)
            return None
        return self.text(key, empty=True)

    def integer(
        self,
        key: str,
        default: int | None = None,
        *,
        minimum: int | None = None,
        maximum: int | None = None,
    ) -> int:
        """Read a whole number within bounds; required when there is no default."""
        value = self._read(key, int, _MISSING if default is None else default)
        if not isinstance(value, int):
            return default if default is not None else (minimum or 0)
        self._check_bounds(key, value, minimum, maximum)
        return value

    def optional_integer(
        self, key: str, *, minimum: int | None = None, maximum: int | None = None
    ) -> int | None:
        """Read a whole number within bounds that may be absent."""
        value = self._read(key, int, None)
        if not isinstance(value, int):
            return None
        self._check_bounds(key, value, minimum, maximum)
        return value

    def number(
        self,
        key: str,
        default: float | None = None,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
    ) -> float:
        """Read a finite number within bounds; required when there is no default."""
        value = self._read(key, float, _MISSING if default is None else default)
        if not isinstance(value, float):
            return default if default is not None else (minimum or 0.0)
        self._check_bounds(key, value, minimum, maximum)
        return value

    def optional_number(
        self, key: str, *, minimum: float | None = None, maximum: float | None = None
    ) -> float | None:
        """Read a finite number within bounds that may be absent."""
        value = self._read(key, float, None)
        if not isinstance(value, float):
            return None
        self._check_bounds(key, value, minimum, maximum)
        return value

    def _check_bounds(
        self, key: str, value: float, minimum: float | None, maximum: float | None
    ) -> None:
        if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN test
            self.fault(key, f"expected a finite number, not {value}")
        elif minimum is not None and value < minimum:
            self.fault(key, f"expected at least {minimum}, not {value}")
        elif maximum is not None and value > maximum:
            self.fault(key, f"expected at most {maximum}, not {value}")

    def boolean(self, key: str, default: bool | None = None) -> bool:  # noqa: FBT001 - the value's own type
        """Read true or false; required when there is no default."""
        value = self._read(key, bool, _MISSING if default is None else default)
        return value if isinstance(value, bool) else bool(default)

    def choice(self, key: str, options: type[E], default: E | None = None) -> E:
        """Read one of an enumeration's values; required when there is no default."""
        value = self._read(key, str, _MISSING if default is None else default)
        fallback = default if default is not None else next(iter(options))
        if not isinstance(value, str):
            return fallback
        return self._member(key, options, value) or fallback

    def _member(self, key: str, options: type[E], value: str) -> E | None:
        try:
            return options(value)
        except ValueError:
            names = [member.value for member in options]
            self.fault(key, f"unknown value {value!r}{nearest(value, names)}")
            return None

    def texts(self, key: str, default: Sequence[str] | None = None) -> tuple[str, ...]:
        """Read a list of non-empty texts; required when there is no default."""
        value = self._read(key, list, _MISSING if default is None else default)
        if not isinstance(value, list):
            return tuple(default or ())
        read: list[str] = []
        for index, item in enumerate(value):
            if isinstance(item, str) and item.strip():
                read.append(item)
            else:
                self.fault(f"{key}[{index}]", f"expected a text, not {describe(item)}")
        return tuple(read)

    def integers(self, key: str, *, minimum: int | None = None) -> tuple[int, ...]:
        """Read a required list of whole numbers."""
        value = self._read(key, list, _MISSING)
        if not isinstance(value, list):
            return ()
        read: list[int] = []
        for index, item in enumerate(value):
            if type(item) is int:
                self._check_bounds(f"{key}[{index}]", item, minimum, None)
                read.append(item)
            else:
                self.fault(f"{key}[{index}]", f"expected a whole number, not {describe(item)}")
        return tuple(read)

    def numbers(self, key: str) -> tuple[float, ...]:
        """Read a required list of finite numbers."""
        value = self._read(key, list, _MISSING)
        if not isinstance(value, list):
            return ()
        read: list[float] = []
        for index, item in enumerate(value):
            if type(item) in {int, float}:
                number = _to_float(item)
                self._check_bounds(f"{key}[{index}]", number, None, None)
                read.append(number)
            else:
                self.fault(f"{key}[{index}]", f"expected a number, not {describe(item)}")
        return tuple(read)

    def choices(
        self, key: str, options: type[E], default: Sequence[E] | None = None
    ) -> tuple[E, ...]:
        """Read a list of distinct enumeration values; required when there is no default."""
        names = self.texts(key, default)
        members: list[E] = []
        for index, name in enumerate(names):
            member = self._member(f"{key}[{index}]", options, name)
            if member in members:
                self.fault(f"{key}[{index}]", f"{name!r} stands twice")
            elif member is not None:
                members.append(member)
        return tuple(members)

    def table(self, key: str, *, required: bool = False) -> Self:
        """Read a nested table; an absent optional one reads as empty."""
        value = self._read(key, dict, _MISSING if required else None)
        table = value if isinstance(value, dict) else {}
        return type(self)(table, path=self.key_path(key), faults=self.faults)

    def tables(self, key: str) -> tuple[Self, ...]:
        """Read a list of nested tables; an absent one reads as empty."""
        value = self._read(key, list, None)
        if not isinstance(value, list):
            return ()
        read: list[Self] = []
        for index, item in enumerate(value):
            path = f"{key}[{index}]"
            if isinstance(item, dict):
                read.append(type(self)(item, path=self.key_path(path), faults=self.faults))
            else:
                self.fault(path, f"expected a table, not {describe(item)}")
        return tuple(read)

    def raw(self, key: str) -> object:
        """Give a value as it stands, or None, and count the key as known."""
        self._asked.add(key)
        return self._table.get(key)

    def close(self, refused: Mapping[str, str] | None = None) -> None:
        """Note each key nobody asked for, with the nearest known key or a refusal's reason."""
        for key in self._table:
            if key in self._asked:
                continue
            if refused and key in refused:
                self.fault(key, refused[key])
            else:
                self.fault(key, f"unknown key{nearest(key, sorted(self._asked))}")


def _to_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return float("inf") if value > 0 else float("-inf")


def nearest(name: str, known: Sequence[str]) -> str:
    """Give `; did you mean 'x'?`, or the list of known names when nothing is near."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if matches:
        return f"; did you mean {matches[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""


def join_faults(subject: str, faults: Sequence[str]) -> str:
    """Write a subject and its faults, one a line."""
    if len(faults) == 1:
        return f"{subject}: {faults[0]}"
    return "\n".join([f"{subject}: {len(faults)} faults", *(f"  - {fault}" for fault in faults)])
