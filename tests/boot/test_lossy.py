"""Loaders on a cable that loses 1 % of the frames, with 20 ms from a request to its answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from catalyst_pxeboot.lab import boottest
from catalyst_pxeboot.lab.boottest import run_path
from catalyst_pxeboot.lab.network import why_no_network
from catalyst_pxeboot.lab.paths import BootPath
from catalyst_pxeboot.lab.result import Outcome
from catalyst_pxeboot.model.loader import Firmware
from tests.boot.test_real_size import make_tree
from tests.boot.test_real_size import tree as tree  # a fixture
from tests.support import live_image
from tests.support.boot_paths import find_paths
from tests.support.lossy_link import LossyCable
from tests.support.paths import CACHE

TIMEOUT = 600.0  # seconds
pytestmark = pytest.mark.more


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("bios-ipxe", True),
        ("x64-http-ipxe", True),
        ("bios-lpxelinux", None),  # mostly
        ("x64-http-grub", False),  # gives up after some 200 s
    ],
)
def test_a_lossy_cable(
    tree: Path, monkeypatch: pytest.MonkeyPatch, name: str, holds: bool | None
) -> None:
    """What gives up is seen to have given up, long before time is over."""
    check(tree, monkeypatch, name, holds=holds)


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tree of some 12 MiB: by TFTP each block of 1.4 KiB waits for its answer."""
    if obstacle := why_no_network():
        pytest.skip(obstacle)
    folder = tmp_path_factory.mktemp("small")
    stage2 = live_image.build_live_image(folder / "stage2", cache=CACHE, generator="genkernel-like")
    return make_tree(stage2, folder, subarch="amd64", pxeboot__serial="ttyS0,115200")


@pytest.mark.timeout(1600)
@pytest.mark.parametrize("name", ["bios-pxelinux", "x64-grub"])
def test_a_lossy_cable_by_tftp(
    small_tree: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """They hold, slowly: GRUB takes 1,100 s for 17 MiB."""
    check(small_tree, monkeypatch, name, holds=True, timeout=1500.0)


def check(
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    *,
    holds: bool | None,
    timeout: float = TIMEOUT,
) -> None:
    """Boot a tree on one path by the cable; `holds` is what is expected, None for either."""
    (path,) = find_paths([name])
    cable = LossyCable(loss=0.01, delay=0.01, hide_ipxe=path.machine.firmware is Firmware.BIOS)
    monkeypatch.setattr(BootPath, "disguised", property(lambda _path: True))
    monkeypatch.setattr(boottest, "disguised_link", cable.link)
    until = re.compile(f"^{live_image.TOKEN}")
    result = run_path(tree, path, memory_mib=2048, timeout=timeout, until=until)
    if result.outcome is Outcome.SKIPPED:
        pytest.skip(result.reason)
    if result.outcome is Outcome.FAILED:
        assert not holds, result.reason
        assert result.seconds < timeout
        assert result.cause
    else:
        assert holds is not False, "it holds now: say so in doc/booting.md"
