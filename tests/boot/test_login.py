"""Machines that boot are logged in to by ssh, from the server's side, with the user's own key.

The commands run as their user would run them: `build` on an ISO, then `serve --ssh-key`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from catalyst_pxeboot.lab.boot import prepare_flash
from catalyst_pxeboot.lab.machine import (
    BIOS,
    UEFI_X64,
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
from catalyst_pxeboot.services.children import end_process
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import CommandError
from tests.boot.test_serve import LAPTOP, RANGE, other_dhcp
from tests.boot.test_stream import make_stage2, make_tree, pack_iso
from tests.support import init_root, live_image, login_root
from tests.support.paths import CACHE, ROOT
from tests.support.serve_trees import COMMAND, Served, serving

more = pytest.mark.more
SCRIPT = "#!/bin/sh\necho from-the-script $(hostname)\nexit 3\n"
#: The live root's network is up for the root, or comes up by itself.
STREAM, EMBEDDED = "stream", "embedded"
INSTALLED = "the-installed-system-runs"
RECIPE = (ROOT / "doc/unattended.md").read_text().partition("\n## A recipe")[2]


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_iso(tmp_path_factory.mktemp("login"), "dracut-release")


def make_iso(folder: Path, generator: str, *programs: str) -> Path:
    try:
        members = tuple(login_root.login_members(*programs))
    except CommandError as error:
        pytest.skip(str(error))
    stage2 = make_stage2(
        folder, generator, 0, live_image.CLOUD, init=login_root.INIT, members=members
    )
    return pack_iso(stage2, folder)


@pytest.fixture(scope="module")
def tree(iso: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(iso, tmp_path_factory.mktemp("tree"), pxeboot__root=STREAM,
                     pxeboot__base_url=f"http://{LAPTOP.server}")  # fmt: skip


@dataclass
class Login:
    """A machine that is up, and the files of its user."""

    network: Network
    folder: Path
    event: dict[str, Any]

    def run(self, command: str, key: str = "key") -> subprocess.CompletedProcess[str]:
        argv = self.network.inside(
            [
                "ssh", "-F", "none", "-i", self.folder / key, "-o", "IdentitiesOnly=yes",
                "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o",
                f"UserKnownHostsFile={self.folder / 'known_hosts'}",
                f"root@{self.event['ip']}", command,
            ]
        )  # fmt: skip
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def make_keys(folder: Path) -> None:
    for name in ("key", "other"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    (folder / "script").write_text(SCRIPT)


@contextmanager
def machine_up(
    tree: Path,
    machine: Machine,
    folder: Path,
    *options: str | Path,
    memory: int = 512,
    drive: Sequence[str] = (),
) -> Iterator[tuple[Login, Served]]:
    """Serve the tree with `options`, boot a client, and wait until it is up."""
    try:
        qemu = find_qemu(machine)
        find_dnsmasq()
        flash = prepare_flash(machine, folder)
    except CommandError as error:
        pytest.skip(str(error))
    known = folder / "known_hosts"
    verdicts: list[Verdict] = []
    stop = threading.Event()
    with ExitStack() as stack:
        network = stack.enter_context(make_network(LAPTOP, other=False))
        words = map(str, (*RANGE, "--known-hosts", known, *options))
        served = stack.enter_context(
            serving(tree, folder / "serve", "--interface", BRIDGE, *words, inside=network.inside)
        )
        argv = qemu_argv(
            machine, TapLink(TAP), qemu=qemu, accel=choose_accel(Accel.AUTO, qemu, machine),
            memory_mib=memory, flash=flash,
        )  # fmt: skip

        def watch() -> None:
            verdicts.append(
                watch_machine(
                    network.inside((*argv, *drive)),
                    until=re.compile("reboot: Power down"),
                    timeout=500,
                    log=folder / "console",
                    stop=stop,
                )
            )

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            event = served.wait_for(lambda event: event.get("event") == "up", seconds=300)
            login = Login(network, folder, event)
            yield login, served
            login.run("touch /run/stop")
            thread.join(timeout=60)
            assert verdicts and verdicts[0].passed, (folder / "console").read_text()[-2000:]
        except AssertionError as error:
            console = (folder / "console").read_text("utf-8", "replace")[-3000:]
            raise AssertionError(f"{error}\n{console}") from error
        finally:
            stop.set()
            thread.join(timeout=20)


def options(folder: Path) -> Sequence[str | Path]:
    make_keys(folder)
    return ("--ssh-key", folder / "key.pub", "--script", folder / "script", "--hostname", "box7")


def check(login: Login, served: Served) -> None:
    """The key opens the machine, another one does not, and the script's end is known."""
    shown = login.run("hostname; cat /var/log/pxeboot-script.log; stat -c %a /root/.ssh/*")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == "box7\nfrom-the-script box7\n600\n"
    assert login.event["status"] == 3
    assert login.event["seconds"] > 5
    (key,) = login.event["keys"]
    known = (login.folder / "known_hosts").read_text()
    assert known == f"{login.event['ip']} {key['type']} {key['key']}\n"
    refused = login.run("hostname", key="other")
    assert refused.returncode == 255 and "Permission denied" in refused.stderr
    assert len(served.kinds("up")) == 1
    assert served.errors.read_text() == ""


def test_a_key_logs_in_to_a_stock_iso(tree: Path, tmp_path: Path) -> None:
    with machine_up(tree, BIOS, tmp_path, *options(tmp_path)) as (login, served):
        check(login, served)


def read_recipe(fence: str) -> str:
    """Return a block of the recipe, as a reader copies it."""
    found = re.search(rf"^```{fence}\n(.*?)^```$", RECIPE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def make_system(folder: Path, stage2: Path) -> None:
    """Put a system of busybox and its loader where the recipe's script takes it from."""
    root, place = folder / "system", folder / "files/opt/install"
    place.mkdir(parents=True)
    for name in ("bin", "sbin", "boot", "dev", "proc", "sys", "run", "efi", "etc", "usr", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    (root / "bin/sh").symlink_to("busybox")
    init = f"#!/bin/sh\necho {INSTALLED} > /dev/console\nexec busybox poweroff -f\n"
    (root / "sbin/init").write_text(init)
    (root / "sbin/init").chmod(0o755)
    (root / "etc/os-release").write_text("ID=test\n")
    for name in ("gentoo", "gentoo.igz"):
        shutil.copy(stage2 / "boot" / name, root / "boot" / name)
    subprocess.run(["tar", "-C", root, "-czf", place / "root.tar.gz", "."], check=True)
    (folder / "grub.cfg").write_text(read_recipe("cfg"))
    command = re.search(r"^    (grub-mkstandalone .*)$", RECIPE, re.MULTILINE)
    assert command
    subprocess.run(shlex.split(command[1]), cwd=folder, check=True)


@more
def test_the_recipe_installs_a_system_that_boots(tmp_path: Path) -> None:
    """The documentation's own script and commands: install from the network, start from disk."""
    tools = ("sfdisk", "mkfs.vfat", "mkfs.ext4")
    paths = [shutil.which(name, path="/usr/sbin:/sbin") for name in tools]
    if None in paths or shutil.which("grub-mkstandalone") is None:
        pytest.skip("sfdisk, mkfs.vfat or mkfs.ext4 is missing (fdisk, dosfstools, e2fsprogs)")
    iso = make_iso(tmp_path, "dracut-release", *map(str, paths))
    make_system(tmp_path, tmp_path / "stage2")
    make_keys(tmp_path)
    (tmp_path / "script").write_text(read_recipe("sh"))
    disk = tmp_path / "disk"
    with disk.open("wb") as stream:
        stream.truncate(1 << 30)
    drive = (
        "-drive", f"if=none,id=disk,format=raw,file={disk}", "-device", "virtio-blk-pci,drive=disk",
    )  # fmt: skip
    tree = make_tree(iso, tmp_path / "tree", pxeboot__root=EMBEDDED)
    given = ("--ssh-key", tmp_path / "key.pub", "--files", tmp_path / "files", "--script",
             tmp_path / "script")  # fmt: skip
    with machine_up(tree, UEFI_X64, tmp_path, *given, memory=2048, drive=drive) as (login, _served):
        log = login.run("cat /var/log/pxeboot-script.log").stdout
        assert login.event["status"] == 0, log
    qemu = find_qemu(UEFI_X64)
    argv = qemu_argv(
        UEFI_X64, TapLink(TAP), qemu=qemu, accel=choose_accel(Accel.AUTO, qemu, UEFI_X64),
        memory_mib=768, flash=prepare_flash(UEFI_X64, tmp_path),
    )  # fmt: skip
    without_network = [*argv[: argv.index("-netdev")], *drive]
    verdict = watch_machine(
        without_network, until=re.compile(f"^{INSTALLED}"), timeout=240, log=tmp_path / "second"
    )
    assert verdict.passed, "\n".join([verdict.reason, *verdict.console_tail])


@pytest.fixture(scope="module")
def whole_tree(iso: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(iso, tmp_path_factory.mktemp("whole"), pxeboot__root=EMBEDDED)


@more
def test_boot_test_runs_a_script(whole_tree: Path, tmp_path: Path) -> None:
    words = options(tmp_path)
    done = subprocess.run(
        [*COMMAND, "boot-test", "--loader", "ipxe", "--firmware", "bios", "--until",
         "^from-the-script box7", *words, whole_tree],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert verify_tree(whole_tree).faults == ()


@more
@pytest.mark.parametrize("loader", ["ipxe", "grub"])
def test_qemu_is_logged_in_to(loader: str, whole_tree: Path, tmp_path: Path) -> None:
    words = options(tmp_path)
    said = tmp_path / "said"
    with said.open("wb") as output:
        session = subprocess.Popen(
            [*COMMAND, "qemu", "--display", "serial", "--loader", loader, *words, whole_tree],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        shown, until = "", time.monotonic() + 400
        while shown != "box7\n":
            assert time.monotonic() < until and session.poll() is None, said.read_text()[-3000:]
            time.sleep(5)
            port = re.search(r"ssh -p (\d+) root@127\.0\.0\.1", said.read_text("utf-8", "replace"))
            if port:
                shown = subprocess.run(
                    ["ssh", "-F", "none", "-i", tmp_path / "key", "-o", "IdentitiesOnly=yes", "-o",
                     "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
                     "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20", "-p", port[1],
                     "root@127.0.0.1", "hostname && touch /run/stop"],
                    capture_output=True, text=True, timeout=60, check=False,
                ).stdout  # fmt: skip
        assert session.wait(timeout=60) == 0
    finally:
        end_process(session)


#: What to build the tree with, which client boots it, and its memory in MiB.
CASES: dict[str, tuple[dict[str, object], Machine, int]] = {
    "embedded by iPXE": ({"pxeboot__root": EMBEDDED}, BIOS, 1024),
    "streamed by iPXE on UEFI": (
        {"pxeboot__root": STREAM, "pxeboot__loaders": "ipxe"}, UEFI_X64, 768,
    ),
    "streamed by GRUB on UEFI": (
        {"pxeboot__root": STREAM, "pxeboot__loaders": "grub",
         "pxeboot__server": f"{LAPTOP.server}/24"}, UEFI_X64, 768,
    ),
    "embedded by GRUB": ({"pxeboot__root": EMBEDDED, "pxeboot__loaders": "grub"}, BIOS, 1024),
    "embedded by PXELINUX": (
        {"pxeboot__root": EMBEDDED, "pxeboot__loaders": "pxelinux"}, BIOS, 1024,
    ),
    "in memory by iPXE": ({"pxeboot__root": "http", "pxeboot__loaders": "ipxe"}, BIOS, 768),
}  # fmt: skip


@more
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("built", [False, True], ids=["served", "built"])
def test_a_key_logs_in(name: str, built: bool, iso: Path, tmp_path: Path) -> None:
    """The key comes with `serve`, or is in the tree."""
    keys, machine, memory = CASES[name]
    given = options(tmp_path)
    if built:
        keys = {
            **keys, "pxeboot__ssh_keys": str(tmp_path / "key.pub"),
            "pxeboot__script": str(tmp_path / "script"), "pxeboot__hostname": "box7",
        }  # fmt: skip
        given = ()
    tree = make_tree(iso, tmp_path / "tree", **keys)
    with machine_up(tree, machine, tmp_path, *given, memory=memory) as (login, served):
        check(login, served)


@pytest.mark.genkernel
@pytest.mark.parametrize("root", [EMBEDDED, STREAM])
def test_a_key_logs_in_to_genkernels_image(root: str, tmp_path: Path) -> None:
    tree = make_tree(make_iso(tmp_path, "genkernel"), tmp_path, pxeboot__root=root,
                     pxeboot__loaders="ipxe")  # fmt: skip
    with machine_up(tree, BIOS, tmp_path, *options(tmp_path), memory=1024) as (login, served):
        check(login, served)


@more
@pytest.mark.parametrize("init", init_root.PACKAGES)
def test_the_init_system_of_a_live_root_runs_the_script(init: str, tmp_path: Path) -> None:
    """systemd by the unit, OpenRC by local.d; both are Debian's."""
    stage2 = make_stage2(tmp_path, "dracut-release", 0, live_image.CLOUD)
    (modules,) = (CACHE / "kernel/lib/modules").iterdir()
    try:
        init_root.build_init_image(stage2, cache=CACHE, init=init, modules=modules, login=True)
    except CommandError as error:
        pytest.skip(str(error))
    tree = make_tree(pack_iso(stage2, tmp_path), tmp_path, pxeboot__root=STREAM,
                     pxeboot__loaders="ipxe")  # fmt: skip
    with machine_up(tree, BIOS, tmp_path, *options(tmp_path), memory=1024) as (login, served):
        shown = login.run("hostname; cat /var/log/pxeboot-script.log")
        assert shown.stdout == "box7\nfrom-the-script box7\n"
        assert (login.event["status"], len(served.kinds("up"))) == (3, 1)


@more
@pytest.mark.skipif("LIVECD_TOOLS_SRC" not in os.environ, reason="LIVECD_TOOLS_SRC not set")
def test_gentoos_autoconfig_starts_sshd(tmp_path: Path) -> None:
    """The service of Gentoo's live images that reads `dosshd`, run by OpenRC; a checkout has it."""
    stage2 = make_stage2(tmp_path, "dracut-release", 0, live_image.CLOUD)
    (modules,) = (CACHE / "kernel/lib/modules").iterdir()
    try:
        init_root.build_init_image(
            stage2, cache=CACHE, init="openrc", modules=modules, login=True,
            livecd_tools=Path(os.environ["LIVECD_TOOLS_SRC"]),
        )  # fmt: skip
    except CommandError as error:
        pytest.skip(str(error))
    tree = make_tree(pack_iso(stage2, tmp_path), tmp_path, pxeboot__root=STREAM,
                     pxeboot__loaders="ipxe")  # fmt: skip
    with machine_up(tree, BIOS, tmp_path, *options(tmp_path), memory=1024) as (login, served):
        shown = login.run("hostname; rc-status default")
        assert shown.stdout.startswith("box7\n")
        assert re.search(r"autoconfig +\[ +started", shown.stdout), shown.stdout
        assert re.search(r"sshd +\[ +started", login.run("rc-status -a").stdout)
        assert (login.event["status"], len(served.kinds("up"))) == (3, 1)


@more
@pytest.mark.parametrize("proxy", [False, True], ids=["own DHCP", "proxy"])
@pytest.mark.parametrize("listed", [False, True], ids=["another", "listed"])
def test_only_listed_machines_are_answered(
    proxy: bool, listed: bool, tree: Path, tmp_path: Path
) -> None:
    qemu = find_qemu(BIOS)
    mac = "52:54:00:12:34:56" if listed else "52:54:00:00:00:99"
    words = ("--proxy-dhcp",) if proxy else RANGE
    with ExitStack() as stack:
        network = stack.enter_context(make_network(LAPTOP, other=proxy))
        if proxy:
            stack.enter_context(other_dhcp(network, tmp_path / "other"))
        served = stack.enter_context(
            serving(
                tree, tmp_path / "serve", "--interface", BRIDGE, *words, "--only", mac,
                inside=network.inside,
            )
        )  # fmt: skip
        argv = qemu_argv(BIOS, TapLink(TAP), qemu=qemu, accel=choose_accel(Accel.AUTO, qemu, BIOS))
        watch_machine(
            network.inside(argv), until=re.compile("Linux version"), timeout=40,
            log=tmp_path / "console",
        )  # fmt: skip
        assert bool(served.kinds("offer")) == listed
        assert bool(served.kinds("file")) == listed
