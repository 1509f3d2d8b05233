"""The lab: command lines, network, servers and their logs, and how a boot is judged."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from catalyst_pxeboot.cli import main as cli
from catalyst_pxeboot.lab import boot, boottest, machine, network, watch
from catalyst_pxeboot.lab import servers as services
from catalyst_pxeboot.lab.boot import boot_tree, user_link
from catalyst_pxeboot.lab.boottest import boot_test, judge, judge_complaint, run_path
from catalyst_pxeboot.lab.machine import (
    BIOS,
    MACHINES,
    UBOOT_ARM,
    UEFI_ARM64,
    UEFI_IA32,
    UEFI_X64,
    Accel,
    Client,
    Flash,
    Front,
    StreamLink,
    TapLink,
    UserLink,
    choose_accel,
    kvm_runs,
    qemu_argv,
)
from catalyst_pxeboot.lab.network import (
    Network,
    Subnet,
    make_network,
    network_argv,
    why_no_network,
)
from catalyst_pxeboot.lab.paths import (
    PATHS,
    BootPath,
    choose_paths,
    find_paths,
    parse_firmware,
    parse_loaders,
    rotate_paths,
)
from catalyst_pxeboot.lab.plainrom import Disguise, disguised_link, split_frames
from catalyst_pxeboot.lab.qmp import save_screen
from catalyst_pxeboot.lab.report import junit_text, table_lines, write_junit
from catalyst_pxeboot.lab.result import Outcome, PathResult
from catalyst_pxeboot.lab.serve import Request, TreeServer, serve_tree
from catalyst_pxeboot.lab.servers import (
    Site,
    choose_loader,
    http_bytes,
    path_site,
    read_site,
    tftp_bytes,
)
from catalyst_pxeboot.lab.treemenu import TreeMenu, add_arguments, read_menu, view_tree, why_mute
from catalyst_pxeboot.lab.watch import Verdict, watch_machine
from catalyst_pxeboot.model.arch import all_arches
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.model.settings import Server
from catalyst_pxeboot.render.dhcp import render_dhcp
from catalyst_pxeboot.services.children import running
from catalyst_pxeboot.util.errors import CommandError, PublishError, PxebootError
from tests.boot import table as boottable
from tests.support.release_trees import make_manifest

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
    """Write the command line for `client` on the user network, with the tests' paths."""
    return list(
        qemu_argv(
            client.machine,
            user_link(
                Path(tree), client.loader, client.entry, 8123, arguments="", scratch=Path("/run")
            ),
            qemu=Path("/bin/qemu"),
            accel=accel,
            memory_mib=client.memory_mib,
            processors=client.processors,
            flash=flash,
            disk=disk,
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


def test_argv_on_a_stream() -> None:
    """A BIOS client behind the disguise: as on the user network, but for -netdev."""
    words = qemu_argv(BIOS, StreamLink(7), qemu=Path("/bin/qemu"), accel=Accel.TCG)
    assert list(words) == [
        "/bin/qemu",
        *COMMON.split(),
        *["-netdev", "socket,id=net0,fd=7", "-device", "virtio-net-pci,netdev=net0,bootindex=0"],
        *RNG,
    ]


def test_argv_http_boot_on_a_tap() -> None:
    words = qemu_argv(
        UEFI_X64, TapLink("tap0"), qemu=Path("/bin/qemu"), accel=Accel.TCG, flash=FLASH,
        http_boot=True,
    )  # fmt: skip
    assert list(words) == [
        "/bin/qemu",
        *COMMON.split(),
        *PFLASH.split(),
        *["-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n"],
        *["-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"],
        *["-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no"],
        *["-device", "virtio-net-pci,netdev=net0,romfile=,bootindex=0"],
        *RNG,
    ]


def test_argv_secure_firmware() -> None:
    words = qemu_argv(
        UEFI_IA32, TapLink("tap0"), qemu=Path("/bin/qemu"), accel=Accel.TCG, flash=FLASH
    )
    assert list(words) == [
        "/bin/qemu",
        *COMMON.replace("graphics=off", "graphics=off,smm=on").split(),
        *["-global", "driver=cfi.pflash01,property=secure,value=on"],
        *["-global", "ICH9-LPC.disable_s3=1"],
        *PFLASH.split(),
        *["-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no"],
        *["-device", "virtio-net-pci,netdev=net0,romfile=,bootindex=0"],
        *RNG,
    ]


def test_argv_arm64() -> None:
    words = qemu_argv(
        UEFI_ARM64, TapLink("tap0"), qemu=Path("/bin/qemu"), accel=Accel.TCG, flash=FLASH
    )
    assert words[:15] == (
        "/bin/qemu", "-nodefaults", "-no-user-config", "-machine", "virt", "-accel",
        "tcg,thread=multi", "-cpu", "cortex-a57", "-m", "1024", "-smp", "1", "-display", "none",
    )  # fmt: skip
    assert "-vga" not in words


def test_argv_u_boot() -> None:
    words = qemu_argv(
        UBOOT_ARM, TapLink("tap0"), qemu=Path("/bin/qemu"), accel=Accel.TCG, image=Path("/u-boot")
    )
    assert " ".join(words) == (
        "/bin/qemu -nodefaults -no-user-config -machine virt,highmem=off -accel tcg,thread=multi "
        "-cpu cortex-a15 -m 1024 -smp 1 -display none -monitor none -serial stdio -no-reboot "
        "-bios /u-boot -netdev tap,id=net0,ifname=tap0,script=no,downscript=no "
        "-device virtio-net-pci,netdev=net0,romfile=,bootindex=0 -device virtio-rng-pci"
    )


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
    monkeypatch.setattr(services, "find_program", lambda name: None)
    monkeypatch.setattr(machine, "_IPXE_EFI", ())
    bare = replace(UEFI_X64, flash=())
    for find, text in (
        (
            lambda: machine.find_qemu(UEFI_ARM64),
            "qemu-system-aarch64 is missing; install qemu-system-arm and qemu-efi-aarch64 (Debian) "
            "or app-emulation/qemu with QEMU_SOFTMMU_TARGETS=aarch64 and sys-firmware/edk2-bin "
            "(Gentoo)",
        ),
        (
            lambda: machine.find_flash(bare),
            "UEFI firmware for uefi-x64 is missing; install qemu-system-x86 and ovmf (Debian) or "
            "app-emulation/qemu with QEMU_SOFTMMU_TARGETS=x86_64 and sys-firmware/edk2-bin "
            "(Gentoo)",
        ),
        (
            machine.find_ipxe_efi,
            "iPXE for UEFI, ipxe.efi, is missing; install ipxe (Debian) or sys-firmware/ipxe with "
            "USE=uefi64 (Gentoo)",
        ),
        (
            services.find_dnsmasq,
            "dnsmasq is missing; install dnsmasq-base (Debian) or net-dns/dnsmasq (Gentoo)",
        ),
    ):
        with pytest.raises(CommandError) as caught:
            find()
        assert str(caught.value) == text


def test_a_bios_machine_needs_no_flash() -> None:
    assert machine.find_flash(BIOS) is None


@pytest.mark.parametrize(("code", "expected"), [(33, Accel.KVM), (0, Accel.TCG), (134, Accel.TCG)])
def test_kvm_counts_only_when_it_runs_a_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: Accel
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path == "/dev/kvm")
    qemu = _script(tmp_path / "qemu", f"exit {code}")
    kvm_runs.cache_clear()
    assert choose_accel(Accel.AUTO, qemu) is expected
    assert choose_accel(Accel.TCG, qemu) is Accel.TCG
    assert choose_accel(Accel.AUTO, qemu, UEFI_ARM64) is Accel.TCG


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
    monkeypatch.setattr(watch, "_PROMPT", 0.05)
    monkeypatch.setattr(boot, "find_qemu", lambda _machine: tmp_path / "qemu")
    return tmp_path / "tree"


def _script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def judge_boot(
    tree: Path, script: str, timeout: float = 10, log: Path | None = None
) -> boot.BootResult:
    _script(tree.parent / "qemu", script)
    client = Client("a", Loader.PXELINUX, Firmware.BIOS)
    return boot_tree(tree, client, token="reached", timeout=timeout, log=log, accel=Accel.TCG)


def test_boot_passes_on_a_line_that_begins_with_the_token(tree: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    result = judge_boot(tree, r"printf 'Linux\r\n\033[0mreached quiet\r\n'; exec sleep 60", log=log)
    assert (result.passed, result.reason) == (True, "reached quiet")
    assert result.console_tail == ("Linux", "reached quiet")
    assert result.seconds < 5
    assert log.read_bytes() == b"Linux\r\n\033[0mreached quiet\r\n"


def test_boot_kills_the_machine(tree: Path, tmp_path: Path) -> None:
    judge_boot(tree, f"echo $$ > {tmp_path}/pid; echo reached; exec sleep 60")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_boot_kills_the_machine_when_judging_fails(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(line: str, raw: bytes) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch._Console, "_keep", broken)
    with pytest.raises(KeyboardInterrupt):
        judge_boot(tree, f"echo $$ > {tmp_path}/pid; echo reached; exec sleep 60")
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
        (
            "echo 'This did not work: gentoo. The reason is above.'; exec sleep 60",
            "the console shows 'This did not work: gentoo. The reason is above.'",
        ),
    ],
)
def test_boot_fails_at_once(tree: Path, script: str, reason: str) -> None:
    result = judge_boot(tree, script)
    assert (result.passed, result.reason) == (False, reason)
    assert result.seconds < 5


def test_boot_fails_when_time_is_over(tree: Path) -> None:
    result = judge_boot(tree, "echo hello; exec sleep 60", timeout=0.3)
    assert not result.passed
    assert result.reason == "no line of the console matched '^reached' within 0.3 s"
    assert result.console_tail == ("hello",)


def test_boot_refuses_a_file_that_no_server_could_read(tree: Path) -> None:
    (tree / "gentoo.igz").touch(mode=0o600)
    result = judge_boot(tree, "echo reached")
    assert (result.passed, result.reason) == (False, "gentoo.igz is not readable by a server")


def test_boot_sees_a_prompt_that_ends_no_line(tree: Path) -> None:
    result = judge_boot(tree, r"printf 'x\r\ngrub rescue> '; exec sleep 60")
    assert result.reason == "the console shows 'grub rescue>'"
    assert result.seconds < 5


def test_boot_types_at_a_prompt(tree: Path) -> None:
    script = "printf 'any key: 3 '; read a; echo; printf '=> '; read b; echo; echo reached $a$b"
    argv = [str(_script(tree.parent / "qemu", script))]
    typed = ((r"any key", "one\n"), (r"^=> $", "two\n"))
    verdict = watch_machine(argv, until=re.compile("^reached"), timeout=10, typed=typed)
    assert (verdict.passed, verdict.reason) == (True, "reached onetwo")


# --- the table of paths ---------------------------------------------------------------------------

ROW_1 = find_paths(["bios-ipxe"])[0]
ROW_6 = find_paths(["x64-http-ipxe"])[0]
PXELINUX = find_paths(["bios-pxelinux"])[0]
LPXELINUX = find_paths(["bios-lpxelinux"])[0]
PROXY = find_paths(["proxy-bios-pxelinux"])[0]


def test_paths_cover_the_clients() -> None:
    assert [path.number for path in PATHS] == sorted(path.number for path in PATHS)
    assert {path.number for path in PATHS} == set(range(1, 14))
    assert len({path.name for path in PATHS}) == len(PATHS)
    assert {path.machine.name for path in PATHS} == {kind.name for kind in MACHINES}


@pytest.mark.parametrize(
    "path", [path for path in PATHS if path.named_by_dhcp], ids=lambda path: path.name
)
def test_every_path_begins_with_a_loader_that_dhcp_may_name(path: BootPath) -> None:
    for name in path.arches:
        (arch,) = (arch for arch in all_arches() if arch.name == name)
        for client in arch.dhcp:
            names = client.http_loaders if path.http_boot else client.loaders
            if path.boot_file in names:
                break
        else:
            pytest.fail(f"arch.toml, {name}: no client is offered {path.boot_file}")


def test_a_path_says_what_it_is() -> None:
    assert (ROW_1.boot_file, ROW_1.script) == ("undionly.kpxe", "boot.ipxe")
    assert (ROW_1.http_boot, ROW_1.http_prefix, ROW_1.disguised) == (False, False, True)
    assert (ROW_6.http_boot, ROW_6.http_prefix, ROW_6.disguised) == (True, False, False)
    assert (LPXELINUX.script, LPXELINUX.http_prefix) == ("", True)


def test_u_boot_is_told_nothing_by_dhcp() -> None:
    (path,) = find_paths(["arm64-uboot"])
    whole = Site("dhcp-boot=tag:arm64,snponly-arm64.efi\n", Subnet())
    assert choose_loader(whole, path) == whole


def test_find_paths_by_number_and_name() -> None:
    assert [path.name for path in find_paths(["x64-grub", "2"])] == [
        "bios-pxelinux",
        "bios-lpxelinux",
        "x64-grub",
    ]
    with pytest.raises(PxebootError) as caught:
        find_paths(["x64-grubb"])
    assert caught.value.message == "no path of the table is 'x64-grubb' (did you mean 'x64-grub'?)"


def test_choose_paths() -> None:
    def names(arch: str, firmware: str = "", loaders: str = "") -> list[str]:
        chosen = choose_paths(
            PATHS,
            arch=arch,
            firmware=parse_firmware(firmware) if firmware else (),
            loaders=parse_loaders(loaders) if loaders else (),
        )
        return [path.name for path in chosen]

    assert names("amd64", loaders="pxelinux") == [
        "bios-pxelinux", "bios-lpxelinux", "proxy-bios-pxelinux",
    ]  # fmt: skip
    assert names("x86", "uefi") == names("x86", "efi") == ["ia32-grub"]
    assert names("amd64", "uefi-ia32, uefi-x64", "grub") == [
        "x64-grub", "x64-http-grub", "x64-secure-grub", "ia32-grub", "proxy-x64-grub",
    ]  # fmt: skip
    assert names("arm64", "uefi-arm64", "ipxe,uboot") == ["arm64-ipxe"]
    assert names("arm", "uefi-arm") == ["arm-grub"]


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (
            parse_firmware,
            "bios,uefi-x86",
            "--firmware: 'uefi-x86' is none of bios, uefi, efi, uefi-x64, uefi-ia32, uefi-arm64, "
            "uefi-arm (did you mean 'uefi-x64'?); give one or more of them, with commas between",
        ),
        (
            parse_firmware,
            "bios,",
            "--firmware: '' is none of bios, uefi, efi, uefi-x64, uefi-ia32, uefi-arm64, uefi-arm; "
            "give one or more of them, with commas between",
        ),
        (
            parse_loaders,
            "lilo",
            "--loader: 'lilo' is none of ipxe, pxelinux, grub, uboot; give one or more of them, "
            "with commas between",
        ),
    ],
)
def test_words_that_choose_no_path(parse: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(PxebootError) as caught:
        parse(text)
    assert str(caught.value) == message


def test_three_runs_cover_every_path() -> None:
    parts = [rotate_paths(PATHS, run) for run in (3, 4, 5)]
    assert sorted(path.name for part in parts for path in part) == sorted(
        path.name for path in PATHS
    )
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert rotate_paths(PATHS, 0) == parts[0]


# --- the network ----------------------------------------------------------------------------------

NETWORK_LINES = """
-n lab link set lo up
-n lab link add br0 type bridge stp_state 0 forward_delay 0
-n lab address add 192.0.2.1/24 dev br0
-n lab link set br0 up
-n lab tuntap add dev tap0 mode tap
-n lab link set tap0 master br0 up
"""
OTHER_LINES = """
-n lab link add veth0 type veth peer name lan0 netns lab-other
-n lab link set veth0 master br0 up
-n lab-other link set lo up
-n lab-other address add 192.0.2.2/24 dev lan0
-n lab-other link set lan0 up
"""


def test_network_commands() -> None:
    lines = [" ".join(words) for words in network_argv(Network("lab", None, Subnet()))]
    assert lines == NETWORK_LINES.strip().splitlines()
    lines = [" ".join(words) for words in network_argv(Network("lab", "lab-other", Subnet()))]
    assert lines == (NETWORK_LINES + OTHER_LINES.lstrip()).strip().splitlines()


def test_commands_inside_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "find_ip", lambda: Path("/sbin/ip"))
    net = Network("lab", "lab-other", Subnet())
    assert net.inside(["qemu", "-x"]) == ("/sbin/ip", "netns", "exec", "lab", "qemu", "-x")
    assert net.inside(["d"], "lab-other") == ("/sbin/ip", "netns", "exec", "lab-other", "d")


class FakeIp:
    """Stands in for `ip`: keeps the commands and fails where a test says so."""

    def __init__(self, fail: str = "\0") -> None:
        self.lines: list[str] = []
        self._fail = fail

    def __call__(self, argv: list[str | Path], **_: object) -> bytes:
        line = " ".join(map(str, argv[1:]))
        self.lines.append(line)
        if self._fail in line:
            raise CommandError("ip failed")
        return b""


@pytest.mark.parametrize("fail", ["\0", "tuntap", "-other address add", "netns delete"])
def test_namespaces_are_removed_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, fail: str
) -> None:
    fake = FakeIp(fail)
    monkeypatch.setattr(network, "run", fake)
    monkeypatch.setattr(network, "find_program", lambda name: Path("/sbin", name))
    with pytest.raises(CommandError), make_network(Subnet(), other=True):
        raise CommandError("the boot failed")
    added = [line.split()[-1] for line in fake.lines if line.startswith("netns add")]
    deleted = [line.split()[-1] for line in fake.lines if line.startswith("netns delete")]
    assert len(added) == 2
    assert added[1] == f"{added[0]}-other"
    assert deleted == added[::-1]
    assert fake.lines[-2:] == [f"netns delete {name}" for name in deleted]


def test_two_networks_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "run", FakeIp())
    monkeypatch.setattr(network, "find_program", lambda name: Path("/sbin", name))
    with make_network(Subnet(), other=False) as one, make_network(Subnet(), other=False) as two:
        assert one.server != two.server
        assert one.other is None


def test_no_network_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert why_no_network() == "network namespaces need root"


@pytest.mark.skipif(bool(why_no_network()), reason=f"no namespaces: {why_no_network()}")
def test_a_real_network_comes_and_goes() -> None:
    def names() -> bytes:
        return subprocess.run(["ip", "netns"], check=True, capture_output=True).stdout

    with make_network(Subnet(), other=True) as net:
        assert net.server.encode() in names()
        seen = subprocess.run(
            net.inside(["ip", "-brief", "address"]), check=True, capture_output=True, text=True
        ).stdout
        assert re.search(r"^br0 .*192\.0\.2\.1/24", seen, re.MULTILINE)
        assert "tap0" in seen
        os.close(net.open_tap())
        with disguised_link(net.open_tap()) as (link, _disguise):
            assert link.netdev == f"socket,id=net0,fd={link.descriptor}"
    assert net.server.encode() not in names()


# --- the disguise of QEMU's ROM -------------------------------------------------------------------


def udp_frame(port: int, payload: bytes) -> bytes:
    """Write an Ethernet frame with a UDP datagram to `port`."""
    udp = struct.pack("!HHHH", 68, port, 8 + len(payload), 0xABCD) + payload
    ip = struct.pack("!BBHHHBBH8x", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    return bytes(12) + b"\x08\x00" + ip + udp


def dhcp_frame(*options: bytes) -> bytes:
    """Write a DHCP request with `options`, each with its code and length."""
    return udp_frame(67, bytes(236) + b"\x63\x82\x53\x63" + b"".join(options) + b"\xff")


KIND, USER_CLASS, OWN = b"\x35\x01\x01", b"\x4d\x04iPXE", b"\xaf\x03\xb1\x01\x01"
ARCHITECTURE = b"\x5d\x02\x00\x00"


def test_the_disguise_blanks_what_tells_an_ipxe() -> None:
    disguise = Disguise()
    sent = disguise.pass_frame(dhcp_frame(KIND, USER_CLASS, ARCHITECTURE, OWN))
    plain = bytearray(dhcp_frame(KIND, bytes(6), ARCHITECTURE, bytes(5)))
    plain[40:42] = bytes(2)  # no checksum
    assert sent == bytes(plain)
    assert disguise.requests == 1


def test_the_disguise_ends_with_the_first_file() -> None:
    disguise = Disguise()
    for frame in (udp_frame(69, b"\0\1undionly.kpxe\0octet\0"), dhcp_frame(USER_CLASS, OWN)):
        assert disguise.pass_frame(frame) == frame
    assert disguise.requests == 0


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(60),
        udp_frame(68, dhcp_frame(OWN)),
        dhcp_frame(KIND, ARCHITECTURE),
        dhcp_frame(b"\xaf\xff"),  # an option longer than the frame
        udp_frame(67, b"short"),
        bytes(12) + b"\x08\x00" + bytes(9) + b"\x11",
    ],
)
def test_the_disguise_leaves_other_frames(frame: bytes) -> None:
    assert Disguise().pass_frame(frame) == frame


def test_frames_of_a_stream() -> None:
    assert split_frames(b"\0\0\0\2ab\0\0\0\1c\0\0\0\5de") == ([b"ab", b"c"], b"\0\0\0\5de")
    assert split_frames(b"\0\0") == ([], b"\0\0")


# --- the servers ----------------------------------------------------------------------------------

TFTP_LOG = """\
Nov 22 17:00:00 dnsmasq-tftp[77]: TFTP root is {root}
Nov 22 17:00:01 dnsmasq-dhcp[77]: 12 sent size:  1 option: 53 message-type  2
Nov 22 17:00:02 dnsmasq-tftp[77]: error 8 User aborted the transfer received from 192.0.2.7
Nov 22 17:00:02 dnsmasq-tftp[77]: sent {root}/boot/core.efi to 192.0.2.7
Nov 22 17:00:03 dnsmasq-tftp[77]: sent {root}/boot/core.efi to 192.0.2.7
Nov 22 17:00:03 dnsmasq-tftp[77]: file {root}/pxelinux.cfg/C not found for 192.0.2.7
Nov 22 17:00:04 dnsmasq-tftp[77]: sent {root}/my file to 192.0.2.7
dnsmasq-tftp: sent {root}/my file to 192.0.2.7
Nov 22 17:00:05 dnsmasq-tftp[77]: failed sending {root}/boot/big to 192.0.2.7
"""


def test_bytes_from_dnsmasqs_log(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/core.efi").write_bytes(bytes(1000))
    (tmp_path / "boot/big").write_bytes(bytes(9))
    (tmp_path / "my file").write_bytes(bytes(10))
    assert tftp_bytes(TFTP_LOG.format(root=tmp_path), tmp_path) == {
        "boot/core.efi": 1000,
        "pxelinux.cfg/C": 0,
        "my file": 10,  # the line without dnsmasq's time could be a client's text
        "boot/big": 0,
    }


def test_bytes_from_nginxs_log() -> None:
    log = (
        '{"path":"/boot.ipxe","status":200,"bytes":6633}\n'
        '{"path":"/image.squashfs","status":206,"bytes":100}\n'
        '{"path":"/image.squashfs","status":206,"bytes":50}\n'
        '{"path":"/a \\"b\\"","status":404,"bytes":153}\n'
        '{"path":"/half'
    )
    assert http_bytes(log) == {"boot.ipxe": 6633, "image.squashfs": 150, 'a "b"': 0}


def test_dnsmasq_configs() -> None:
    assert services.lab_config(Path("/run/lab/dhcp"), Path("/run/lab/own.conf")) == (
        """\
no-ping
user=root
group=root
# One client that asks and takes nothing holds each of its transfers for half a minute.
tftp-max=8000
log-dhcp
log-facility=/run/lab/dhcp/log
dhcp-leasefile=/run/lab/dhcp/leases
pid-file=
conf-file=/run/lab/own.conf
"""
    )
    assert services.other_config(Subnet()) == (
        """\
port=0
interface=lan0
bind-dynamic
dhcp-range=192.0.2.100,192.0.2.199,255.255.255.0,10m
"""
    )


def site(path: BootPath, server: Server | None = None, *, proxy: bool = False) -> services.Site:
    """Render the configuration of a tree that has every loader, and choose the path's."""
    (arch,) = (arch for arch in all_arches() if arch.name == "amd64")
    files = {"boot.ipxe", *(file for client in arch.dhcp for file in client.loaders)}
    name = "dhcp/dnsmasq-proxy.conf" if proxy else "dhcp/dnsmasq.conf"
    (made,) = (
        made
        for made in render_dhcp(arch, files=files, server=server, templates=None)
        if made.path == name
    )
    return choose_loader(read_site(made.content.decode()), path)


def rules(path: BootPath, *, proxy: bool = False) -> list[str]:
    """Return the lines about loaders that count, of the rendered configuration for `path`."""
    kinds = ("dhcp-boot=", "pxe-service=", "dhcp-option-force=tag:bios")
    lines = site(path, proxy=proxy).config.splitlines()
    return [line for line in lines if line.startswith(kinds) and "x64" not in line]


def test_the_network_takes_the_configurations_addresses() -> None:
    assert site(ROW_1).subnet == Subnet()
    server = Server("10.1.2.1", "255.255.254.0", "10.1.2.2", "10.1.3.8", "eth7", 8080, "a/b", "c")
    read = site(ROW_1, server)
    assert read.subnet == Subnet(
        "10.1.2.1", "10.1.3.9", "255.255.254.0", 23, "10.1.2.2", "10.1.3.8"
    )
    assert (read.url, read.tftp_prefix) == ("http://10.1.2.1:8080/a/b/", "c")
    assert "dhcp-boot=tag:bios,tag:!ipxe,c/undionly.kpxe\n" in read.config
    placed = services._placed(read.config, Path("/run/lab/tftp"))
    changed = set(placed.splitlines()) - set(read.config.splitlines())
    assert changed == {"tftp-root=/run/lab/tftp", "interface=br0"}


def test_a_proxys_network() -> None:
    server = Server("10.1.2.1", interface="eth7", range_first="10.1.2.3", range_last="10.1.2.4")
    assert site(PROXY, server, proxy=True).subnet == Subnet(
        "10.1.2.1", "10.1.2.2", "255.255.255.0", 24, "10.1.2.3", "10.1.2.31"
    )


def test_a_configuration_without_addresses() -> None:
    with pytest.raises(PxebootError) as caught:
        read_site("dhcp-boot=tag:bios,pxelinux.0\n")
    assert caught.value.message == (
        "the tree's DHCP configuration does not say where the tree is, or for which addresses"
    )


def test_a_trees_own_configuration_comes_first(row_tree: Path) -> None:
    config = site(ROW_1, Server("10.1.2.1", range_first="10.1.2.3", range_last="10.1.2.4")).config
    assert path_site(row_tree, ROW_1).subnet == Subnet()
    (row_tree / "dhcp").mkdir()
    (row_tree / "dhcp/dnsmasq.conf").write_text(config)
    assert path_site(row_tree, ROW_1).config == config


def test_the_rendered_configuration_is_used_as_it_is() -> None:
    assert rules(ROW_1) == [
        "dhcp-boot=tag:ipxe,http://192.0.2.1/boot.ipxe",
        "dhcp-boot=tag:bios,tag:!ipxe,undionly.kpxe",
        "dhcp-boot=tag:ia32,tag:!ipxe,snponly-i386.efi",
        "dhcp-boot=tag:ia32-http,tag:!ipxe,http://192.0.2.1/boot/grub/i386-efi/core.efi",
    ]


def test_another_loader_is_switched_on() -> None:
    assert rules(PXELINUX)[1:3] == [
        "dhcp-boot=tag:bios,tag:!ipxe,undionly.kpxe",
        "dhcp-boot=tag:bios,tag:!ipxe,pxelinux.0",
    ]
    assert rules(LPXELINUX)[2:4] == [
        "dhcp-boot=tag:bios,tag:!ipxe,lpxelinux.0",
        "dhcp-option-force=tag:bios,tag:!ipxe,210,http://192.0.2.1/",
    ]


def test_a_proxy_offers_bios_one_loader() -> None:
    lines = [line for line in rules(PROXY, proxy=True) if line.startswith("pxe-service")]
    assert lines == [
        'pxe-service=tag:ipxe,x86PC,"iPXE menu",http://192.0.2.1/boot.ipxe',
        'pxe-service=tag:!ipxe,x86PC,"Network boot",pxelinux.0',
    ]


def test_a_loader_that_dhcp_does_not_name() -> None:
    with pytest.raises(PxebootError) as caught:
        choose_loader(Site("dhcp-boot=tag:bios,pxelinux.0\n", Subnet()), ROW_1)
    assert str(caught.value) == (
        "bios-ipxe: the tree's DHCP configuration does not name undionly.kpxe"
    )


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    program = _script(tmp_path / "ip", "echo 'illegal keyword at line 3' >&2; exit 1")
    argv = [str(program), "netns", "exec", "lab", "/sbin/dnsmasq"]
    with (
        pytest.raises(CommandError) as caught,
        running(
            "dnsmasq", argv, messages=tmp_path / "messages", ready=lambda: False,
            log=tmp_path / "log",
        ),
    ):  # fmt: skip
        pass
    assert str(caught.value) == "dnsmasq did not start: illegal keyword at line 3"


def test_a_server_is_stopped(tmp_path: Path) -> None:
    program = _script(tmp_path / "ip", f"echo $$ > {tmp_path}/pid; exec sleep 60")
    argv = [str(program), "netns", "exec", "lab", "/sbin/dnsmasq"]
    ready = (tmp_path / "pid").exists
    messages = tmp_path / "messages"
    with running("dnsmasq", argv, messages=messages, ready=ready, log=tmp_path / "log"):
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


# --- judging a path -------------------------------------------------------------------------------

REACHED = Verdict(True, 12.34, "reached quiet", ("reached quiet",))
FETCHED = {"http:boot.ipxe": 6633, "http:image.squashfs": 1 << 20, "tftp:undionly.kpxe": 74213}


def test_a_path_passes_by_console_and_servers() -> None:
    assert judge(ROW_1, REACHED, FETCHED) == (Outcome.PASSED, "reached quiet")
    assert judge(ROW_1, REACHED, None) == (Outcome.PASSED, "reached quiet")


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("tftp:undionly.kpxe", "booted by another way: tftp:undionly.kpxe was never fetched"),
        ("http:image.squashfs", "booted by another way: no squashfs was fetched by HTTP"),
    ],
)
def test_a_boot_by_another_way_fails(missing: str, reason: str) -> None:
    assert judge(ROW_1, REACHED, {**FETCHED, missing: 0}) == (Outcome.FAILED, reason)


def test_u_boot_fetches_one_initrd_for_all() -> None:
    (path,) = find_paths(["arm64-uboot"])
    fetched = {"tftp:pxelinux.cfg/default-arm": 100, "tftp:boot/gentoo.initrd": 2000}
    assert judge(path, REACHED, fetched) == (Outcome.PASSED, "reached quiet")
    fetched = {"tftp:pxelinux.cfg/default-arm": 100, "tftp:image.squashfs": 2000}
    assert judge(path, REACHED, fetched) == (
        Outcome.FAILED,
        "booted by another way: no initrd was fetched by TFTP",
    )


def test_a_path_fails_with_the_console() -> None:
    stopped = Verdict(False, 3.0, "the machine stopped", ("x",))
    assert judge(ROW_1, stopped, FETCHED) == (Outcome.FAILED, "the machine stopped")


def test_a_broken_tree_must_complain() -> None:
    complaint = re.compile("^This did not work")
    for verdict, expected in (
        (replace(REACHED, reason="This did not work: gentoo"), Outcome.PASSED),
        (REACHED, Outcome.FAILED),
        (Verdict(False, 3.0, "This did not work", ()), Outcome.FAILED),
    ):
        assert judge_complaint(verdict, complaint)[0] is expected
    assert judge_complaint(REACHED, complaint)[1] == "booted in spite of the fault: reached quiet"


@pytest.fixture
def row_tree(tmp_path: Path) -> Path:
    """A tree that has the files of row 1 and of lpxelinux.0, but no kernel."""
    tree = tmp_path / "tree"
    for path in (ROW_1, LPXELINUX, PXELINUX):
        for step in path.chain:
            (tree / step.file).parent.mkdir(parents=True, exist_ok=True)
            (tree / step.file).touch()
    return tree


def test_a_tree_without_the_loader_is_skipped(tmp_path: Path) -> None:
    result = run_path(tmp_path, ROW_1)
    assert (result.outcome, result.reason) == (
        Outcome.SKIPPED,
        "the tree has no undionly.kpxe and no boot.ipxe",
    )


def test_a_closed_path_is_skipped(row_tree: Path) -> None:
    result = run_path(row_tree, replace(ROW_1, closed="nobody gets through"))
    assert (result.outcome, result.reason) == (Outcome.SKIPPED, "nobody gets through")


def test_a_missing_program_is_skipped(row_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find_program", lambda name: None)
    result = run_path(row_tree, ROW_1)
    assert result.outcome is Outcome.SKIPPED
    assert result.reason.startswith("qemu-system-x86_64 is missing; install qemu-system-x86 ")


def test_without_root_the_user_network_stands_in(
    row_tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    qemu = _script(tmp_path / "qemu", "echo reached quiet; exec sleep 60")
    for module in (boot, boottest):
        monkeypatch.setattr(module, "find_qemu", lambda _machine: qemu)
    monkeypatch.setattr(boot, "choose_accel", lambda *_: Accel.TCG)
    until = re.compile("^reached")
    result = run_path(row_tree, ROW_1, until=until, obstacle="network namespaces need root")
    assert (result.outcome, result.note) == (
        Outcome.PASSED,
        "only by QEMU's user network: network namespaces need root",
    )
    result = run_path(row_tree, LPXELINUX, until=until, obstacle="network namespaces need root")
    assert (result.outcome, result.reason) == (
        Outcome.SKIPPED,
        "network namespaces need root, and QEMU's user network cannot stand in",
    )


def test_boot_test_wants_a_tree(tmp_path: Path) -> None:
    with pytest.raises(PxebootError) as caught:
        boot_test(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/manifest.json: cannot be read: No such file or directory;"
        " give the folder of a netboot tree"
    )


def test_boot_test_runs_what_fits(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(make_manifest()))
    seen: list[str] = []
    results = boot_test(
        tmp_path, loaders=(Loader.PXELINUX,), junit=tmp_path / "junit.xml",
        report=lambda result: seen.append(result.path.name),
    )  # fmt: skip
    assert seen == ["bios-pxelinux", "bios-lpxelinux", "proxy-bios-pxelinux"]
    assert {result.outcome for result in results} == {Outcome.SKIPPED}
    assert (tmp_path / "junit.xml").read_text() == junit_text(results)
    with pytest.raises(PxebootError) as caught:
        boot_test(tmp_path, loaders=(Loader.PXELINUX,), firmware=("uefi",))
    assert str(caught.value) == (
        f"{tmp_path}: no client for amd64 is of this --firmware and --loader; there are "
        "ipxe on bios, pxelinux on bios, grub on bios, ipxe on uefi-x64, grub on uefi-x64, "
        "grub on uefi-x64-secure, grub on uefi-ia32"
    )


def test_the_default_prompt() -> None:
    assert boottest.UNTIL.search("livecd login: ")
    assert boottest.UNTIL.search("livecd login: root (automatic login)")
    assert boottest.UNTIL.search("Welcome to the Gentoo Linux Minimal Installation CD!")
    assert boottest.UNTIL.search("Welcome to the Gentoo Linux LiveCD!")
    assert boottest.UNTIL.search("livecd ~ # ")
    assert boottest.UNTIL.search("root@livecd.gentoo ~ #")


@pytest.mark.parametrize(
    "line",
    [
        "init: login:x",
        "Welcome to Gentoo Linux!",  # systemd, also in an initramfs
        "Welcome to dracut-059 (Initramfs)!",
        "dracut:/# ",
        "rescueshell /newroot # ",
        "Command line: BOOT_IMAGE=x Welcome to the Gentoo Linux LiveCD!",
        "  livecd ~ # ",
        "livecd ~ # ls",
    ],
)
def test_what_is_no_prompt_of_a_live_system(line: str) -> None:
    assert not boottest.UNTIL.search(line)


def test_a_coloured_prompt_ends_the_boot(tree: Path) -> None:
    """As Gentoo's shell draws it, with the window's title before it."""
    script = (
        r"printf '\033]0;root@livecd:~\007\033[?2004h\033[01;31mlivecd\033[01;34m ~ #"
        r"\033[00m '; exec sleep 60"
    )
    argv = [str(_script(tree.parent / "qemu", script))]
    verdict = watch_machine(argv, until=boottest.UNTIL, timeout=10)
    assert (verdict.passed, verdict.reason) == (True, "livecd ~ # ")


# --- a tree without a serial console --------------------------------------------------------------


def mute_manifest() -> str:
    """Return the manifest of a tree whose default entry has no serial console."""
    manifest = make_manifest()
    (entry,) = (entry for entry in manifest["menu"]["entries"] if entry["name"] == "gentoo")
    memory = {"bios": 943718400, "efi": 2140143616}
    entry["limits"] = {"ipxe": {"wire_bytes": 1, "memory_bytes": memory, "warnings": []}}
    entry["arguments"] = "cdroot console=tty0"
    serial = {**entry, "name": "serial", "arguments": "cdroot console=ttyS0,115200"}
    manifest["menu"] = {"default": "gentoo", "timeout": None, "entries": [serial, entry]}
    return json.dumps(manifest)


MUTE = mute_manifest()


def test_a_trees_menu(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(MUTE)
    menu = read_menu(tmp_path)
    assert (menu.has_serial_console, menu.waits) == (False, True)
    assert menu.arguments == "console=tty0 console=ttyS0,115200"
    assert menu.memory_for(Loader.IPXE, Firmware.BIOS, 1024) == 1280
    assert menu.memory_for(Loader.IPXE, Firmware.EFI, 1024) == 2304
    assert menu.memory_for(Loader.GRUB, None, 1024) == 1024
    (tmp_path / "manifest.json").write_text(MUTE.replace("console=tty0", "console=ttyS1"))
    assert read_menu(tmp_path).has_serial_console
    (tmp_path / "manifest.json").write_text(
        MUTE.replace('"amd64"', '"arm64"').replace('"timeout": null', '"timeout": 0')
    )
    menu = read_menu(tmp_path)
    assert menu.arguments == "console=tty0 console=ttyAMA0,115200"
    assert not menu.waits


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        MUTE.replace('"default": "gentoo"', '"default": "other"'),
        MUTE.replace('"limits":', '"limits": [], "x":'),
        MUTE.replace("943718400", '"much"'),
    ],
)
def test_a_manifest_that_says_nothing_of_the_menu(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert read_menu(tmp_path) == TreeMenu()


@pytest.mark.parametrize(
    ("loader", "before", "after"),
    [
        (
            Loader.IPXE,
            "#!ipxe\n# Menu\n",
            "#!ipxe\nset cmdline a=b c ${cmdline}\n#!ipxe\n# Menu\n",
        ),
        (
            Loader.GRUB,
            "# Menu\n",
            'set cmdline="a=b c $cmdline"\nexport cmdline\n# Menu\n',
        ),
        (
            Loader.PXELINUX,
            "LABEL x\n  APPEND cdroot\nLABEL y\n  APPEND -\n  SYSAPPEND 2\n",
            "LABEL x\n  APPEND cdroot a=b c\nLABEL y\n  APPEND a=b c\n  SYSAPPEND 2\n",
        ),
    ],
)
def test_more_arguments_for_every_entry(loader: Loader, before: str, after: str) -> None:
    assert add_arguments(loader, before, "a=b c") == after


@pytest.mark.parametrize("linked", [True, False])
def test_a_view_of_a_tree(tmp_path: Path, linked: bool) -> None:
    tree = tmp_path / "tree"
    (tree / "boot").mkdir(parents=True)
    (tree / "boot/gentoo").write_text("kernel")
    (tree / "boot.ipxe").write_text("old")
    before = os.umask(0o077)
    try:
        view = view_tree(tree, tmp_path / "view", {"boot.ipxe": "new"}, linked=linked)
    finally:
        os.umask(before)
    assert (view / "boot.ipxe").stat().st_mode & 0o777 == 0o644
    assert (view / "boot.ipxe").read_text() == "new"
    assert (view / "boot/gentoo").read_text() == "kernel"
    assert (view / "boot/gentoo").is_symlink() is linked
    assert (tree / "boot.ipxe").read_text() == "old"


def test_a_view_on_another_file_system_is_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/x").write_text("x")
    (tmp_path / "tree/x").chmod(0o644)
    view = view_tree(tmp_path / "tree", tmp_path / "view", {}, linked=False)
    assert (view / "x").read_text() == "x"
    assert (view / "x").stat().st_ino != (tmp_path / "tree/x").stat().st_ino


def test_what_the_user_network_serves(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "boot.ipxe").write_text("#!ipxe\n")
    loader, entry = Loader.IPXE, "boot.ipxe"
    plain = user_link(tree, loader, entry, 8123, arguments="", scratch=tmp_path)
    assert plain == UserLink(tree, "http://10.0.2.2:8123/boot.ipxe")
    link = user_link(tree, loader, entry, 8123, arguments="a=b", scratch=tmp_path)
    assert link == UserLink(tmp_path / "view", "boot.ipxe")
    assert (tmp_path / "view/boot.ipxe").read_text() == (
        "#!ipxe\nset base-url http://10.0.2.2:8123\n#!ipxe\nset cmdline a=b ${cmdline}\n#!ipxe\n"
    )


def test_a_signed_grub_stays_mute(row_tree: Path) -> None:
    assert why_mute(row_tree, Loader.GRUB) == ""
    (row_tree / "boot/grub").mkdir(parents=True)
    (row_tree / "boot/grub/grub.cfg.sig").touch()
    assert why_mute(row_tree, Loader.GRUB) == (
        "GRUB takes only signed configurations, so no console could be added"
    )
    assert why_mute(row_tree, Loader.IPXE) == ""


def test_a_mute_tree_gets_a_console_and_enter(
    row_tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (row_tree / "manifest.json").write_text(MUTE)
    (row_tree / "boot.ipxe").write_text("#!ipxe\n")
    qemu = _script(tmp_path / "qemu", "printf 'Power off'; read a; echo; echo reached; sleep 60")
    for module in (boot, boottest):
        monkeypatch.setattr(module, "find_qemu", lambda _machine: qemu)
    monkeypatch.setattr(boot, "choose_accel", lambda *_: Accel.TCG)
    # The stand-in's shell reads a line, and Enter is a carriage return on a serial line.
    monkeypatch.setattr(boottest, "_ENTER", "\n")
    result = run_path(row_tree, ROW_1, until=re.compile("^reached"), timeout=10, obstacle="no root")
    assert (result.outcome, result.cause, result.note) == (
        Outcome.PASSED,
        "",
        "only by QEMU's user network: no root; console=tty0 console=ttyS0,115200 was added to the "
        "kernel's arguments, so that it be heard",
    )


def test_a_failed_boot_has_a_cause(
    row_tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    qemu = _script(tmp_path / "qemu", "echo 'System is deadlocked on memory'; exit 1")
    for module in (boot, boottest):
        monkeypatch.setattr(module, "find_qemu", lambda _machine: qemu)
    monkeypatch.setattr(boot, "choose_accel", lambda *_: Accel.TCG)
    result = run_path(
        row_tree, ROW_1, timeout=10, memory_mib=300, obstacle="no root",
        screenshot=tmp_path / "shot.png",
    )  # fmt: skip
    assert result.outcome is Outcome.FAILED
    assert result.cause == (
        "the client has too little memory (300 MiB): give more with --memory; "
        "`catalyst-pxeboot inspect` tells what each root needs"
    )
    assert result.note == (
        "only by QEMU's user network: no root; no picture of the screen: the client had stopped"
    )
    assert result.screenshot is None
    assert result.data()["cause"] == result.cause


# --- pictures of the screen -----------------------------------------------------------------------


def test_names_of_pictures() -> None:
    file = Path("out/shot.png")
    assert boottest.picture_name(None, ROW_1, alone=True) is None
    assert boottest.picture_name(file, ROW_1, alone=True) == file
    assert boottest.picture_name(file, ROW_1, alone=False) == Path("out/shot-bios-ipxe.png")


def test_argv_with_a_control_socket() -> None:
    front = Front(display="gtk", serial="vc", control=Path("/run/a,b/control"))
    words = qemu_argv(BIOS, TapLink("t"), qemu=Path("/q"), accel=Accel.TCG, front=front)
    assert " ".join(words[words.index("-display") : words.index("-no-reboot")]) == (
        "-display gtk -vga std -monitor none -serial vc "
        "-qmp unix:/run/a,,b/control,server=on,wait=off"
    )


@contextmanager
def qmp_server(control: Path, *answers: str, writes: bool = True) -> Iterator[list[str]]:
    """Stand in for QEMU's control socket: one answer a command; a picture is "PNG"."""
    seen: list[str] = []

    def serve() -> None:
        link, _ = listener.accept()
        with link, link.makefile("rw") as stream:
            stream.write('{"QMP": {}}\n')
            stream.flush()
            for answer in answers:
                command = json.JSONDecoder().raw_decode(link.recv(4096).decode())[0]
                seen.append(command["execute"])
                if writes and "filename" in command["arguments"]:
                    Path(command["arguments"]["filename"]).write_bytes(b"PNG")
                stream.write(f"{answer}\n")
                stream.flush()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(control))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield seen
        thread.join()


DONE = '{"return": {}}'


def test_a_picture_of_the_screen(tmp_path: Path) -> None:
    file = tmp_path / "shot.png"
    file.write_bytes(b"old")
    answers = (DONE, '{"event": "RESUME"}\n' + DONE)
    with qmp_server(tmp_path / "control", *answers) as seen:
        save_screen(tmp_path / "control", file)
    assert seen == ["qmp_capabilities", "screendump"]
    assert file.read_bytes() == b"PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["control", "shot.png"]


def test_a_picture_that_qemu_refuses(tmp_path: Path) -> None:
    file = tmp_path / "shot.png"
    answer = '{"error": {"desc": "Parameter \'format\' is unexpected"}}'
    with (
        qmp_server(tmp_path / "control", DONE, answer, writes=False),
        pytest.raises(CommandError) as caught,
    ):
        save_screen(tmp_path / "control", file)
    assert str(caught.value) == (
        "QEMU refused screendump: Parameter 'format' is unexpected; "
        "a picture of the screen needs QEMU 7.1 or newer, built with PNG"
    )
    assert not file.exists()


def test_a_picture_without_qemu(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as caught:
        save_screen(tmp_path / "control", tmp_path / "shot.png")
    assert str(caught.value) == (
        "QEMU did not answer on its control socket: [Errno 2] No such file or directory"
    )


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    with (
        qmp_server(tmp_path / "control", DONE, DONE),
        pytest.raises(PublishError) as caught,
    ):
        save_screen(tmp_path / "control", tmp_path / "none/shot.png")
    assert caught.value.message.startswith(f"{tmp_path}/none/shot.png could not be written: No ")


# --- reports --------------------------------------------------------------------------------------

RESULTS = (
    PathResult(ROW_1, Outcome.PASSED, 51.44, "reached quiet", FETCHED, ("reached",), "disguised"),
    PathResult(
        ROW_6, Outcome.FAILED, 3.0, "the console shows '<x>'", {"http:ipxe.efi": 0},
        ("a & b", "bell \x07 end"), cause="no file", screenshot=Path("shot.png"),
    ),
    PathResult(PROXY, Outcome.SKIPPED, 0.0, "dnsmasq is missing", {}, ()),
)  # fmt: skip


def test_table() -> None:
    table = """\
#   path                 client    chain                                        DHCP   result   seconds  fetched
1   bios-ipxe            bios      tftp:undionly.kpxe > http:boot.ipxe          own    passed   51.4     1.1 MiB
6   x64-http-ipxe        uefi-x64  http:ipxe.efi > http:boot.ipxe               own    failed   3.0      0 B
13  proxy-bios-pxelinux  bios      tftp:pxelinux.0 > tftp:pxelinux.cfg/default  proxy  skipped  -        -
x64-http-ipxe failed: the console shows '<x>'
x64-http-ipxe likely cause: no file
proxy-bios-pxelinux skipped: dnsmasq is missing
note: disguised (bios-ipxe)
1 passed, 1 failed, 1 skipped
"""  # noqa: E501 - the table as it is
    assert "".join(f"{line}\n" for line in table_lines(RESULTS)) == table


def test_junit(tmp_path: Path) -> None:
    write_junit(RESULTS, tmp_path / "junit.xml")
    assert (tmp_path / "junit.xml").read_text() == (
        """\
<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
 <testsuite name="catalyst-pxeboot boot-test" tests="3" failures="1" errors="0" skipped="1" time="54.4">
  <testcase classname="01.bios" name="bios-ipxe" time="51.4">
   <system-out>http:boot.ipxe 6633
http:image.squashfs 1048576
tftp:undionly.kpxe 74213
note: disguised</system-out>
  </testcase>
  <testcase classname="06.uefi-x64" name="x64-http-ipxe" time="3.0">
   <failure message="the console shows '&lt;x&gt;'">likely cause: no file
a &amp; b
bell ? end</failure>
   <system-out>http:ipxe.efi 0
[[ATTACHMENT|shot.png]]</system-out>
  </testcase>
  <testcase classname="13.bios" name="proxy-bios-pxelinux" time="0.0">
   <skipped message="dnsmasq is missing" />
  </testcase>
 </testsuite>
</testsuites>
"""  # noqa: E501 - the file as it is
    )


def test_results_for_machines() -> None:
    assert RESULTS[1].data() == {
        "name": "x64-http-ipxe",
        "firmware": "uefi-x64",
        "loader": "ipxe",
        "dhcp": "own",
        "chain": ["http:ipxe.efi", "http:boot.ipxe"],
        "outcome": "failed",
        "seconds": 3.0,
        "reason": "the console shows '<x>'",
        "cause": "no file",
        "note": "",
        "screenshot": "shot.png",
        "fetched": {"http:ipxe.efi": 0},
        "console": ["a & b", "bell \x07 end"],
    }


def test_the_command_for_machines(
    row_tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (row_tree / "manifest.json").write_text(MUTE)
    monkeypatch.setattr(machine, "find_program", lambda name: None)
    argv = ["boot-test", str(row_tree), "--firmware", "bios", "--loader", "ipxe", "--json"]
    assert cli.main(argv) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["command"], told["ok"], told["tree"]) == ("boot-test", False, str(row_tree))
    assert [path["name"] for path in told["paths"]] == ["bios-ipxe", "proxy-bios-ipxe"]
    assert {path["outcome"] for path in told["paths"]} == {"skipped"}
    assert told["problems"] == [
        {
            "message": f"{row_tree}: 0 of 2 paths failed, 0 passed",
            "hint": "the table says what each path lacks",
        }
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "0"], "argument --memory: '0' is not a number above 0"),
        (["--timeout", "nan"], "argument --timeout: 'nan' is not a number above 0"),
        (["--until", "("], "argument --until: '(' is not a regular expression: "),
    ],
)
def test_wrong_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["boot-test", "tree", *words])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--junit", "--screenshot"])
def test_results_without_a_folder(
    row_tree: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["boot-test", str(row_tree), option, f"{row_tree}/none/x"]) == 1
    assert capsys.readouterr().err == (
        f"catalyst-pxeboot: error: {option}: there is no folder {row_tree}/none; "
        "make it, or name another\n"
    )


# --- the table's runner ---------------------------------------------------------------------------


def test_rows_of_a_new_ipxe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert boottable.choose_rows(["1", "6"], None) == find_paths(["1", "6"])
    (tmp_path / "undionly.kpxe").touch()
    monkeypatch.setattr(boottable, "NEW_IPXE", str(tmp_path))
    names = [path.name for path in boottable.choose_rows(["1", "6"], None)]
    assert names == ["bios-ipxe", "x64-http-grub", "x64-http-ipxe", "bios-ipxe-new"]
    assert [path.name for path in boottable.choose_rows(["1", "6"], 4)] == ["x64-http-grub"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_path_has_a_fault(path: BootPath, tmp_path: Path) -> None:
    fault = boottable.fault_of(path)
    good = tmp_path / "good"
    (good / fault.file).parent.mkdir(parents=True)
    (good / fault.file).write_bytes(bytes(200))
    for _ in range(2):
        broken = boottable.break_tree(good, fault, tmp_path / "broken")
    assert (good / fault.file).read_bytes() == bytes(200)
    if fault.removed:
        assert not (broken / fault.file).exists()
    else:
        assert (broken / fault.file).read_bytes() == bytes(100) + b"\xff" + bytes(99)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("bios-ipxe", "This did not work: gentoo. The reason is above."),
        ("bios-pxelinux", "Loading boot/gentoo.igz..Loading boot/gentoo.igz....failed:failed:  No"),
        ("x64-grub", "This did not work; the reason is above. Files are fetched from (tftp,"),
        ("x64-secure-grub", "error: ../../grub-core/kern/efi/sb.c:182:bad shim signature."),
        ("arm64-uboot", "TFTP error: 'file /run/tree/boot/gentoo.initrd not found' (1)"),
    ],
)
def test_complaints(row: str, line: str) -> None:
    (path,) = find_paths([row])
    assert boottable.fault_of(path).complaint.search(line)
