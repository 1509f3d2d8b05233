"""What a failed boot's console means: real consoles' last lines, and boots that told nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from catalyst_pxeboot.lab.causes import Evidence, find_cause, name_cause
from catalyst_pxeboot.util.resources import read_table

#: Last lines as clients really printed them, by the row of the table that they belong to.
CONSOLES = [
    (
        "stream",
        "[   20.1] streamed root: no DHCP server gave an address to eth0",
    ),
    (
        "root-changed",
        "[   20.1] streamed root: the live root on the server has 4096 bytes, not 8192",
    ),
    (
        "root-changed",
        "[   30.1] device-mapper: verity: 254:0: data block 36621 is corrupted",
    ),
    # dracut 059 with our root check, after one bit of image.squashfs was another
    (
        "root-changed",
        "root check: the live root is not the one that this netboot tree was made with\n"
        "root check: expected sha256 12ab\n"
        'Generating "/run/initramfs/rdsosreport.txt"',
    ),
    # GRUB behind shim, Secure Boot on, an unsigned kernel
    (
        "secure-boot",
        "Loading (tftp,192.0.2.1)/boot/gentoo\nerror: bad shim signature.\n"
        "This did not work; the reason is above. Files are fetched from (tftp,192.0.2.1)/",
    ),
    (
        "secure-boot",
        'BdsDxe: failed to load Boot0001 "UEFI PXEv4 (MAC:525400123456)" from PciRoot(0x0)/'
        "Pci(0x2,0x0): Access Denied",
    ),
    # GRUB 2.06 that knows the tree's key
    ("signature", "error: bad signature.\nThis did not work; the reason is above."),
    ("signature", "error: file `/boot/gentoo.sig' not found."),
    # lpxelinux.0 6.04 behind a relay, its CPU busy, in the 65th MiB of a root by HTTP
    (
        "gave-up",
        "Loading image.squashfs.....\nthe console shows 'Boot failed: press a key to retry'",
    ),
    # Linux 6.1 whose initramfs does not fit
    (
        "memory",
        "[    4.1] Out of memory and no killable processes...\n"
        "[    4.2] Kernel panic - not syncing: System is deadlocked on memory",
    ),
    ("memory", "[    1.9] Initramfs unpacking failed: write error"),
    ("memory", "Loading (tftp,192.0.2.1)/image.squashfs\nerror: out of memory."),
    # UEFI iPXE, Linux 6.1.84 with 514 MiB for 129: in 2 boots of 10
    (
        "memory",
        "EFI stub: ERROR: Failed to allocate memory for files\n"
        "EFI stub: ERROR: Failed to load initrd: 0x8000000000000009\n"
        "Could not boot: Error 0x7f048289 (http://ipxe.org/7f048289)",
    ),
    ("memory", "image.squashfs... Not enough space (https://ipxe.org/31466083)"),
    ("memory", "This machine has 512 MiB of memory, and this entry needs 1679."),
    # nginx under a folder of mode 0700
    ("file-forbidden", "boot/gentoo... Permission denied (http://ipxe.org/0216618e)"),
    # iPXE of 2019 on BIOS and under UEFI
    (
        "file-missing",
        "boot/gentoo.igz.pad... ok\n"
        "image.squashfs... No such file or directory (http://ipxe.org/2d0c613b)\n\n"
        "This did not work: gentoo. The reason is above.",
    ),
    # PXELINUX 6.04: itself and SeaBIOS's copy of the screen, mixed
    (
        "file-missing",
        "Loading boot/gentoo.igz..Loading boot/gentoo.igz....failed:failed:  No such file or "
        "directorNo such file or directoryy",
    ),
    # GRUB 2.06 by TFTP from dnsmasq
    (
        "file-missing",
        "error: file /run/tftp/boot/gentoo not found for 192.0.2.158.\n"
        "This did not work; the reason is above. Files are fetched from",
    ),
    # U-Boot 2023.01
    (
        "file-missing",
        "TFTP error: 'file /run/tftp/boot/gentoo.initrd not found for 192.0.2.140' (1)",
    ),
    # GRUB 2.06 by HTTP, for what the server answered 404 to
    (
        "file-short",
        "error: premature end of file (http,192.0.2.1)/boot/gentoo.\n"
        "This did not work; the reason is above.",
    ),
    ("squashfs", "initramfs: /image.squashfs.img cannot be mounted as squashfs"),
    ("no-dhcp", "Configuring (net0 52:54:00:12:34:56)... No configuration methods succeeded"),
    ("no-dhcp", "PXE-E51: No DHCP or proxyDHCP offers were received."),
    ("no-boot-file", "Nothing to boot: No such file\nNo more network devices\n"),
    ("no-boot-file", "BdsDxe: No bootable option or device was found."),
    ("server-unreachable", "http://192.0.2.1/boot.ipxe... Connection refused"),
    ("archive", "[    1.9] Initramfs unpacking failed: initramfs name without nulterm"),
    # Debian's arm64 kernel without its end
    (
        "kernel-refused",
        "error: plain image kernel not supported - rebuild with CONFIG_(U)EFI_STUB\nenabled.",
    ),
    ("kernel-refused", "Could not boot image: Exec format error (http://ipxe.org/2e008081)"),
    (
        "no-root",
        "[    2.5] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
    ),
    (
        "init-died",
        "[    3.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
    ),
    ("panic", "[    0.3] Kernel panic - not syncing: IO-APIC + timer doesn't work!"),
    # dracut without and with systemd, dracut-ng
    (
        "dracut-shell",
        "[   33.4] dracut Warning: Could not boot.\ndracut Warning: /dev/root does not exist\n\n"
        'Generating "/run/initramfs/rdsosreport.txt"',
    ),
    ("dracut-shell", "Press Enter for maintenance\n(or press Control-D to continue): "),
    ("genkernel-shell", "Enter 'help' for a list of built-in commands.\n\nrescueshell /newroot # "),
    ("nfs", "mount.nfs: Connection timed out"),
    ("loader-prompt", "   Minimal BASH-like line editing is supported.\n\ngrub> "),
    ("qemu", "qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory"),
    ("loader-failed", "error: something new.\nThis did not work; the reason is above."),
]


@pytest.mark.parametrize(("name", "console"), CONSOLES)
def test_what_a_console_means(name: str, console: str) -> None:
    assert name_cause(console) == name


def test_every_row_is_met_by_a_console() -> None:
    assert {row["name"] for row in read_table("lab/causes.toml")["cause"]} == {
        name for name, _ in CONSOLES
    }


def test_a_boot_to_the_token_means_nothing_bad() -> None:
    console = (
        "[    2.3] loop: module loaded\n[    2.4] squashfs: version 4.0 (2009/01/31)\n"
        "[    2.6] Not activating Mandatory Access Control as /sbin/tomoyo-init does not exist.\n"
        "livecd login: root (automatic login)\nlivecd ~ # "
    )
    assert name_cause(console) == ""


QUIET = Evidence("no line of the console matched", (), timed_out=True, silence=60, timeout=100)
KERNEL = "[    1.936186] Run /init as init process"


def test_a_cause_names_memory_and_file() -> None:
    short = replace(QUIET, tail=("Out of memory",), memory_mib=512)
    assert find_cause(short) == (
        "the client has too little memory (512 MiB): give more with --memory; "
        "`catalyst-pxeboot inspect` tells what each root needs"
    )
    tail = (
        "TFTP error: 'file /tmp/x/tftp/pxelinux.cfg/C0 not found for 192.0.2.140' (1)",
        "TFTP error: 'file /tmp/x/tftp/boot/gentoo.initrd not found for 192.0.2.140' (1)",
    )
    assert find_cause(replace(QUIET, tail=tail)) == (
        "the server has not got a file that the client asked for (boot/gentoo.initrd): "
        "`catalyst-pxeboot verify` tells what the tree lacks"
    )
    assert find_cause(replace(QUIET, tail=("404 Not Found",))).startswith(
        "the server has not got a file that the client asked for: "
    )


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        (
            QUIET,
            "nothing came on the console and nothing was fetched: the firmware did not start, or "
            "not within the time; try --timeout 300, and --screenshot to see the screen",
        ),
        (
            replace(QUIET, fetched={"tftp:pxelinux.0": 42}),
            "the client fetched files but nothing came on its serial console: give --until or "
            "--screenshot",
        ),
        (
            replace(QUIET, tail=("Reboot  Power off",), waits=True),
            "the menu was still there when time was over: it waits for ever (pxeboot/timeout: -1);"
            " --timeout 300",
        ),
        (
            replace(QUIET, tail=("image.squashfs... ok",), serial=False),
            "the kernel prints to the screen only, so nothing can be read: build the tree with "
            "pxeboot/serial: ttyS0,115200, or give --until or --screenshot",
        ),
        (
            replace(QUIET, tail=("image.squashfs... ok",)),
            "nothing more came for 60 s after 'image.squashfs... ok': the kernel did not start, or "
            "printed nothing; too little memory is the most usual reason (--memory)",
        ),
        (
            replace(QUIET, tail=(KERNEL,)),
            f"nothing more came for 60 s after '{KERNEL}'",
        ),
        (
            replace(QUIET, tail=(KERNEL,), silence=2.0),
            f"it was still going on when time was over, and had come to '{KERNEL}'; "
            "try --timeout 300",
        ),
        (
            replace(QUIET, tail=(KERNEL, " * Starting local ...  [ ok ]")),
            "the live system has started its services but shows no prompt on the serial console: "
            "give what it does show there with --until, such as --until 'Starting local'",
        ),
        (
            replace(QUIET, tail=(KERNEL,), timed_out=False),
            "the client stopped or restarted by itself after its kernel had started",
        ),
        (
            replace(QUIET, tail=("SeaBIOS",), timed_out=False),
            "the client stopped or restarted by itself before its kernel printed anything",
        ),
    ],
)
def test_a_boot_that_told_nothing_wrong(evidence: Evidence, cause: str) -> None:
    assert find_cause(evidence) == cause
