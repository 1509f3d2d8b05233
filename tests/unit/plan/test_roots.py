"""The ways to the live root: which there are, what they need, what a spec may say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from catalyst_pxeboot.loader.binaries import Loaders
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.settings import RootMode
from catalyst_pxeboot.plan.tree import Plan, plan_tree
from catalyst_pxeboot.source.image import read_source
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.util.errors import PxebootError, SpecError
from tests.support import builders
from tests.support.stage2 import release_settings, storedir_stage2, write_stage2

NET = ("base", "dmsquash-live", "livenet", "network", "network-legacy", "url-lib")
HTTP, NFS, EMBEDDED = RootMode.HTTP, RootMode.NFS, RootMode.EMBEDDED
IGZ = "boot/gentoo.igz"


def dracut(*modules: str, drivers: tuple[str, ...] = (), curl: bool = True) -> bytes:
    members = builders.dracut_members(modules=modules or NET, drivers=drivers, curl=curl)
    members["usr/lib/dracut/hooks/cmdline"] = (builders.FOLDER | 0o755, b"")
    return builders.initramfs(members, "gzip")


def genkernel(*drivers: str, embedded: bool = True) -> bytes:
    members = builders.genkernel_members(loop_wo_mount=embedded, drivers=drivers)
    return builders.initramfs(members, "gzip")


def plan(
    folder: Path, initramfs: bytes | None = None, config: str | None = None, **keys: Any
) -> Plan:
    stage2 = storedir_stage2(folder)
    write_stage2(stage2, initramfs=initramfs, config=config)
    spec = parse_settings(release_settings(folder, **keys))
    return plan_tree(spec, read_source(stage2), Loaders((), ()))


def roots(found: Plan) -> list[tuple[str, RootMode]]:
    return [
        (entry.name, entry.root)
        for entry in found.menu.live
        if not entry.name.endswith("accessibility")
    ]


def test_auto_takes_what_the_initramfs_can_do(tmp_path: Path) -> None:
    """Over NFS only if it is told where."""
    drivers = ("nfsv3",)
    found = plan(tmp_path / "1", dracut(*NET, "nfs", drivers=drivers))
    assert roots(found) == [("gentoo", EMBEDDED), ("gentoo-http", HTTP)]
    assert f"no root over NFS: {IGZ} can; set pxeboot/nfs_root" in found.notes
    found = plan(
        tmp_path / "2",
        dracut(*NET, "nfs", drivers=drivers),
        pxeboot__nfs_root="10.0.0.1:/srv/live",
    )
    assert roots(found) == [("gentoo", EMBEDDED), ("gentoo-http", HTTP), ("gentoo-nfs", NFS)]
    found = plan(tmp_path / "3", genkernel("nfsv3"), pxeboot__nfs_root="10.0.0.1:/srv/live")
    assert roots(found) == [("gentoo", EMBEDDED), ("gentoo-nfs", NFS)]
    found = plan(tmp_path / "4")
    assert roots(found) == [("gentoo", EMBEDDED)]
    assert found.notes == (
        f"no root streamed over HTTP: {IGZ}: it has no folder of dracut's hooks that is known here;"
        " build livecd-stage2 with dracut 050 or later",
        f"no root over HTTP: {IGZ}: dracut 059 made it without livenet, which gets the live root"
        " from a server; add `-a livenet` to boot/kernel/gentoo/dracut_args of the livecd-stage2"
        " spec",
    )


def test_the_way_named_first_is_the_default(tmp_path: Path) -> None:
    found = plan(tmp_path, dracut(), pxeboot__root=["http", "embedded"])
    assert roots(found) == [("gentoo-http", HTTP), ("gentoo", EMBEDDED)]
    # PXELINUX does not know the server, and offers the other one.
    assert found.menu.live_for(Loader.PXELINUX)[0].name == "gentoo"
    assert found.left_out[-1] == (
        "gentoo, root over HTTP, by pxelinux: it cannot learn the server"
        " address; set pxeboot/base_url"
    )


def test_a_genkernel_that_cannot_embed_boots_over_nfs(tmp_path: Path) -> None:
    keys = {"pxeboot__nfs_root": "10.0.0.1:/srv/live"}
    found = plan(tmp_path, genkernel("nfsv3", embedded=False), **keys)
    assert roots(found) == [("gentoo-nfs", NFS)]
    assert {file.path for file in found.made} == set()  # neither header nor padding


@pytest.mark.parametrize(
    ("initramfs", "root", "reason"),
    [
        (dracut("base", "dmsquash-live"), "http", "dracut 059 made it without livenet, which gets the live root from a server; add `-a livenet` to boot/kernel/gentoo/dracut_args of the livecd-stage2 spec"),
        (dracut("dmsquash-live", "livenet", "url-lib"), "http", "dracut 059 made it without network-manager, which brings the network up; add `-a network-manager` to boot/kernel/gentoo/dracut_args of the livecd-stage2 spec"),
        (dracut(curl=False), "http", "dracut 059 made it without curl, which fetches the live root; install net-misc/curl in the livecd-stage2 build and add `-a livenet` to boot/kernel/gentoo/dracut_args"),
        (dracut(), "nfs", "dracut 059 made it without nfs, which mounts what is on an NFS server; add `-a nfs` to boot/kernel/gentoo/dracut_args of the livecd-stage2 spec"),
        (dracut(*NET, "nfs"), "nfs", "nfsv3 or nfsv4 is neither in it nor in the kernel, but the root is on NFS; add `--add-drivers nfsv3` to boot/kernel/gentoo/dracut_args"),
        (genkernel(), "http", "genkernel 4.3.17 cannot fetch a root over HTTP; build livecd-stage2 with boot/kernel/gentoo/distkernel: yes and boot/kernel/gentoo/dracut_args: -a livenet"),
        (genkernel(), "nfs", "nfsv3 is neither in it nor in the kernel, but the root is on NFS; build CONFIG_NFS_V3 into the kernel, or add nfsv3 to the modules that genkernel puts into the initramfs (MODULES_FS in its modules_load)"),
        (genkernel("nfsv3", embedded=False), "embedded", "genkernel 4.3.17 cannot boot a live root that lies in the initramfs; build livecd-stage2 with genkernel 4.0 or later, or with boot/kernel/gentoo/distkernel: yes"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_ends_the_build(
    tmp_path: Path, initramfs: bytes, root: str, reason: str
) -> None:
    with pytest.raises(PxebootError) as caught:
        plan(tmp_path, initramfs, pxeboot__root=root)
    assert str(caught.value) == f"{storedir_stage2(tmp_path) / IGZ}: {reason}"


def test_nfs_in_the_kernel_itself_is_enough(tmp_path: Path) -> None:
    options = ("BLK_DEV_INITRD", "RD_GZIP", "SQUASHFS", "SQUASHFS_XZ", "BLK_DEV_LOOP", "NFS_V3")
    config = "".join(f"CONFIG_{option}=y\n" for option in options)
    found = plan(
        tmp_path,
        genkernel(),
        config,
        pxeboot__root="nfs",
        pxeboot__nfs_root="10.0.0.1:/srv/live",
    )
    assert roots(found) == [("gentoo-nfs", NFS)]


def test_every_obstacle_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        plan(tmp_path, dracut("base"), pxeboot__root=["embedded", "http"])
    assert len(caught.value.problems) == 2


def test_a_loader_without_any_root_ends_the_build(tmp_path: Path) -> None:
    with pytest.raises(PxebootError) as caught:
        plan(tmp_path, dracut(), pxeboot__root="http")
    assert str(caught.value) == (
        "pxeboot/root: pxelinux cannot learn the server address, so no root mode is available; set"
        " pxeboot/base_url or pxeboot/nfs_root, add embedded, or leave pxelinux out of"
        " pxeboot/loaders"
    )


@pytest.mark.parametrize(
    ("keys", "base_url"),
    [
        ({}, None),
        ({"pxeboot__base_url": "http://10.0.0.1/live/"}, "http://10.0.0.1/live"),
        ({"pxeboot__server": "10.0.0.2/24"}, "http://10.0.0.2"),
        (
            {"pxeboot__server": ["10.0.0.2/24", "http_port=8080", "http_prefix=a/b"]},
            "http://10.0.0.2:8080/a/b",
        ),
        (
            {"pxeboot__server": "10.0.0.2/24", "pxeboot__base_url": "https://x.example"},
            "https://x.example",
        ),
    ],
)
def test_base_url(tmp_path: Path, keys: dict[str, Any], base_url: str | None) -> None:
    assert plan(tmp_path, **keys).menu.base_url == base_url


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, (None, "/srv/pxeboot", "")),
        ({"pxeboot__nfs_root": "10.0.0.1:/srv/live,vers=3,tcp"}, ("10.0.0.1", "/srv/live", "vers=3,tcp")),
        ({"pxeboot__nfs_root": ":/srv/live/"}, (None, "/srv/live", "")),
        ({"pxeboot__nfs_root": "/srv/live"}, (None, "/srv/live", "")),
        ({"pxeboot__server": ["10.0.0.2/24", "tftp_prefix=x"]}, ("10.0.0.2", "/srv/pxeboot/x", "")),
    ],
)  # fmt: skip
def test_nfs_root(
    tmp_path: Path, keys: dict[str, Any], expected: tuple[str | None, str, str]
) -> None:
    found = plan(
        tmp_path,
        genkernel("nfsv3"),
        pxeboot__root=["embedded", "nfs"],
        **keys,
    ).menu.nfs
    assert found is not None
    assert (found.server, found.path, found.options) == expected


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("root", ["auto", "http"], "auto must be the only word; name the ways, or write auto"),
        ("root", "htpp", "'htpp' is unknown (did you mean 'http'?); use embedded, stream, http, nfs, auto"),
        ("base_url", "ftp://x/y", "'ftp://x/y' is not a plain http:// or https:// address of a folder; write it as http://192.168.1.1/gentoo"),
        ("base_url", "http://x/a/../b", "'http://x/a/../b' is not a plain http:// or https:// address of a folder; write it as http://192.168.1.1/gentoo"),
        ("base_url", "http://x/${y}", "'http://x/${y}' is not a plain http:// or https:// address of a folder; write it as http://192.168.1.1/gentoo"),
        ("nfs_root", "10.0.0.1", "'10.0.0.1' is not a server and folder; write it as 192.168.1.1:/srv/gentoo or :/srv/gentoo,vers=3"),
        ("nfs_root", "x:/a/../b", "'x:/a/../b' is not a server and folder; write it as 192.168.1.1:/srv/gentoo or :/srv/gentoo,vers=3"),
        ("verify_root", "maybe", "'maybe' is neither yes nor no; write yes or no"),
    ],
)  # fmt: skip
def test_a_wrong_value_names_its_key(key: str, value: object, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        parse_settings(release_settings(tmp_path, **{f"pxeboot__{key}": value}))
    assert [str(problem) for problem in caught.value.problems] == [f"pxeboot/{key}: {reason}"]


def test_a_root_over_http_is_checked_if_it_can_be(tmp_path: Path) -> None:
    found = plan(tmp_path / "1", dracut())
    assert [entry.addon for entry in found.menu.live] == [None] * 4
    assert found.check is None
    assert found.notes[1] == (
        f"the root over HTTP is not checked: {IGZ}: it has no sha256sum; add `-I sha256sum` to"
        " boot/kernel/gentoo/dracut_args of the livecd-stage2 spec"
    )
    members = builders.dracut_members(modules=NET, curl=True) | {
        "usr/bin/sha256sum": (builders.FILE | 0o755, b"\x7fELF"),
        "var/lib/dracut/hooks/cmdline": (builders.FOLDER | 0o755, b""),
    }
    able = builders.initramfs(members, "gzip")
    found = plan(tmp_path / "2", able)
    assert [entry.addon for entry in found.menu.live[::2]] == [None, "boot/root-check.cpio"]
    assert found.check is not None and found.check.hooks == ("var/lib/dracut/hooks",)
    found = plan(tmp_path / "3", able, pxeboot__verify_root="no")
    assert found.check is None
    with pytest.raises(PxebootError) as caught:
        plan(tmp_path / "4", dracut(), pxeboot__verify_root="yes")
    assert str(caught.value) == (
        f"pxeboot/verify_root: {storedir_stage2(tmp_path / '4') / IGZ} cannot check a digest: it"
        " has no sha256sum; add `-I sha256sum` to boot/kernel/gentoo/dracut_args of the"
        " livecd-stage2 spec"
    )
