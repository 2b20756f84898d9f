"""The typed readers note every fault with its key path and never raise."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack._fields import Fields, describe, join_faults, nearest


class Color(StrEnum):
    RED = "red"
    GREEN = "green"


READERS: dict[str, Callable[[Fields], object]] = {
    "text": lambda fields: fields.text("key"),
    "optional_text": lambda fields: fields.optional_text("key"),
    "nullable_text": lambda fields: fields.nullable_text("key"),
    "integer": lambda fields: fields.integer("key", minimum=0, maximum=9),
    "optional_integer": lambda fields: fields.optional_integer("key", minimum=0, maximum=9),
    "number": lambda fields: fields.number("key", minimum=0, maximum=9),
    "optional_number": lambda fields: fields.optional_number("key", minimum=0, maximum=9),
    "numbers": lambda fields: fields.numbers("key"),
    "boolean": lambda fields: fields.boolean("key"),
    "choice": lambda fields: fields.choice("key", Color),
    "choices": lambda fields: fields.choices("key", Color),
    "texts": lambda fields: fields.texts("key"),
    "integers": lambda fields: fields.integers("key", minimum=0),
    "table": lambda fields: fields.table("key", required=True),
    "tables": lambda fields: fields.tables("key"),
}
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**400, 10**401)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(Color),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.sampled_from(sorted(READERS)), values)
def test_whatever_stands_there_no_reader_raises(reader: str, value: object) -> None:
    fields = Fields({"key": value}, path="above")
    READERS[reader](fields)
    fields.close()
    assert all(fault.startswith("above.key") for fault in fields.faults)


@pytest.mark.parametrize(
    ("reader", "value", "fault"),
    [
        ("text", 3, "expected a text, not a whole number (3)"),
        ("text", " ", "expected a text, not an empty one"),
        ("optional_text", ["x"], "expected a text, not a list (['x'])"),
        ("nullable_text", False, "expected a text, not true or false (False)"),
        ("integer", True, "expected a whole number, not true or false (True)"),
        ("integer", 1.0, "expected a whole number, not a number (1.0)"),
        ("integer", 10, "expected at most 9, not 10"),
        ("optional_integer", -1, "expected at least 0, not -1"),
        ("number", float("nan"), "expected a finite number, not nan"),
        ("number", 10**400, "expected a finite number, not inf"),
        ("optional_number", float("-inf"), "expected a finite number, not -inf"),
        ("boolean", 1, "expected true or false, not a whole number (1)"),
        ("choice", "rde", "unknown value 'rde'; did you mean 'red'?"),
        ("choice", "blue", "unknown value 'blue'; known: red, green"),
        ("table", None, "expected a table, not null"),
        ("tables", {}, "expected a list, not a table ({})"),
    ],
)
def test_a_wrong_value_is_named(reader: str, value: object, fault: str) -> None:
    fields = Fields({"key": value}, path="a.b")
    READERS[reader](fields)
    assert fields.faults == [f"a.b.key: {fault}"]


@pytest.mark.parametrize(
    ("reader", "value", "fault"),
    [
        ("numbers", [1, "x"], "[1]: expected a number, not a text ('x')"),
        ("numbers", [float("inf")], "[0]: expected a finite number, not inf"),
        ("numbers", [-(10**400)], "[0]: expected a finite number, not -inf"),
        ("texts", ["a", ""], "[1]: expected a text, not a text ('')"),
        ("integers", [1, True], "[1]: expected a whole number, not true or false (True)"),
        ("integers", [-1], "[0]: expected at least 0, not -1"),
        ("choices", ["red", "green", "red"], "[2]: 'red' stands twice"),
        ("tables", [{}, 1], "[1]: expected a table, not a whole number (1)"),
    ],
)
def test_a_wrong_item_is_named_with_its_place(reader: str, value: object, fault: str) -> None:
    fields = Fields({"key": value})
    READERS[reader](fields)
    assert fields.faults == [f"key{fault}"]


@pytest.mark.parametrize("reader", sorted(set(READERS) - {"tables"}))
def test_a_missing_key_is_a_fault_unless_it_is_optional(reader: str) -> None:
    fields = Fields({})
    READERS[reader](fields)
    if reader.startswith("optional_"):
        assert fields.faults == []
    else:
        assert [fault.split("; ")[0] for fault in fields.faults] == ["key: missing"]


@pytest.mark.parametrize(
    ("reader", "value", "read"),
    [
        ("text", "x", "x"),
        ("nullable_text", None, None),
        ("nullable_text", "", ""),
        ("integer", 9, 9),
        ("number", 3, 3.0),
        ("numbers", [1, 2.5], (1.0, 2.5)),
        ("boolean", False, False),
        ("choice", "green", Color.GREEN),
        ("choices", ["green", "red"], (Color.GREEN, Color.RED)),
        ("texts", ["a"], ("a",)),
        ("integers", [0, 7], (0, 7)),
    ],
)
def test_a_right_value_is_read(reader: str, value: object, read: object) -> None:
    fields = Fields({"key": value})
    got = READERS[reader](fields)
    assert got == read
    assert type(got) is type(read)
    assert fields.faults == []


def test_defaults_stand_in_for_what_is_absent() -> None:
    fields = Fields({})
    assert fields.text("a", "x") == "x"
    assert fields.integer("b", 3) == 3
    assert fields.number("c", 0.5) == 0.5
    assert fields.boolean("d", default=True) is True
    assert fields.choice("e", Color, Color.GREEN) is Color.GREEN
    assert fields.texts("f", ("y",)) == ("y",)
    assert fields.choices("g", Color, (Color.RED,)) == (Color.RED,)
    assert fields.tables("h") == ()
    fields.table("i").close()
    fields.close()
    assert fields.faults == []


def test_faults_of_nested_tables_gather_in_one_list() -> None:
    table: dict[str, Any] = {"b": [{"c": 1}, {"d": 2, "password": "x"}], "e": {"f": "g"}}
    fields = Fields(table, path="a")
    for each in fields.tables("b"):
        each.integer("c")
        each.close({"password": "is a secret"})
    nested = fields.table("e")
    nested.close()
    assert nested.keys() == ("f",)
    fields.close()
    assert fields.faults == [
        "a.b[1].c: missing; expected a whole number",
        "a.b[1].d: unknown key; known: c",
        "a.b[1].password: is a secret",
        "a.e.f: unknown key",
    ]


def test_unknown_keys_name_the_nearest_known() -> None:
    fields = Fields({"num_core": 4})
    fields.integer("num_cores", 1)
    fields.close()
    assert fields.faults == ["num_core: unknown key; did you mean 'num_cores'?"]


def test_values_are_described_in_bounded_length() -> None:
    assert describe("x" * 1000) == f"a text ('{'x' * 56}...)"
    assert describe(None) == "null"
    assert describe(b"x") == "bytes (b'x')"


def test_faults_read_as_one_line_or_a_list() -> None:
    assert join_faults("file", ["a: wrong"]) == "file: a: wrong"
    assert join_faults("file", ["a", "b"]) == "file: 2 faults\n  - a\n  - b"


def test_nothing_is_near_nothing() -> None:
    assert nearest("x", []) == ""
    assert nearest("", ["a", "b"]) == "; known: a, b"
