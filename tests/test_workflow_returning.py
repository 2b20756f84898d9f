"""Going back when the link is lost in the middle of it."""

from pathlib import Path

import pytest

from edgepack.device.store.deploy import push_bundle
from edgepack.device.store.layout import Layout
from edgepack.device.store.releases import current_release
from edgepack.device.wire.local import LocalDevice
from edgepack.errors import ConnectError, JournalError, UncertainError
from edgepack.workflow.delivery import Pushed, deliver_alone, prune_behind
from edgepack.workflow.retention import Retention
from edgepack.workflow.returning import RolledBack, read_rolled_back, return_once
from edgepack.workflow.site import Site
from tests.fixtures.bundle import write_digits_bundle
from tests.fixtures.faulty_device import FaultyDevice, Moment


@pytest.fixture
def releases(tmp_path: Path) -> list[str]:
    """Three releases on this machine, the last one current."""
    bundles = [
        write_digits_bundle(tmp_path / f"{version}.edgepack", version=version)
        for version in ("1", "2", "3")
    ]
    for each in bundles:
        push_bundle(LocalDevice(), each, root=str(tmp_path / "root"))
    return [each.release for each in bundles]


def test_a_lost_link_is_never_taken_for_not_done(tmp_path: Path, releases: list[str]) -> None:
    """Wherever it is lost, the current release is the one before or still the last."""
    layout = Layout(root=str(tmp_path / "root"))

    def now() -> str | None:
        return current_release(LocalDevice(), layout, "digits")

    def cut(number: int | None) -> Site:
        faulty = FaultyDevice(device=LocalDevice(), fails_at=number, moment=Moment.AFTER)
        return Site(device=faulty, layout=layout)

    counting = cut(None)
    return_once(counting, name="digits", release=None)
    assert now() == releases[1]
    assert isinstance(counting.device, FaultyDevice)
    assert counting.device.num_operations > 2
    for number in range(counting.device.num_operations):
        return_once(cut(None), name="digits", release=releases[2])
        with pytest.raises(UncertainError) as caught:
            return_once(cut(number), name="digits", release=None)
        assert caught.value.message == (
            "faulty: the link was lost.\nwhether it went back is not known"
        )
        assert now() in releases[1:]
        with pytest.raises(ConnectError):  # which may be repeated
            return_once(cut(number), name="digits", release=releases[2])


def test_what_is_old_and_stays_makes_no_failure_of_a_push(
    tmp_path: Path, releases: list[str]
) -> None:
    layout = Layout(root=str(tmp_path / "root"))
    bundle = write_digits_bundle(tmp_path / "4.edgepack", version="4")
    site = Site(device=LocalDevice(), layout=layout)
    pushed = deliver_alone(site, bundle, retention=None, on_step=lambda _: None)
    faulty = Site(device=FaultyDevice(device=LocalDevice(), fails_at=0), layout=layout)
    keep_one = Retention(keep=1, free_bytes=None)
    done = prune_behind(pushed, faulty, bundle, keep_one, None)
    assert isinstance(done, Pushed)
    assert (done.prune_error, done.pruned) == ("faulty: the link was lost.", None)
    assert done.to_json()["prune_error"] == "faulty: the link was lost."
    assert current_release(LocalDevice(), layout, "digits") == bundle.release
    done = prune_behind(pushed, site, bundle, keep_one, None)
    assert done.prune_error is None
    assert done.pruned is not None
    assert {release for _, release in done.pruned.removed} == set(releases)


def test_a_kept_result_is_read_back_or_refused() -> None:
    done = RolledBack(device="d0", name="digits", release="0" * 12, previous=None)
    assert read_rolled_back(done.to_json()) == done
    whole = done.to_json()
    changed: tuple[object, ...] = ({**whole, "release": 1}, {**whole, "more": 1})
    for damaged in (None, [], {}, *changed):
        with pytest.raises(JournalError):
            read_rolled_back(damaged)
