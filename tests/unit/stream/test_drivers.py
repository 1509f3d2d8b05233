"""Taking a kernel's drivers and their firmware out of a live root."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from catalyst_pxeboot.stream.drivers import choose_modules, find_foreign_drivers, take_drivers
from catalyst_pxeboot.stream.pack import pack_stream
from catalyst_pxeboot.stream.tools import Tools
from catalyst_pxeboot.util.errors import FormatError, SourceError

MODULES = "lib/modules/6.1.0-test"
INDEX = """\
kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko: kernel/drivers/ptp/ptp.ko kernel/drivers/pps/pps_core.ko
kernel/drivers/net/ethernet/mellanox/mlxsw/mlxsw_core.ko: kernel/net/core/devlink.ko
kernel/drivers/net/usb/r8152.ko.xz: kernel/drivers/net/mii.ko
kernel/drivers/net/wireless/ath/ath9k.ko: kernel/net/mac80211.ko
kernel/drivers/net/virtio_net.ko:
kernel/drivers/ptp/ptp.ko:
kernel/drivers/pps/pps_core.ko:
kernel/drivers/net/mii.ko:
kernel/drivers/block/nbd.ko:
kernel/drivers/block/floppy.ko:
"""  # noqa: E501 (a line a module, as depmod writes it)
CHOSEN = (
    "kernel/drivers/block/nbd.ko",
    "kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko",
    "kernel/drivers/net/mii.ko",
    "kernel/drivers/net/usb/r8152.ko.xz",
    "kernel/drivers/net/virtio_net.ko",
    "kernel/drivers/pps/pps_core.ko",
    "kernel/drivers/ptp/ptp.ko",
)


def test_wired_drivers_with_what_they_need() -> None:
    assert choose_modules(INDEX) == CHOSEN


@pytest.mark.parametrize(
    "path",
    ["kernel/drivers/net/ethernet/../../../../../etc/shadow", "/etc/shadow", "-x.ko",
     "kernel/drivers/net/ethernet/a\x1b.ko", "kernel/drivers/net/ethernet/[a].ko"],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(FormatError):
        choose_modules(f"kernel/drivers/net/virtio_net.ko: {path}\n")


def test_more_modules_than_a_kernel_has_are_refused() -> None:
    lines = (f"kernel/drivers/net/ethernet/x{n}.ko:\n" for n in range(4001))
    with pytest.raises(FormatError, match="too many modules"):
        choose_modules("".join(lines))


def module(*firmware: str) -> bytes:
    return b"\x7fELF.modinfo\0" + b"".join(b"firmware=%s\0" % name.encode() for name in firmware)


def image(folder: Path, files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> Path:
    """Pack a live root that begins at byte 65536 of a file, as in an ISO."""
    if shutil.which("mksquashfs") is None:
        pytest.skip("mksquashfs is missing: install squashfs-tools")
    root = folder / "root"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    for name, target in (links or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)
    made = folder / "made"
    subprocess.run(
        ["mksquashfs", root, made, "-quiet", "-no-progress"], check=True, capture_output=True
    )
    (folder / "image").write_bytes(bytes(65536) + made.read_bytes())
    return folder / "image"


def take(folder: Path, packed: Path, modules: str = MODULES) -> Path:
    target = folder / "taken"
    target.mkdir()
    take_drivers(packed, offset=65536, modules=modules, target=target)
    return target


def names(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not path.is_dir() or path.is_symlink()
    }


def test_modules_index_and_firmware(tmp_path: Path) -> None:
    files = {f"{MODULES}/{path}": module() for path in CHOSEN} | {
        f"{MODULES}/modules.dep": INDEX.encode(),
        f"{MODULES}/modules.dep.bin": b"dep",
        f"{MODULES}/modules.alias.bin": b"alias",
        f"{MODULES}/kernel/drivers/block/floppy.ko": b"not wanted",
        f"{MODULES}/kernel/drivers/net/virtio_net.ko": module("a.bin", "rtl/b.bin", "no/such.fw"),
        f"{MODULES}/kernel/drivers/net/usb/r8152.ko.xz": lzma.compress(module("rtl/link.fw")),
        "lib/firmware/a.bin": b"a",
        "lib/firmware/rtl/b.bin.xz": b"b",
        "lib/firmware/other/target.fw": b"target",
        "lib/firmware/big.fw": bytes(3 << 20),
        f"{MODULES}/kernel/drivers/ptp/ptp.ko": module("big.fw", "../../etc/shadow", "out.fw"),
        "etc/shadow": b"secret",
    }
    links = {"lib/firmware/rtl/link.fw": "../other/target.fw", "lib/firmware/out.fw": "/etc/shadow"}
    taken = take(tmp_path, image(tmp_path, files, links))
    firmware = {"a.bin", "rtl/b.bin.xz", "rtl/link.fw", "other/target.fw"}
    assert names(taken) - {"lib/firmware/out.fw"} == {
        *(f"{MODULES}/{path}" for path in CHOSEN),
        f"{MODULES}/modules.dep.bin",
        f"{MODULES}/modules.alias.bin",
        *(f"lib/firmware/{name}" for name in firmware),
        "usr/lib",
    }
    assert (taken / "lib/firmware/rtl/link.fw").read_bytes() == b"target"
    assert (taken / f"usr/{MODULES}/kernel/drivers/block/nbd.ko").read_bytes() == module()
    # A link that leads out of the firmware's folder leads nowhere.
    assert not (taken / "lib/firmware/out.fw").exists()


def test_what_is_no_plain_file_is_left_out(tmp_path: Path) -> None:
    files = {f"{MODULES}/modules.dep": b"kernel/drivers/net/virtio_net.ko:\n"}
    packed = image(
        tmp_path, files, {f"{MODULES}/kernel/drivers/net/virtio_net.ko": "/etc/hostname"}
    )
    assert names(take(tmp_path, packed)) == {"usr/lib"}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"etc/other": b""}, "modules.dep"),
        ({f"{MODULES}/modules.dep": b"kernel/drivers/net/virtio_net.ko: ../x.ko\n"}, "../x.ko"),
        ({f"{MODULES}/modules.dep": b"\xff"}, "decode"),
    ],
)
def test_a_damaged_root_is_named(tmp_path: Path, files: Mapping[str, bytes], says: str) -> None:
    packed = image(tmp_path, files)
    with pytest.raises(SourceError) as raised:
        take(tmp_path, packed)
    assert str(packed) in raised.value.message and says in raised.value.message
    assert "pxeboot/root" in raised.value.hint


def squashfs(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir()
    made = image(folder, files)
    made.write_bytes(made.read_bytes()[65536:])
    return made


@pytest.mark.parametrize("place", ["lib", "usr/lib"])
@pytest.mark.parametrize("changed", ["", "content", "name"])
def test_drivers_that_are_not_the_roots(tmp_path: Path, place: str, changed: str) -> None:
    name = "modules/6.1.0-test/kernel/drivers/net/virtio_net.ko"
    root = squashfs(tmp_path / "root", {f"{place}/{name}": module(), "etc/passwd": b"root"})
    there = f"lib/{name}.xz" if changed == "name" else f"lib/{name}"
    content = module("other") if changed == "content" else module()
    packed = squashfs(tmp_path / "packed", {there: content}).read_bytes()
    foreign = find_foreign_drivers(packed, where="net.cpio", root=root)
    assert foreign == ((there,) if changed else ())


def test_drivers_that_cannot_be_read(tmp_path: Path) -> None:
    root = squashfs(tmp_path / "root", {"etc/passwd": b"root"})
    with pytest.raises(SourceError, match=r"net\.cpio"):
        find_foreign_drivers(b"no image", where="net.cpio", root=root)


def test_both_images_are_always_the_same(tmp_path: Path) -> None:
    files = {
        f"{MODULES}/modules.dep": b"kernel/drivers/net/virtio_net.ko:\n",
        f"{MODULES}/kernel/drivers/net/virtio_net.ko": module(),
    }
    packed = image(tmp_path, files)
    program = tmp_path / "nbdkit"
    program.write_bytes(b"program")
    tools = Tools("x86_64", {"@/nbdkit": program}, "")
    made = []
    for name in ("one", "two"):
        scratch = tmp_path / name
        scratch.mkdir()
        os.umask(0o077 if name == "two" else 0o022)
        found = pack_stream(
            tools, image=packed, offset=65536, modules=MODULES, compression="gzip",
            scratch=scratch, time=1_700_000_000,
        )  # fmt: skip
        made.append((found.tools.read_bytes(), found.drivers.read_bytes()))
    os.umask(0o022)
    assert made[0] == made[1]
    listed = subprocess.run(
        ["unsquashfs", "-ll", tmp_path / "one/tools.squashfs"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "-rwxr-xr-x root/root" in listed and "@/nbdkit" in listed
    assert "etc/resolv.conf -> /run/resolv.conf" in listed
