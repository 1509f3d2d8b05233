"""When a root can be streamed to a stock image, and what is planned then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalyst_pxeboot.loader.binaries import Loaders
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.model.settings import RootMode
from catalyst_pxeboot.plan.memory import least_memory
from catalyst_pxeboot.plan.roots import ROOTS, STREAM_BYTES
from catalyst_pxeboot.plan.tree import Plan, plan_tree
from catalyst_pxeboot.source.image import Source, read_source
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.stream.tools import NoTools, Tools
from catalyst_pxeboot.util.errors import PxebootError
from tests.support import builders
from tests.support.stage2 import release_settings, storedir_stage2, write_stage2

STREAM, HTTP, EMBEDDED = RootMode.STREAM, RootMode.HTTP, RootMode.EMBEDDED
TOOLS = Tools("x86_64", {}, "")
VERSION = "6.1.0-test"
MODULES = f"lib/modules/{VERSION}"
NET = ("base", "dmsquash-live", "livenet", "network-legacy", "url-lib")


def source(
    store: Path,
    initramfs: bytes | None = None,
    *,
    modules: str | None = MODULES,
    size: int = 1 << 20,
) -> Source:
    stage2 = storedir_stage2(store)
    write_stage2(
        stage2,
        initramfs=initramfs or builders.initramfs(builders.dracut_members()),
        squashfs=builders.squashfs_image(size=size),
    )
    read = read_source(stage2)
    return replace(read, kernels=tuple(replace(kernel, modules=modules) for kernel in read.kernels))


def plan(store: Path, found: Source, tools: Tools | NoTools = TOOLS, **keys: object) -> Plan:
    spec = parse_settings(release_settings(store, **{f"pxeboot__{k}": v for k, v in keys.items()}))
    return plan_tree(spec, found, Loaders((), ()), tools)


def modes(made: Plan) -> Mapping[RootMode, bool]:
    """Return each mode's first entry: whether an add-on leads it to its root."""
    return {entry.root: entry.streamed for entry in reversed(made.menu.live)}


def test_a_stock_image_is_streamed_or_fetched_by_the_same_addon(tmp_path: Path) -> None:
    made = plan(tmp_path, source(tmp_path))
    assert modes(made) == {HTTP: True, STREAM: True, EMBEDDED: False}
    assert made.menu.live[0].root is EMBEDDED  # stays the default
    assert {entry.addon for entry in made.menu.live} == {None, "boot/gentoo.net.cpio"}
    (stream,) = made.streams
    assert (stream.path, stream.modules, stream.hooks, stream.compression) == (
        "boot/gentoo.net.cpio", MODULES, "usr/lib/dracut/hooks", "xz",
    )  # fmt: skip
    assert made.check is None  # dm-verity checks it
    by_mode = {entry.root: entry.arguments for entry in made.menu.live}
    assert by_mode[STREAM][0] == by_mode[HTTP][0] == "root=live:/dev/mapper/live-root"
    assert "pxeboot.copy" in by_mode[HTTP] and "pxeboot.copy" not in by_mode[STREAM]


def test_an_image_that_can_fetch_its_root_needs_no_addon_for_that(tmp_path: Path) -> None:
    able = builders.initramfs(builders.dracut_members(modules=NET, curl=True))
    assert modes(plan(tmp_path, source(tmp_path, able))) == {
        HTTP: False, STREAM: True, EMBEDDED: False,
    }  # fmt: skip


def test_genkernels_image_is_streamed(tmp_path: Path) -> None:
    made = plan(tmp_path, source(tmp_path, builders.initramfs(builders.genkernel_members())))
    assert modes(made) == {HTTP: True, STREAM: True, EMBEDDED: False}
    by_mode = {entry.root: entry.arguments for entry in made.menu.live}
    assert {"looptype=squashfs", "loop=/live-root", "cdroot"} <= set(by_mode[STREAM])
    assert {"loop=/live-root", "pxeboot.copy"} <= set(by_mode[HTTP])
    (stream,) = made.streams
    assert (stream.generator, stream.hooks) == ("genkernel", "")


def test_pxelinux_must_be_told_the_server_and_uboot_cannot(tmp_path: Path) -> None:
    made = plan(tmp_path, source(tmp_path))
    streamed = next(entry for entry in made.menu.live if entry.root is STREAM)
    assert streamed.offered == (Loader.IPXE, Loader.GRUB)
    told = plan(tmp_path, source(tmp_path / "2"), base_url="http://10.0.0.1/live")
    streamed = next(entry for entry in told.menu.live if entry.root is STREAM)
    assert streamed.offered == (Loader.IPXE, Loader.PXELINUX, Loader.GRUB)


CASES: dict[str, tuple[dict[str, Any], Tools | NoTools, str]] = {
    "genkernel with a splash": (
        {"initramfs": builders.initramfs(
            builders.genkernel_members() | {"etc/initrd.splash": b"splash"}
        )}, TOOLS,
        "boot/gentoo.igz: genkernel 4.3.17 made it with a splash, whose place an add-on would take",
    ),
    "no live module": (
        {"initramfs": builders.initramfs(builders.dracut_members(modules=("base",)))}, TOOLS,
        "boot/gentoo.igz: dracut 059 made it without dmsquash-live",
    ),
    "no drivers": (
        {"modules": None}, TOOLS, f"image.squashfs: it has no modules of Linux {VERSION}",
    ),
    "odd size": (
        {"size": 65536 + 512}, TOOLS, "image.squashfs: its size is not a multiple of 4096",
    ),
    "no program": ({}, NoTools("nbdkit", "not found on this host", "install nbdkit"),
                   "nbdkit: not found on this host; install nbdkit"),
    "another machine": ({}, Tools("arm64", {}, ""), "nbdkit: not looked for, for x86_64"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_keeps_it_from_it_is_named(name: str, tmp_path: Path) -> None:
    image, tools, says = CASES[name]
    found = source(tmp_path, **image)
    obstacle = ROOTS[STREAM].find_way(found.kernels[0], found.squashfs, tools).obstacle
    assert obstacle and str(obstacle).startswith(says)
    with pytest.raises(PxebootError) as raised:
        plan(tmp_path, found, tools, root="stream")
    assert says.partition(": ")[2].partition(";")[0] in str(raised.value)
    if name != "no live module":  # nothing else boots such an image
        made = plan(tmp_path, found, tools)
        assert STREAM not in modes(made)
        assert any("streamed" in note and says in note for note in made.notes)


def test_the_least_memory_does_not_depend_on_the_root(tmp_path: Path) -> None:
    found = source(tmp_path)
    kernel = found.kernels[0]

    def need(mode: RootMode, squashfs: int) -> int:
        return least_memory(
            mode, Loader.IPXE, Firmware.BIOS, kernel=kernel.kernel, initramfs=kernel.initramfs,
            squashfs=squashfs, addon=STREAM_BYTES,
        )  # fmt: skip

    assert need(STREAM, 128 << 20) == need(STREAM, 1024 << 20)
    assert need(HTTP, 1024 << 20) > 1024 << 20
