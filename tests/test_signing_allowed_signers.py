"""Lists of allowed signers say what they say to ssh-keygen, and each faulty line is named."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import SignatureError
from edgepack.signing.allowed_signers import (
    MAXIMUM_BYTES,
    AllowedSigners,
    find_signer,
    load_allowed_signers,
    matches,
    parse_allowed_signers,
)
from edgepack.signing.public_key import PublicKey, read_public_words
from tests.fixtures.signing import Keys, verify_with_openssh

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
FINGERPRINT = read_public_words(*KEY.split()).fingerprint
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MESSAGE = b"manifest\n"

OPTIONS = 'expected options such as namespaces="edgepack"'
KNOWN = "cert-authority, namespaces, valid-after, valid-before"
CERTIFICATES = "certificates are not supported; list each signer's own key"
TIME = "expected YYYYMMDD or YYYYMMDDHHMM[SS], perhaps with Z"
BASE64 = "expected a ssh-ed25519 key in base64"


def listed(*lines: str) -> AllowedSigners:
    return parse_allowed_signers("\n".join([*lines, ""]).encode(), name="allowed")


def key() -> PublicKey:
    return read_public_words(*KEY.split())


def find(*lines: str, identity: str | None = None, namespace: str = "edgepack") -> str:
    """The principals of the line by which the key may sign."""
    found = find_signer(listed(*lines), key(), namespace=namespace, now=NOW, identity=identity)
    return found.principals


def refusal(*lines: str, identity: str | None = None, namespace: str = "edgepack") -> str:
    with pytest.raises(SignatureError) as caught:
        find(*lines, identity=identity, namespace=namespace)
    return caught.value.message


def test_comments_blanks_tabs_and_quotes() -> None:
    signers = listed(
        "# who may sign",
        "",
        f"alice@example.org {KEY} alice's laptop",
        f'\t"bob@example.org,carol smith"\tNAMESPACES="edgepack,git"\t{KEY}  \r',
        f'dan@example.org valid-after="20260101Z",valid-before="202612312359UTC" {KEY}',
    )
    alice, bob, dan = signers.lines
    assert (alice.number, alice.principals, alice.namespaces) == (3, "alice@example.org", None)
    assert (bob.number, bob.principals, bob.namespaces) == (
        *(4, "bob@example.org,carol smith"),
        "edgepack,git",
    )
    assert dan.valid_after == datetime(2026, 1, 1, tzinfo=UTC)
    assert dan.valid_before == datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    assert alice.key == bob.key == key()
    assert signers.num_keys == 1


def test_times_are_this_machines_own_unless_they_say_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        (line,) = listed(f'a valid-after="20260101093000" {KEY}').lines
        assert line.valid_after == datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("alice@example.org", "expected a key after the principals"),
        (KEY, f"{OPTIONS}, not 'AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDd'"),
        (f"a b c {KEY}", f"unknown option 'b'; known: {KNOWN}"),
        (f"*@example.org cert-authority {KEY}", f"cert-authority: {CERTIFICATES}"),
        (f'a namespace="x" {KEY}', "unknown option 'namespace'; did you mean 'namespaces'?"),
        (f"a namespaces=edgepack {KEY}", f"{OPTIONS}, not 'namespaces=edgepack'"),
        (f"a namespaces {KEY}", 'namespaces: expected a value in quotes, as in namespaces="…"'),
        (f'a namespaces="x",namespaces="y" {KEY}', "namespaces stands twice"),
        (f'a namespaces="x", {KEY}', "an option is missing after the last comma"),
        (f'a namespaces="x {KEY}', "a quote is not closed"),
        (f'"a {KEY}', "the principals' quote is not closed"),
        (f'a"b" {KEY}', "expected principals such as alice@example.org, not 'a\"b\"'"),
        (f'a valid-after="2026" {KEY}', f"valid-after: {TIME}, not '2026'"),
        (f'a valid-before="20260230Z" {KEY}', f"valid-before: {TIME}, not '20260230Z'"),
        (f'a valid-before="00010101" {KEY}', f"valid-before: {TIME}, not '00010101'"),
        (
            f'a valid-after="20260102Z",valid-before="20260101Z" {KEY}',
            "valid-before is not later than valid-after",
        ),
        ('a namespaces="x"', "expected a key's type such as ssh-ed25519, not ''"),
        ("a ssh-ed25519", f"{BASE64}, but its bytes are no public key"),
        ("a ssh-ed25519 AAAA!", f"{BASE64}, but its bytes are not base64"),
        (
            KEY.replace("ssh-ed25519", "a ssh-rsa"),
            BASE64.replace("ed25519", "rsa") + ", but its bytes are of type ssh-ed25519",
        ),
        (f"a\x1b[2J {KEY}", "expected printable text"),
        (f"a\udcff {KEY}", "expected printable text"),
    ],
)
def test_a_faulty_line_is_named(line: str, fault: str) -> None:
    data = f"# first\n{line}\n".encode(errors="surrogateescape")
    with pytest.raises(SignatureError) as caught:
        parse_allowed_signers(data, name="allowed")
    assert caught.value.message == f"allowed: line 2: {fault}"
    assert caught.value.remedy == (
        "Mend the lines named above: PRINCIPALS [OPTIONS] KEYTYPE KEY, as ssh-keygen(1) describes "
        "under ALLOWED SIGNERS."
    )


def test_all_faulty_lines_are_named_together() -> None:
    with pytest.raises(SignatureError) as caught:
        listed("a", f"b {KEY}", "c ssh-foo AAAA")
    assert caught.value.message == (
        "allowed: 2 faults\n"
        "  - line 1: expected a key after the principals\n"
        "  - line 3: expected a ssh-foo key in base64, but its bytes are no public key"
    )


def test_a_list_that_is_no_list_of_signers(tmp_path: Path) -> None:
    with pytest.raises(SignatureError) as caught:
        load_allowed_signers(tmp_path)
    assert caught.value.message == (
        f"{tmp_path}: the list of allowed signers cannot be read: Is a directory"
    )
    path = tmp_path / "large"
    path.write_bytes("é".encode() * MAXIMUM_BYTES)
    with pytest.raises(SignatureError) as caught:
        load_allowed_signers(path)
    assert caught.value.message == (
        f"{path}: expected a list of allowed signers of at most 65536 bytes"
    )


# Who may sign.


def test_the_first_line_that_lets_the_key_in_names_the_signer() -> None:
    lines = (f'old valid-before="20260101Z" {KEY}', f"alice {KEY}", f"bob {KEY}")
    assert find(*lines) == "alice"
    assert find(*lines, identity="bob") == "bob"
    assert find(f"*@example.org,!eve@example.org {KEY}", identity="al@example.org")


def test_why_a_key_may_not_sign() -> None:
    assert (
        refusal() == f"signed with the ssh-ed25519 key {FINGERPRINT}, which allowed does not list"
    )
    begin = f"signed with the ssh-ed25519 key {FINGERPRINT}, which may not sign this: "
    assert refusal(f"alice {KEY}", identity="bob") == (
        f"{begin}it is the key of alice, not of bob (allowed, line 1)"
    )
    assert refusal(f"*@x.org,!eve@x.org {KEY}", identity="eve@x.org") == (
        f"{begin}it is the key of *@x.org,!eve@x.org, not of eve@x.org (allowed, line 1)"
    )
    assert refusal(f'alice namespaces="git,file" {KEY}') == (
        f"{begin}it may sign for the namespaces 'git,file' only, not for 'edgepack' "
        "(allowed, line 1)"
    )
    assert refusal("", f'alice valid-before="20261123115959Z" {KEY}') == (
        f"{begin}it expired at 2026-11-23 11:59:59 UTC (allowed, line 2)"
    )
    assert refusal(f'alice valid-after="20261123120001Z" {KEY}') == (
        f"{begin}it is not valid before 2026-11-23 12:00:01 UTC (allowed, line 1)"
    )
    assert refusal(f'a valid-before="20200101Z" {KEY}', f'b namespaces="git" {KEY}') == (
        f"{begin[:-2]}: 2 faults\n"
        "  - it expired at 2020-01-01 00:00:00 UTC (allowed, line 1)\n"
        "  - it may sign for the namespaces 'git' only, not for 'edgepack' (allowed, line 2)"
    )


def test_the_bounds_of_a_keys_time_count_as_inside() -> None:
    assert find(f'a valid-after="20261123120000Z",valid-before="20261124Z" {KEY}') == "a"
    assert find(f'a valid-before="20261123120000Z" {KEY}') == "a"


_DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("template", "identity"),
    [
        ("alice@x.org {key}", "alice@x.org"),
        ("alice@x.org {key}", "bob@x.org"),
        ("*@x.org,!eve@x.org {key}", "bob@x.org"),
        ("*@x.org,!eve@x.org {key}", "eve@x.org"),
        ("!eve@x.org {key}", "bob@x.org"),
        ("a[bc]@x.org {key}", "ab@x.org"),
        ("a[bc]@x.org {key}", "a[bc]@x.org"),
        ("a?c@x.org {key}", "abc@x.org"),
        ("Alice@x.org {key}", "alice@x.org"),
        ('"alice smith,bob" {key}', "alice smith"),
        ('a namespaces="edgepack" {key}', "a"),
        ('a Namespaces="git,edge*" {key}', "a"),
        ('a namespaces="*,!edgepack" {key}', "a"),
        ('a namespaces="git" {key}', "a"),
        ('a valid-after="{yesterday}" {key}', "a"),
        ('a valid-after="{tomorrow}Z" {key}', "a"),
        ('a valid-before="{tomorrow}",namespaces="edgepack" {key}', "a"),
        ('a valid-before="{yesterday}Z" {key}', "a"),
        ('a valid-before="{yesterday}Z" {key}\na {key}', "a"),
        ("\t a\t{key}\tcomment of mine", "a"),
    ],
)
def test_it_says_what_openssh_says(
    keys: Keys, tmp_path: Path, template: str, identity: str
) -> None:
    now = datetime.now(tz=UTC)
    text = template.format(
        key=keys.public("alice"),
        yesterday=f"{now - 2 * _DAY:%Y%m%d}",
        tomorrow=f"{now + 2 * _DAY:%Y%m%d}",
    )
    signers, signature = tmp_path / "allowed", tmp_path / "sig"
    signers.write_text(f"{text}\n")
    signature.write_bytes(keys.sign("alice", MESSAGE))
    try:
        find_signer(
            load_allowed_signers(signers),
            read_public_words(*keys.public("alice").split()),
            namespace="edgepack",
            now=now,
            identity=identity,
        )
        ours = True
    except SignatureError:
        ours = False
    assert ours == verify_with_openssh(signature, MESSAGE, signers=signers, identity=identity)


# Whatever stands in a list, there is an answer and never a traceback.


@given(st.text(max_size=200))
def test_any_text_is_a_list_or_refused(text: str) -> None:
    for line in (text, f"a {text} {KEY}", f"{text} {KEY}", f"a {KEY} {text}"):
        data = line.encode(errors="replace")
        try:
            assert len(parse_allowed_signers(data, name="x").lines) <= line.count("\n") + 1
        except SignatureError as error:
            assert error.message.startswith("x: ")  # noqa: PT017 - either outcome is right


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_refused(data: bytes) -> None:
    try:
        parse_allowed_signers(b"a " + data, name="x")
    except SignatureError as error:
        assert error.message.startswith("x: ")  # noqa: PT017 - either outcome is right


_OPTIONS = st.lists(
    st.sampled_from(
        ['namespaces="edgepack"', 'valid-after="20260101"', "cert-authority", 'x="', ",", '\\"']
    ),
    max_size=4,
)


@given(_OPTIONS)
def test_any_options_are_read_or_refused(options: list[str]) -> None:
    try:
        (line,) = listed(f"a {','.join(options)} {KEY}").lines
    except SignatureError:
        return
    assert line.key == key()
    assert set(options) <= {'namespaces="edgepack"', 'valid-after="20260101"'}


@given(st.text("a*?!,[", max_size=40), st.text("ab[", max_size=30))
def test_patterns_end_in_time(patterns: str, text: str) -> None:
    assert matches(text, patterns) in {True, False}
    assert matches(text, f"{patterns},*") or "!" in patterns
    assert not matches(text, "*,!*")


@given(st.lists(st.sampled_from("ab*?"), max_size=6).map("".join), st.text("ab", max_size=6))
def test_a_pattern_means_what_it_says(pattern: str, text: str) -> None:
    def means(rest: str, left: str) -> bool:
        if not rest:
            return not left
        if rest[0] == "*":
            return any(means(rest[1:], left[cut:]) for cut in range(len(left) + 1))
        return bool(left) and rest[0] in {"?", left[0]} and means(rest[1:], left[1:])

    assert matches(text, pattern) == means(pattern, text)
