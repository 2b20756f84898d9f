import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.device.wire.address import DeviceAddress, TransportKind, parse_address
from edgepack.errors import UsageError

FORMS = "Write user@host, user@host:port, ssh://user@host:port, an alias, local:, or adb:SERIAL."


def ssh(host: str, user: str | None = None, port: int | None = None) -> DeviceAddress:
    return DeviceAddress(kind=TransportKind.SSH, host=host, user=user, port=port)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("local:", DeviceAddress(kind=TransportKind.LOCAL)),
        ("board", ssh("board")),
        ("local", ssh("local")),
        ("pi@board", ssh("board", "pi")),
        ("pi@board:2222", ssh("board", "pi", 2222)),
        ("board:22", ssh("board", None, 22)),
        ("10.0.0.7:1", ssh("10.0.0.7", None, 1)),
        ("user@corp.example@board", ssh("board", "user@corp.example")),
        ("pi@[::1]:65535", ssh("::1", "pi", 65535)),
        ("[fe80::1%eth0]", ssh("fe80::1%eth0")),
        ("fe80::1", ssh("fe80::1")),
        ("ssh://pi@board:2222", ssh("board", "pi", 2222)),
        ("ssh://pi@board/", ssh("board", "pi")),
        ("ssh://[::1]:22", ssh("::1", None, 22)),
        ("board_4.local", ssh("board_4.local")),
        ("adb:", DeviceAddress(kind=TransportKind.ADB)),
        ("adb:R58M123ABC", DeviceAddress(kind=TransportKind.ADB, host="R58M123ABC")),
        ("adb:10.0.0.7:5555", DeviceAddress(kind=TransportKind.ADB, host="10.0.0.7:5555")),
    ],
)
def test_parse(text: str, expected: DeviceAddress) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the host is missing"),
        ("pi@", "the host is missing"),
        ("@board", "the user before '@' is missing"),
        ("-oProxyCommand=id", "a host cannot start with '-'"),
        ("pi@-oProxyCommand=id", "a host cannot start with '-'"),
        ("ssh://-x", "a host cannot start with '-'"),
        ("-lroot@board", "a user cannot start with '-'"),
        ("board;id", "';' cannot stand in a host"),
        ("pi$(id)@board", "'(' cannot stand in a user"),
        ("$(id)", "'$' cannot stand in a host"),
        ("a b", "' ' cannot stand in a host"),
        ("board\n", "'\\n' cannot stand in a host"),
        ("board/x", "'/' cannot stand in a host"),
        ("board:0", "expected a port from 1 to 65535, not '0'"),
        ("board:65536", "expected a port from 1 to 65535, not '65536'"),
        ("board:", "expected a port from 1 to 65535, not ''"),
        ("board:ssh", "expected a port from 1 to 65535, not 'ssh'"),
        ("board:٢٢", "expected a port from 1 to 65535, not '٢٢'"),
        ("[::1", "expected [address] or [address]:port"),
        ("[::1]22", "expected [address] or [address]:port"),
        ("a:b:c", "'a:b:c' is no IPv6 address"),
        ("[::1:::]", "'::1:::' is no IPv6 address"),
        ("http://board", "unknown scheme 'http'"),
        ("adb:-s", "expected a serial as `adb devices` lists them, or HOST:PORT"),
        ("adb:a b", "expected a serial as `adb devices` lists them, or HOST:PORT"),
        ("adb:a\n", "expected a serial as `adb devices` lists them, or HOST:PORT"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert caught.value.message == f"{text!r} is no device address: {reason}."
    assert caught.value.remedy == FORMS


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse_address("ssh://pi:secret@board")
    assert caught.value.message == "An ssh:// address cannot hold a password."
    assert "secret" not in str(caught.value)


def test_local_takes_nothing_more() -> None:
    with pytest.raises(UsageError) as caught:
        parse_address("local:x")
    assert caught.value.message == (
        "local: stands for this machine and takes nothing after it, not 'x'."
    )


NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
HOSTS = st.one_of(NAMES, st.ip_addresses().map(str))
PORTS = st.one_of(st.none(), st.integers(1, 65535))


@given(host=HOSTS, user=st.one_of(st.none(), NAMES), port=PORTS)
def test_an_address_reads_back_from_its_text(host: str, user: str | None, port: int | None) -> None:
    address = ssh(host, user, port)
    assert parse_address(str(address)) == address


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse_address(text)
    except UsageError as error:
        assert error.remedy  # noqa: PT017 - both outcomes are right
        return
    assert not address.host.startswith("-")
    assert not (address.user or "").startswith("-")
    assert parse_address(str(address)) == address
