"""The lab: QEMU's command lines, the web server, and how a boot is judged."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalyst_pxeboot.errors import CommandError, PxebootError
from catalyst_pxeboot.lab import boot, machine
from catalyst_pxeboot.lab.boot import boot_tree
from catalyst_pxeboot.lab.machine import Accel, Client, Flash, choose_accel, kvm_runs, qemu_argv
from catalyst_pxeboot.lab.serve import Request, TreeServer, serve_tree
from catalyst_pxeboot.model import Firmware, Loader

COMMON = """
-nodefaults -no-user-config -machine q35,graphics=off -accel tcg,thread=multi -cpu max -m 1024
-smp 1 -display none -vga std -monitor none -serial stdio -no-reboot
"""
PFLASH = """
-drive if=pflash,format=raw,readonly=on,file=/fw/code.fd
-drive if=pflash,format=raw,file=/run/vars.fd
"""
FLASH = Flash(Path("/fw/code.fd"), Path("/run/vars.fd"))
RNG = ["-device", "virtio-rng-pci"]


def argv(
    client: Client,
    *,
    tree: str = "/srv/tree",
    accel: Accel = Accel.TCG,
    flash: Flash | None = None,
    disk: Path | None = None,
) -> list[str]:
    """Write the command line for `client` with the tests' paths."""
    qemu = Path("/bin/qemu")
    return list(
        qemu_argv(
            client, qemu=qemu, tree=Path(tree), port=8123, accel=accel, flash=flash, disk=disk
        )
    )


@pytest.mark.parametrize(
    ("loader", "boot_file"),
    [
        (Loader.IPXE, "http://10.0.2.2:8123/boot.ipxe"),
        (Loader.PXELINUX, "pxelinux.0"),
        (Loader.GRUB, "boot/grub/i386-pc/core.0"),
    ],
)
def test_argv_bios(loader: Loader, boot_file: str) -> None:
    assert argv(Client("a", loader, Firmware.BIOS)) == [
        "/bin/qemu",
        *COMMON.split(),
        "-netdev",
        f"user,id=net0,ipv6=off,tftp=/srv/tree,bootfile={boot_file}",
        "-device",
        "virtio-net-pci,netdev=net0,bootindex=0",
        *RNG,
    ]


def test_argv_grub_on_efi() -> None:
    assert argv(Client("a", Loader.GRUB, Firmware.EFI), flash=FLASH) == [
        "/bin/qemu",
        *COMMON.split(),
        *PFLASH.split(),
        "-netdev",
        "user,id=net0,ipv6=off,tftp=/srv/tree,bootfile=boot/grub/x86_64-efi/core.efi",
        "-device",
        "virtio-net-pci,netdev=net0,romfile=,bootindex=0",
        *RNG,
    ]


def test_argv_ipxe_on_efi_starts_from_its_disk() -> None:
    client = Client("a", Loader.IPXE, Firmware.EFI)
    assert argv(client, flash=FLASH, disk=Path("/run/esp")) == [
        "/bin/qemu",
        *COMMON.split(),
        *PFLASH.split(),
        "-drive",
        "if=none,id=esp,format=raw,readonly=on,file=fat:/run/esp",
        "-device",
        "virtio-blk-pci,drive=esp,bootindex=0",
        "-netdev",
        "user,id=net0,ipv6=off,tftp=/srv/tree,bootfile=http://10.0.2.2:8123/boot.ipxe",
        "-device",
        "virtio-net-pci,netdev=net0,romfile=",
        *RNG,
    ]


def test_argv_of_another_machine() -> None:
    client = Client(
        "a", Loader.PXELINUX, Firmware.BIOS, memory_mib=2048, processors=2, boot_file="sub/x.0"
    )
    words = argv(client, accel=Accel.KVM, tree="/srv/a,b")
    assert words[6:14] == ["kvm", "-cpu", "host", "-m", "2048", "-smp", "2", "-display"]
    assert "user,id=net0,ipv6=off,tftp=/srv/a,,b,bootfile=sub/x.0" in words


def test_pxelinux_needs_bios() -> None:
    with pytest.raises(PxebootError) as caught:
        Client("a", Loader.PXELINUX, Firmware.EFI)
    assert str(caught.value) == (
        "client a: pxelinux does not start from efi firmware; use one of ipxe on bios, "
        "ipxe on efi, pxelinux on bios, grub on bios, grub on efi"
    )


def test_clients_cover_every_way() -> None:
    assert [client.name for client in machine.CLIENTS] == [
        "ipxe-bios",
        "ipxe-efi",
        "pxelinux-bios",
        "grub-bios",
        "grub-efi",
    ]


def test_missing_programs_name_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find_program", lambda name: None)
    monkeypatch.setattr(machine, "_OVMF", ())
    monkeypatch.setattr(machine, "_IPXE_EFI", ())
    for find, debian, gentoo in (
        (machine.find_qemu, "qemu-system-x86 ", "app-emulation/qemu "),
        (machine.find_flash, "ovmf ", "sys-firmware/edk2"),
        (machine.find_ipxe_efi, "ipxe ", "sys-firmware/ipxe "),
    ):
        with pytest.raises(CommandError) as caught:
            find()
        assert f"install {debian}(Debian)" in caught.value.hint.replace("and ipxe-qemu ", "")
        assert gentoo in caught.value.hint


@pytest.mark.parametrize(("code", "expected"), [(33, Accel.KVM), (0, Accel.TCG), (134, Accel.TCG)])
def test_kvm_counts_only_when_it_runs_a_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: Accel
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path == "/dev/kvm")
    qemu = _script(tmp_path / "qemu", f"exit {code}")
    kvm_runs.cache_clear()
    assert choose_accel(Accel.AUTO, qemu) is expected
    assert choose_accel(Accel.TCG, qemu) is Accel.TCG


# --- the web server -------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TreeServer]:
    tree = tmp_path / "tree"
    (tree / "boot").mkdir(parents=True)
    (tree / "boot/root.img").write_bytes(b"abc" * 100_000)
    (tree / "a b").write_text("spaces")
    (tree / "private").write_text("x")
    (tree / "private").chmod(0o600)
    (tmp_path / "secret").write_text("x")
    (tree / "leak").symlink_to(tmp_path / "secret")
    (tree / "inside").symlink_to("a b")
    with serve_tree(tree) as running:
        yield running


def ask(server: TreeServer, path: str, method: str = "GET") -> tuple[int, bytes, str | None]:
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        link.request(method, path)
        answer = link.getresponse()
        return answer.status, answer.read(), answer.getheader("Content-Length")
    finally:
        link.close()


def test_server_listens_on_loopback_only(server: TreeServer) -> None:
    assert server.server_address == ("127.0.0.1", server.port)
    assert server.port > 0


def test_server_serves_and_counts(server: TreeServer) -> None:
    assert ask(server, "/boot/root.img") == (200, b"abc" * 100_000, "300000")
    assert ask(server, "/boot/root.img", "HEAD") == (200, b"", "300000")
    assert ask(server, "/a%20b?x=1") == (200, b"spaces", "6")
    assert ask(server, "/inside")[:2] == (200, b"spaces")
    assert server.requests == (
        Request("/boot/root.img", 200),
        Request("/boot/root.img", 200),
        Request("/a b", 200),
        Request("/inside", 200),
    )
    assert server.fetched == {"/boot/root.img": 300_000, "/a b": 6, "/inside": 6}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/../secret", 400),
        ("/boot/../../secret", 400),
        ("/%2e%2e/secret", 400),
        ("/..%2fsecret", 400),
        ("/boot/%00", 400),
        ("secret", 400),
        ("/leak", 403),
        ("/private", 403),
        ("/boot", 404),
        ("/", 404),
        ("/none", 404),
    ],
)
def test_server_refuses(server: TreeServer, path: str, status: int) -> None:
    assert ask(server, path)[0] == status
    assert [request.status for request in server.requests] == [status]
    assert set(server.fetched.values()) == {0}


def test_server_knows_no_other_method(server: TreeServer) -> None:
    assert ask(server, "/a%20b", "DELETE")[0] == 501


# --- judging a boot, with a stand-in for QEMU -----------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree, and a `qemu` beside it that a test writes."""
    (tmp_path / "tree").mkdir()
    monkeypatch.setattr(boot, "find_qemu", lambda: tmp_path / "qemu")
    return tmp_path / "tree"


def _script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def judge(tree: Path, script: str, timeout: float = 10, log: Path | None = None) -> boot.BootResult:
    _script(tree.parent / "qemu", script)
    client = Client("a", Loader.PXELINUX, Firmware.BIOS)
    return boot_tree(tree, client, token="reached", timeout=timeout, log=log, accel=Accel.TCG)


def test_boot_passes_on_a_line_that_begins_with_the_token(tree: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    result = judge(tree, r"printf 'Linux\r\n\033[0mreached quiet\r\n'; exec sleep 60", log=log)
    assert (result.passed, result.reason) == (True, "reached quiet")
    assert result.console_tail == ("Linux", "reached quiet")
    assert result.seconds < 5
    assert log.read_bytes() == b"Linux\r\n\033[0mreached quiet\r\n"


def test_boot_kills_the_machine(tree: Path, tmp_path: Path) -> None:
    judge(tree, f"echo $$ > {tmp_path}/pid; echo reached; exec sleep 60")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_boot_kills_the_machine_when_judging_fails(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(line: str, raw: bytes) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(boot._Console, "_keep", broken)
    with pytest.raises(KeyboardInterrupt):
        judge(tree, f"echo $$ > {tmp_path}/pid; echo reached; exec sleep 60")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo Command line: reached", "the machine stopped (QEMU's exit code is 0)"),
        ("exit 3", "the machine stopped (QEMU's exit code is 3)"),
        (
            "echo 'Kernel panic - not syncing: VFS'; exec sleep 60",
            "the console shows 'Kernel panic - not syncing'",
        ),
        (
            r"printf 'Loading image.squashfs...failed: No such file or directory\r\nboot: '; "
            "exec sleep 60",
            "the console shows 'Loading image.squashfs...failed:'",
        ),
    ],
)
def test_boot_fails_at_once(tree: Path, script: str, reason: str) -> None:
    result = judge(tree, script)
    assert (result.passed, result.reason) == (False, reason)
    assert result.seconds < 5


def test_boot_fails_when_time_is_over(tree: Path) -> None:
    result = judge(tree, "echo hello; exec sleep 60", timeout=0.3)
    assert not result.passed
    assert result.reason == "no line began with 'reached' within 0.3 s"
    assert result.console_tail == ("hello",)


def test_boot_refuses_a_file_that_no_server_could_read(tree: Path) -> None:
    (tree / "gentoo.igz").touch(mode=0o600)
    result = judge(tree, "echo reached")
    assert (result.passed, result.reason) == (False, "gentoo.igz is not readable by a server")
