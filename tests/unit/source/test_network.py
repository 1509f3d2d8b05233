"""Whether a live root brings up its network, as its own squashfs shows."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import make_plan
from catalyst_pxeboot.source.network import LiveNetwork, read_contents
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.util.process import read_output
from tests.golden.test_golden import NETWORK
from tests.support import builders
from tests.support.iso import plain_iso
from tests.support.lab import write_script
from tests.support.stage2 import STAMP, write_stage2

NONE = "nothing brings it up, so dodhcp takes the place of nodhcp"

pytestmark = pytest.mark.skipif(
    not shutil.which("mksquashfs") or not shutil.which("unsquashfs"), reason="no squashfs-tools"
)


def squashfs(folder: Path, *links: str) -> Path:
    """Pack a root that has only these symbolic links."""
    root = folder / "root"
    for name in links:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to("/etc/init.d/x")
    root.mkdir(exist_ok=True)
    image = folder / "packed"
    argv: list[str | Path] = ["mksquashfs", root, image, "-quiet", "-no-progress", "-noappend"]
    subprocess.run(argv, check=True, capture_output=True)
    return image


@pytest.mark.parametrize(
    ("links", "says"),
    [
        (["etc/runlevels/default/NetworkManager"], "by NetworkManager in the runlevel default"),
        (["etc/runlevels/boot/net.eth0"], "by net.eth0 in the runlevel boot"),
        (["etc/runlevels/default/dhcpcd"], "by dhcpcd in the runlevel default"),
        (
            ["etc/systemd/system/multi-user.target.wants/systemd-networkd.service"],
            "by systemd-networkd.service",
        ),
        (["etc/runlevels/default/sshd", "etc/runlevels/boot/net.lo"], NONE),
        (["etc/systemd/system/multi-user.target.wants/sshd.service"], NONE),
        (["etc/init.d/NetworkManager"], "not known: it has neither runlevels nor systemd units"),
        (["usr/etc/runlevels/default/dhcpcd"], "not known: it has neither runlevels"),
    ],
)
def test_what_brings_it_up(tmp_path: Path, links: list[str], says: str) -> None:
    assert str(read_contents(squashfs(tmp_path, *links), offset=0).network).startswith(says)


def test_behind_other_bytes(tmp_path: Path) -> None:
    image = squashfs(tmp_path, "etc/runlevels/default/connman")
    (tmp_path / "iso").write_bytes(bytes(65536) + image.read_bytes())
    found = read_contents(tmp_path / "iso", offset=65536).network
    assert found == LiveNetwork(service="connman in the runlevel default")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exec sleep 60", "unsquashfs failed with exit code -9"),
        # More than it may have: the shell cannot hold the line.
        ("sleep 0.2; x=$(head -c 90000000 /dev/zero | tr '\\0' x); echo $x", "exit code"),
        ("exit 3", "unsquashfs failed with exit code 3"),
        ("exec yes squashfs-root/etc/runlevels/default/NetworkManager", "wrote more than 4194304"),
    ],
)
def test_a_program_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    module = "catalyst_pxeboot.source.network"
    stand_in = write_script(tmp_path / "unsquashfs", script)
    monkeypatch.setattr(f"{module}.find_program", lambda _name: stand_in)
    monkeypatch.setattr(f"{module}._SECONDS", 1.0)
    monkeypatch.setattr(f"{module}._MEMORY", 64 << 20)
    found = read_contents(tmp_path / "image", offset=0).network
    assert why in found.why
    assert not found.is_missing


def test_without_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalyst_pxeboot.source.network.find_program", lambda _name: None)
    found = read_contents(tmp_path / "image", offset=0).network
    assert str(found) == "not known: unsquashfs is missing (squashfs-tools)"
    assert read_output(["echo", "x"], timeout=5, limit=2, memory=1 << 30) == b"x\n"


@pytest.mark.usefixtures("no_loaders")
def test_arguments_of_entries(tmp_path: Path) -> None:
    """Roots in memory get dodhcp; a root on NFS keeps the network as it is; the user wins."""
    root = squashfs(tmp_path, "etc/runlevels/default/sshd").read_bytes()
    folder = write_stage2(
        tmp_path / f"livecd-stage2-amd64-{STAMP}",
        squashfs=root,
        initramfs=builders.initramfs(NETWORK),
    )
    iso = plain_iso(folder, tmp_path / f"install-amd64-minimal-{STAMP}.iso")
    keys: dict[str, object] = {"pxeboot/nfs_root": "10.0.0.1:/srv/gentoo"}
    for source in (folder, iso):
        plan = make_plan(parse_folders(source, tmp_path / "out", keys))
        found = {
            str(entry.root): {"dodhcp", "nodhcp"} & set(entry.arguments) for entry in plan.menu.live
        }
        assert found == {"embedded": {"dodhcp"}, "http": {"dodhcp"}, "nfs": {"nodhcp"}}
        assert f"network of the live system: {NONE}" in plan.notes
    plan = make_plan(
        parse_folders(folder, tmp_path / "out", {**keys, "pxeboot/bootargs": "nodhcp"})
    )
    assert all(
        entry.arguments.index("nodhcp") > entry.arguments.index("dodhcp")
        for entry in plan.menu.live
        if "dodhcp" in entry.arguments
    )
