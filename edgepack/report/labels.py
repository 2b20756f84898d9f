"""Names from outside, made fit to show: others chose what models and devices are called."""

import unicodedata
from typing import Final

_LONGEST: Final = 800
_ELLIPSIS: Final = "…"


def plain(text: str, *, longest: int = _LONGEST) -> str:
    """Give a text without control and direction characters, in one line of bounded length.

    A terminal would obey escape sequences, and a direction override turns what stands
    around it; spaces of any kind become one space.
    """
    shown = "".join(_visible(char) for char in text[: longest * 4])
    return shorten(" ".join(shown.split()), longest)


def visible(text: str) -> str:
    """Give a text of several lines without control and direction characters."""
    return "\n".join("".join(map(_visible, line)) for line in text.split("\n"))


def _visible(char: str) -> str:
    category = unicodedata.category(char)
    if char.isspace():
        return " "
    # Cc control, Cf format (bidi overrides, joiners), Cs lone surrogate, Co private, Cn unknown
    return "�" if category in {"Cc", "Cf", "Cs", "Co", "Cn"} else char


def shorten(text: str, longest: int) -> str:
    """Cut the middle out of a text that is too long: both ends of a name tell it apart."""
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    tail = longest - 1 - head
    return text[:head] + _ELLIPSIS + (text[-tail:] if tail else "")


def device_name(device: str) -> str:
    """Give what people call a device: its plain name, and `this machine` for `local:`."""
    return "this machine" if device == "local:" else plain(device, longest=80)


def model_name(name: str, recipe: str | None) -> str:
    """Give what people call a model: its name, and what it was made by."""
    return plain(f"{name} ({recipe})" if recipe else name)
