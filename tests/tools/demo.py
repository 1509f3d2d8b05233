"""`make run`: a live image, its netboot tree, a check of it and one boot, all on this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.util.errors import PxebootError
from tests.support import live_image as liveimage
from tests.support.boot import Client, boot_tree
from tests.support.paths import ROOT
from tests.support.stage2 import STAMP

CACHE = ROOT / ".cache"
STORE = CACHE / "demo"
BUILDS = STORE / "builds/23.0-default"
STAGE2 = BUILDS / f"livecd-stage2-amd64-{STAMP}"
TREE = BUILDS / f"pxeboot-amd64-{STAMP}"
SPEC = STORE / "installpxe.spec"
CONF = STORE / "catalyst.conf"


def command(*words: str | Path) -> None:
    """Run this project's own command as a user would, showing it first."""
    print("$ catalyst-pxeboot", *words, flush=True)
    subprocess.run([sys.executable, "-m", "catalyst_pxeboot", *words], cwd=ROOT, check=True)


def main() -> int:
    """Do it all; the exit code is 1 if the tree does not boot."""
    print(
        "Building a small live image (Debian's kernel, dracut, a squashfs with busybox) …",
        flush=True,
    )
    shutil.rmtree(STAGE2, ignore_errors=True)
    BUILDS.mkdir(parents=True, exist_ok=True)
    liveimage.build_live_image(STAGE2, cache=CACHE)
    CONF.write_text(f'storedir = "{STORE}"\ndigests = ["blake2b", "sha512"]\n')
    SPEC.write_text(
        "subarch: amd64\n"
        f"version_stamp: {STAMP}\n"
        "target: pxeboot\n"
        "rel_type: 23.0-default\n"
        f"source_subpath: 23.0-default/{STAGE2.name}\n"
        "pxeboot/serial: ttyS0,115200\n"
    )
    command("build", "-f", SPEC, "-c", CONF)
    command("verify", TREE)
    print("Booting it in QEMU: BIOS, iPXE, HTTP; this takes half a minute …", flush=True)
    client = Client("ipxe-bios", Loader.IPXE, Firmware.BIOS)
    result = boot_tree(TREE, client, token=liveimage.TOKEN, timeout=240, log=STORE / "console.log")
    if not result.passed:
        print(*result.console_tail, sep="\n")
        print(f"It did not boot: {result.reason}")
        return 1
    print(f"Booted to the live root in {result.seconds:.0f} s: {result.reason}")
    print(f"""
live image   {STAGE2}
netboot tree {TREE}
spec         {SPEC}
console      {STORE / "console.log"}

To serve the tree to a network, give its folder to a web server and to a TFTP server, and have
DHCP name the loader: boot.ipxe for iPXE, pxelinux.0 for a BIOS, boot/grub/x86_64-efi/core.efi
for UEFI. For a quick try by HTTP:
    python3 -m http.server --directory {TREE} 8000
and on the iPXE command line of a client:
    dhcp && chain http://ADDRESS:8000/boot.ipxe""")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PxebootError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
