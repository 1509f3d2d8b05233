"""Unified kernel images, from UEFI HTTP Boot to a streamed root, with and without Secure Boot."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from catalyst_pxeboot.formats.uki import read_sections
from catalyst_pxeboot.lab.boot import prepare_flash
from catalyst_pxeboot.lab.machine import (
    UEFI_X64,
    UEFI_X64_SECURE,
    Accel,
    Machine,
    TapLink,
    choose_accel,
    find_qemu,
    qemu_argv,
)
from catalyst_pxeboot.lab.network import BRIDGE, TAP, Network, make_network
from catalyst_pxeboot.lab.servers import find_dnsmasq
from catalyst_pxeboot.lab.watch import Verdict, watch_machine
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import CommandError
from tests.boot.test_login import make_iso
from tests.boot.test_serve import LAPTOP, RANGE
from tests.boot.test_session import terminal
from tests.boot.test_stream import make_stage2, make_tree, pack_iso
from tests.support import live_image
from tests.support.paths import ROOT
from tests.support.serve_trees import COMMAND, Served, serving

more = pytest.mark.more
URL = f"http://{LAPTOP.server}"
OVMF = Path("/usr/share/OVMF")
#: A folder with a stub of systemd 258 or later.
NEW_STUB = os.environ.get("PXEBOOT_NEW_STUB", "")
TOKEN = f"^{live_image.TOKEN}"


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uki")
    return pack_iso(make_stage2(folder, "dracut-release", 32, live_image.CLOUD), folder)


@pytest.fixture(scope="module")
def tree(iso: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(
        iso, tmp_path_factory.mktemp("tree"), pxeboot__loaders=["uki", "ipxe", "grub"],
        pxeboot__root="stream", pxeboot__base_url=URL, pxeboot__first="uki",
    )  # fmt: skip


def boot_machine(
    network: Network,
    machine: Machine,
    folder: Path,
    *,
    until: str = TOKEN,
    memory: int = 512,
    http: bool = True,
    flash: Path | None = None,
    disk: Path | None = None,
    timeout: float = 300,
    stop: threading.Event | None = None,
) -> Verdict:
    """Boot a client in the network; `flash` are its firmware's variables, if it has kept any."""
    try:
        qemu, found = find_qemu(machine), prepare_flash(machine, folder)
    except CommandError as error:
        pytest.skip(str(error))
    if found and flash:
        shutil.copy(flash, found.variables)
    argv = qemu_argv(
        machine, TapLink(TAP), qemu=qemu, accel=choose_accel(Accel.AUTO, qemu, machine),
        memory_mib=memory, flash=found, http_boot=http, disk=disk,
    )  # fmt: skip
    return watch_machine(
        network.inside(argv), until=re.compile(until), timeout=timeout, log=folder / "console",
        stop=stop,
    )  # fmt: skip


@contextmanager
def served(
    tree: Path, folder: Path, *options: str
) -> Iterator[tuple[Served, Callable[..., Verdict]]]:
    """Serve the tree; yield the events, and what boots a client by them."""
    try:
        find_dnsmasq()
    except CommandError as error:
        pytest.skip(str(error))
    with ExitStack() as stack:
        network = stack.enter_context(make_network(LAPTOP, other=False))
        events = stack.enter_context(
            serving(tree, folder / "serve", "--interface", BRIDGE, *RANGE, *options,
                    inside=network.inside)
        )  # fmt: skip

        def boot(machine: Machine = UEFI_X64, **options: Any) -> Verdict:
            return boot_machine(network, machine, folder, **options)

        yield events, boot


def shown(verdict: Verdict) -> str:
    return "\n".join([*verdict.console_tail, verdict.reason])


@pytest.mark.parametrize("http", [True, False], ids=["HTTP Boot", "TFTP"])
def test_the_firmware_starts_it(http: bool, tree: Path, tmp_path: Path) -> None:
    with served(tree, tmp_path) as (events, boot):
        verdict = boot(http=http)
        assert verdict.passed, shown(verdict)
        kinds = {(event["scheme"], event["file"]) for event in events.kinds("file")}
        assert ("http" if http else "tftp", "boot/gentoo.efi") in kinds
        assert [event["file"] for event in events.kinds("streamed")][:1] == ["image.squashfs"]
        assert not any(file in ("boot.ipxe", "boot/gentoo", "boot/gentoo.igz") for _, file in kinds)


@pytest.fixture(scope="module")
def plain_tree(iso: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tree that does not know where it will be."""
    return make_tree(
        iso, tmp_path_factory.mktemp("plain"), pxeboot__loaders=["uki", "ipxe", "grub"],
        pxeboot__root="stream", pxeboot__first="uki",
    )  # fmt: skip


@more
def test_it_finds_its_tree(plain_tree: Path, tmp_path: Path) -> None:
    """The DHCP server that named the file to the firmware names it to the initramfs, too."""
    with served(plain_tree, tmp_path) as (events, boot):
        verdict = boot()
        assert verdict.passed, shown(verdict)
        console = (tmp_path / "console").read_text("utf-8", "replace")
        assert f"the tree is at {URL}/, says DHCP" in console
        assert " pxeboot.url=image.squashfs " in verdict.reason
        assert events.kinds("streamed")


@more
@pytest.mark.skipif(not NEW_STUB, reason="PXEBOOT_NEW_STUB names no folder with a newer stub")
def test_the_stub_tells_where_it_came_from(iso: Path, tmp_path: Path) -> None:
    tree = make_tree(
        iso, tmp_path / "tree", pxeboot__loaders="uki", pxeboot__root="stream",
        pxeboot__first="uki", pxeboot__loader_path=NEW_STUB,
    )  # fmt: skip
    with served(tree, tmp_path) as (_events, boot):
        verdict = boot()
        assert verdict.passed, shown(verdict)
        console = (tmp_path / "console").read_text("utf-8", "replace")
        assert f"the tree is at {URL}/, says systemd-stub" in console


#: A loader's configuration that starts the image. iPXE hands over the program's name as its command
#: line, which the stub takes in place of its own where Secure Boot is off.
STARTED_BY = {
    "iPXE": ("boot.ipxe", "#!ipxe\nchain boot/gentoo.efi {words}\n"),
    "GRUB": ("boot/grub/grub.cfg", 'chainloader "${{base}}boot/gentoo.efi"\nboot\n'),
}


@more
@pytest.mark.parametrize("name", STARTED_BY)
def test_a_loader_starts_it(name: str, iso: Path, tmp_path: Path) -> None:
    config, text = STARTED_BY[name]
    tree = make_tree(
        iso, tmp_path / "tree", pxeboot__loaders=["uki", name.lower()], pxeboot__root="stream",
        pxeboot__base_url=URL, pxeboot__server=f"{LAPTOP.server}/24",
    )  # fmt: skip
    words = read_sections((tree / "boot/gentoo.efi").read_bytes(), where="uki")[".cmdline"]
    (tree / config).unlink()
    (tree / config).write_text(text.format(words=words.decode()))
    with served(tree, tmp_path, "--no-verify") as (events, boot):
        verdict = boot(http=False, memory=1536)
        assert verdict.passed, shown(verdict)
        files = [event["file"] for event in events.kinds("file")]
        assert files.index(config) < files.index("boot/gentoo.efi")


@more
def test_a_usb_stick_starts_it(tree: Path, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    (stick / "EFI/BOOT").mkdir(parents=True)
    shutil.copy(tree / "boot/gentoo.efi", stick / "EFI/BOOT/BOOTX64.EFI")
    with served(tree, tmp_path) as (events, boot):
        verdict = boot(disk=stick)
        assert verdict.passed, shown(verdict)
        assert not any(event["file"] == "boot/gentoo.efi" for event in events.kinds("file"))


@more
@pytest.mark.timeout(300)
def test_a_session_streams_the_root(plain_tree: Path) -> None:
    with terminal("qemu", plain_tree, "--loader", "uki", "--display", "serial") as session:
        session.wait_for("the tree is at http://10.0.2.2:[0-9]+/, says DHCP", 120)
        session.wait_for(live_image.TOKEN, 120)


def secure_machine() -> Machine:
    """Return a machine whose firmware knows Secure Boot and has no keys: it is in setup mode."""
    code, variables = (OVMF / f"OVMF_{name}.fd" for name in ("CODE_4M.secboot", "VARS_4M"))
    if not code.exists():
        pytest.skip(f"{code} is missing (ovmf)")
    return replace(UEFI_X64_SECURE, flash=((str(code), str(variables)),))


@dataclass(frozen=True)
class Enrolled:
    """A machine with the user's keys, and a tree that is signed by them."""

    machine: Machine
    flash: Path
    keys: Path
    tree: Path


def read_commands() -> list[str]:
    """Return the documentation's commands, as a reader copies them."""
    text = (ROOT / "doc/secure-boot.md").read_text().partition("\n## ")[0]
    return re.findall(r"^    (.+)$", text, re.MULTILINE)


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Enrolled:
    """Follow the documentation to its last command but one, with a machine in setup mode."""
    folder, machine = tmp_path_factory.mktemp("enrolled"), secure_machine()
    make_iso(folder, "dracut-release").rename(folder / "minimal.iso")
    commands = read_commands()
    assert len(commands) == 8
    assert commands[-1].startswith("catalyst-pxeboot serve signed-tree ")
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    (bin_folder / "catalyst-pxeboot").symlink_to(Path(sys.executable).with_name("catalyst-pxeboot"))
    env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    with ExitStack() as stack:
        network = stack.enter_context(make_network(LAPTOP, other=False))
        for command in commands[:-1]:
            serves = command.startswith("catalyst-pxeboot serve ")
            if " build " in command:
                command += " --set pxeboot/serial=ttyS0,115200"  # so that a test can read it
            command = command.replace("eth1", BRIDGE).replace("10.0.0.1 ", f"{LAPTOP.server} ")
            argv = ["sh", "-ec", command]
            process = subprocess.Popen(
                network.inside(argv) if serves else argv, cwd=folder, env=env,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            if not serves:
                said, _ = process.communicate(timeout=300)
                assert process.returncode == 0, said
                continue
            stop = threading.Event()
            with ThreadPoolExecutor(1) as beside:
                watched = beside.submit(
                    boot_machine,
                    network,
                    machine,
                    folder,
                    until="ended with [1-9]",
                    stop=stop,
                    memory=1024,
                    http=False,
                )
                try:
                    said, _ = process.communicate(timeout=300)
                finally:
                    process.kill()
                    stop.set()
            assert process.returncode == 0, said + shown(watched.result())
            assert "its script ended with 0" in said
            shutil.copy(folder / "variables.fd", folder / "enrolled.fd")
    return Enrolled(machine, folder / "enrolled.fd", folder / "secureboot", folder / "signed-tree")


@more
def test_secure_boot_with_own_keys(enrolled: Enrolled, tmp_path: Path) -> None:
    assert verify_tree(enrolled.tree, secureboot=enrolled.keys / "db.crt").faults == ()
    with served(enrolled.tree, tmp_path) as (_events, boot):
        verdict = boot(enrolled.machine, flash=enrolled.flash)
        assert verdict.passed, shown(verdict)
        console = (tmp_path / "console").read_text("utf-8", "replace")
        assert "Secure boot enabled" in console or "secureboot: Secure boot enabled" in console
        assert "Kernel is locked down from EFI Secure Boot" in console
        assert "the live root is there, each block of it is checked" in console


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.unlink()
    file.write_bytes(content)


def unsign(file: Path) -> None:
    subprocess.run(["sbattach", "--remove", file], check=True, capture_output=True)


def sign_by_another(file: Path) -> None:
    unsign(file)
    other = file.parent / "other"
    subprocess.run([*COMMAND, "keys", other], check=True, capture_output=True)
    subprocess.run(
        ["sbsign", "--key", other / "db.key", "--cert", other / "db.crt", "--output", file, file],
        check=True, capture_output=True,
    )  # fmt: skip
    shutil.rmtree(other)


def change_command_line(file: Path) -> None:
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content.replace(b"dokeymap nodhcp", b"dokeymap init=x", 1))


REFUSED: dict[str, Callable[[Path], None]] = {
    "a byte of the initrd": lambda file: flip(file, file.stat().st_size // 2),
    "a byte of the kernel": lambda file: flip(file, file.stat().st_size - 100_000),
    "unsigned": unsign,
    "another key": sign_by_another,
    "the command line": change_command_line,
}


@more
@pytest.mark.parametrize("name", REFUSED)
def test_the_firmware_refuses(name: str, enrolled: Enrolled, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(enrolled.tree, tree)
    REFUSED[name](tree / "boot/gentoo.efi")
    assert verify_tree(tree, secureboot=enrolled.keys / "db.crt").faults
    with served(tree, tmp_path, "--no-verify") as (events, boot):
        verdict = boot(
            enrolled.machine, flash=enrolled.flash, timeout=120,
            until=f"Access Denied|Security Violation|Linux version|{TOKEN}",
        )  # fmt: skip
        assert re.search("Access Denied|Security Violation", verdict.reason), shown(verdict)
        assert ("http", "boot/gentoo.efi") in {
            (event["scheme"], event["file"]) for event in events.kinds("file")
        }


@more
def test_a_changed_root_is_refused_block_by_block(enrolled: Enrolled, tmp_path: Path) -> None:
    """The signed file is as it was; what it streams is not."""
    tree = tmp_path / "tree"
    shutil.copytree(enrolled.tree, tree)
    squashfs = tree / "image.squashfs"
    for at in range(squashfs.stat().st_size // 2, squashfs.stat().st_size - 8192, 4096):
        flip_block(squashfs, at)
    with served(tree, tmp_path, "--no-verify") as (_events, boot):
        verdict = boot(
            enrolled.machine, flash=enrolled.flash, until=f"verity: .*is corrupted|{TOKEN}"
        )
        assert "is corrupted" in verdict.reason, shown(verdict)


def flip_block(file: Path, at: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(at)
        old = stream.read(1)
        stream.seek(at)
        stream.write(bytes([old[0] ^ 1]))


@more
def test_a_root_of_another_build_is_refused(enrolled: Enrolled, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(enrolled.tree, tree)
    squashfs = tree / "image.squashfs"
    for at in range(0, squashfs.stat().st_size, 4096):
        flip_block(squashfs, at)
    with served(tree, tmp_path, "--no-verify") as (_events, boot):
        verdict = boot(
            enrolled.machine, flash=enrolled.flash, until=f"is not the one that this|{TOKEN}"
        )
        assert "is not the one that this" in verdict.reason, shown(verdict)
