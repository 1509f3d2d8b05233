"""A real kexec: a small Linux in QEMU fetches a tree's kexec.sh, and becomes its live image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from catalyst_pxeboot.formats.cpio import write_archive
from catalyst_pxeboot.lab.machine import BIOS, find_qemu
from catalyst_pxeboot.lab.serve import WebServer, serve_tree
from catalyst_pxeboot.util.errors import CommandError
from tests.boot.test_loaders import make_tree
from tests.support import builders
from tests.support import live_image as liveimage
from tests.support.paths import CACHE

pytestmark = pytest.mark.more

# virtio_net and what it needs, in an order in which each finds what it wants.
_MODULES = (
    "drivers/virtio/virtio_ring.ko", "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko", "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci.ko", "net/core/failover.ko", "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
)  # fmt: skip

_INIT = """\
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /tmp; mount -t tmpfs -o size=80% tmpfs /dev/shm
for module in /modules/*; do insmod "$module"; done
ip link set lo up; ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
sleep 1
wget -q -O - http://10.0.2.2:@PORT@/kexec.sh | sh -s -- @OPTIONS@ http://10.0.2.2:@PORT@
echo "kexec.sh ended with $?"
poweroff -f
"""


def first_system(server: WebServer, options: str) -> bytes:
    """Make the initramfs of a small Linux that boots the tree by its script."""
    kexec = shutil.which("kexec", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    busybox = Path("/bin/busybox")
    if kexec is None or not busybox.is_file():
        pytest.skip("kexec (kexec-tools) or busybox (busybox-static) is missing")
    shown = subprocess.run(["ldd", kexec], capture_output=True, text=True, check=True).stdout
    libraries = [Path(found) for found in re.findall(r"(/\S+) \(0x", shown)]
    cache = liveimage._kernel(CACHE)
    members: list[tuple[str, int, bytes]] = []
    folders = {"bin", "dev", "proc", "sys", "modules", "tmp"}
    for library in libraries:
        folders |= {str(parent)[1:] for parent in library.parents if str(parent) != "/"}
    members += [(folder, builders.FOLDER | 0o755, b"") for folder in sorted(folders)]
    init = _INIT.replace("@PORT@", str(server.port)).replace("@OPTIONS@", options)
    for name, content in (
        ("init", init.encode()),
        ("bin/busybox", busybox.read_bytes()),
        ("bin/kexec", Path(kexec).read_bytes()),
        *((str(library)[1:], library.read_bytes()) for library in libraries),
    ):
        members.append((name, builders.FILE | 0o755, content))
    for place, name in enumerate(_MODULES):
        module = cache.modules / "kernel" / name
        if module.is_file():
            members.append(
                (f"modules/{place}-{module.name}", builders.FILE | 0o644, module.read_bytes())
            )
    return write_archive(members)


@pytest.mark.parametrize(
    ("generator", "options"),
    [
        ("dracut", ""),
        ("dracut-net", "--entry gentoo-http"),
        ("dracut-release", "--entry gentoo-stream"),
    ],
    ids=["embedded", "http", "stream"],
)
def test_a_running_linux_becomes_the_live_image(
    tmp_path: Path, generator: str, options: str
) -> None:
    streamed = generator == "dracut-release"
    tree = make_tree(tmp_path, generator, modules=streamed)
    root = tree / "image.squashfs"
    try:
        qemu = find_qemu(BIOS)
    except CommandError as error:
        pytest.skip(str(error))
    with serve_tree(tree) as server:
        initrd = tmp_path / "first.cpio"
        initrd.write_bytes(first_system(server, options))
        done = subprocess.run(
            [
                qemu, "-nodefaults", "-machine", "q35", "-accel", "tcg,thread=multi",
                "-cpu", "max", "-m", "1024", "-display", "none", "-serial", "stdio", "-no-reboot",
                "-kernel", liveimage._kernel(CACHE).boot("vmlinuz"), "-initrd", initrd,
                "-append", "console=ttyS0 panic=1", "-netdev", "user,id=net0,ipv6=off",
                "-device", "virtio-net-pci,netdev=net0,romfile=",
            ],
            capture_output=True, text=True, errors="replace", check=False, timeout=400,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        fetched = server.fetched
    console = done.stdout
    assert re.search(rf"^{liveimage.TOKEN} .*BOOTIF=01-52-54-00-12-34-56", console, re.M), (
        console[-6000:] + done.stderr
    )
    assert 0 < fetched[f"/{root.name}"] <= root.stat().st_size
    assert streamed or fetched[f"/{root.name}"] == root.stat().st_size
