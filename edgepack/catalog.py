"""The catalog of target profiles: files given by path, the user's own, and the built-in ones."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Final

from edgepack._fields import nearest
from edgepack.errors import ProfileError, UnknownTargetError
from edgepack.profile import TargetProfile, parse_profile

_SUFFIX: Final = ".toml"
_MAXIMUM_BYTES: Final = 64 * 2**10


class OriginKind(StrEnum):
    """Where a profile was found."""

    PATH = "path"
    USER = "user"
    BUILT_IN = "built-in"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileOrigin:
    """Where a profile was found.

    Attributes:
        kind: by path, in the user's directory, or among the built-in ones.
        path: the file; None for a built-in one, which may lie inside an archive.
        text: the file's TOML text.
        shadows_built_in: whether it hides a built-in profile of the same id.
    """

    kind: OriginKind
    path: Path | None
    text: str = field(repr=False)
    shadows_built_in: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedProfile:
    """A line of the catalog.

    Attributes:
        id: the file's name without `.toml`.
        profile: what the file says; None when it is faulty.
        kind: where it was found.
        path: the file; None for a built-in one.
        shadows_built_in: whether it hides a built-in profile of the same id.
        fault: why it cannot be used; empty when it can.
    """

    id: str
    profile: TargetProfile | None
    kind: OriginKind
    path: Path | None
    shadows_built_in: bool
    fault: str = ""


def user_profile_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Give `$XDG_CONFIG_HOME/edgepack/targets`, below `~/.config` when the variable is unset.

    A relative value is ignored (XDG Base Directory Specification 0.8).
    """
    base = Path(environment.get("XDG_CONFIG_HOME") or "")
    if not base.is_absolute():
        base = Path.home() / ".config"
    return base / "edgepack" / "targets"


def find_profile(
    name_or_path: str, *, user_directory: Path | None
) -> tuple[TargetProfile, ProfileOrigin]:
    """Find and read a target profile.

    A text with a '/' or ending in `.toml` is a path. Any other is an id, looked up in the
    user's directory and then among the built-in profiles.

    Args:
        name_or_path: what the user gave as target.
        user_directory: the user's own profiles; None looks up built-in ones only.

    Raises:
        ProfileError: unknown (the nearest known id is named), unreadable, or malformed.
    """
    if "/" in name_or_path or name_or_path.endswith(_SUFFIX):
        path = Path(name_or_path)
        return _read(OriginKind.PATH, path.stem, path, shadows=False)
    built_in, own = _built_in_ids(), _user_files(user_directory)
    if name_or_path in own:
        shadows = name_or_path in built_in
        return _read(OriginKind.USER, name_or_path, own[name_or_path], shadows=shadows)
    if name_or_path in built_in:
        text = built_in_text(name_or_path)
        origin = ProfileOrigin(kind=OriginKind.BUILT_IN, path=None, text=text)
        return parse_profile(text, profile_id=name_or_path), origin
    raise UnknownTargetError(
        f"unknown target {name_or_path!r}{nearest(name_or_path, sorted({*built_in, *own}))}",
        remedy="`edgepack targets list` shows the known ones; a path to a .toml file works too.",
    )


def list_profiles(*, user_directory: Path | None) -> tuple[ListedProfile, ...]:
    """List all profiles by id; a faulty file of the user's is listed with its fault."""
    built_in, own = _built_in_ids(), _user_files(user_directory)
    listed = [
        ListedProfile(
            id=name,
            profile=parse_profile(built_in_text(name), profile_id=name),
            kind=OriginKind.BUILT_IN,
            path=None,
            shadows_built_in=False,
        )
        for name in built_in
        if name not in own
    ]
    for name, path in own.items():
        profile, fault = None, ""
        try:
            profile, _ = _read(OriginKind.USER, name, path, shadows=False)
        except ProfileError as error:
            fault = error.message
        listed.append(
            ListedProfile(
                id=name,
                profile=profile,
                kind=OriginKind.USER,
                path=path,
                shadows_built_in=name in built_in,
                fault=fault,
            )
        )
    return tuple(sorted(listed, key=lambda each: each.id))


def built_in_text(profile_id: str) -> str:
    """Give a built-in profile's TOML text."""
    return (resources.files("edgepack.targets") / f"{profile_id}{_SUFFIX}").read_text("utf-8")


def _built_in_ids() -> tuple[str, ...]:
    names = (entry.name for entry in resources.files("edgepack.targets").iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def _user_files(directory: Path | None) -> dict[str, Path]:
    if directory is None:
        return {}
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == _SUFFIX)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ProfileError(
            f"{directory}: cannot be listed: {error.strerror or error}",
            remedy="Check the folder's permissions, or give the profile's path as the target.",
        ) from error
    return {path.stem: path for path in paths}


def _read(
    kind: OriginKind, profile_id: str, path: Path, *, shadows: bool
) -> tuple[TargetProfile, ProfileOrigin]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAXIMUM_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise ProfileError(
            f"target profile {path}: cannot be read: {error.strerror or error}",
            remedy="Check the path, or give the id of one that `edgepack targets list` shows.",
        ) from error
    except UnicodeDecodeError as error:
        raise ProfileError(
            f"target profile {path}: expected UTF-8 text, but byte {error.start} is not",
            remedy="Save the file as UTF-8.",
        ) from error
    if len(data) > _MAXIMUM_BYTES:
        raise ProfileError(
            f"target profile {path}: expected at most {_MAXIMUM_BYTES} bytes",
            remedy="Give a target profile; docs/targets.md describes what stands in one.",
        )
    profile = parse_profile(text, profile_id=profile_id)
    return profile, ProfileOrigin(kind=kind, path=path, text=text, shadows_built_in=shadows)
