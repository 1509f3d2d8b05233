"""The check of the live root: the archive, and its scripts run in a folder of their own."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalyst_pxeboot.formats.cpio import Member, read_members
from catalyst_pxeboot.plan.roots import ROOT_CHECK_BYTES, find_check_obstacle
from catalyst_pxeboot.render.rootcheck import render_root_check
from catalyst_pxeboot.source.image import read_source
from catalyst_pxeboot.util.errors import TemplateError
from tests.support.builders import FILE, Content, dracut_members, genkernel_members, newc
from tests.support.stage2 import write_stage2

ROOT = b"the live root"
DIGEST = hashlib.sha256(ROOT).hexdigest()
SWAPPED = b"The live root"
HOOKS = "usr/lib/dracut/hooks"

CHECK = "root-check/check-live-root"
HOOK = f"{HOOKS}/cmdline/00-root-check.sh"
GENKERNEL = "etc/initrd.splash"

SHELLS = {"dash": ("dash",), "bash": ("bash", "--posix"), "busybox": ("busybox", "ash")}
#: For tests that bend a program: busybox's shell may take its own instead.
WITHOUT_PROGRAMS = pytest.mark.parametrize("shell", ["dash", "bash"], indirect=True)

NOT_THE_ROOT = (
    "root check: the live root is not the one that this netboot tree was made with",
    f"root check: expected sha256 {DIGEST}",
    f"root check: received sha256 {hashlib.sha256(SWAPPED).hexdigest()}",
    "root check: It was changed on the server or on the way here. The live system is not started.",
    "root check: Check the tree on the server: catalyst-pxeboot verify FOLDER",
)


def members(*hooks: str) -> dict[str, Member]:
    data = render_root_check(DIGEST, hooks=hooks or [HOOKS], templates=None)
    return {member.name: member for member in read_members(io.BytesIO(data), where="the check")}


def script(name: str) -> str:
    content = members()[name].content
    assert content is not None
    return content.decode("ascii")


# --- the archive ----------------------------------------------------------------------------------


def test_archive() -> None:
    found = {name: member.mode for name, member in members().items()}
    # Nothing of the initramfs's own folders: over a symbolic link the kernel would make a folder.
    assert found == {
        "root-check": 0o040755,
        CHECK: 0o100755,
        HOOK: 0o100755,
        GENKERNEL: 0o100644,
    }
    assert DIGEST in script(CHECK)
    assert DIGEST in script(GENKERNEL)


def test_archive_for_several_initramfs_images() -> None:
    found = members("var/lib/dracut/hooks", HOOKS, HOOKS)
    hooks = [name for name in found if name.endswith(".sh")]
    assert hooks == [HOOK, "var/lib/dracut/hooks/cmdline/00-root-check.sh"]
    assert found[hooks[0]].content == found[hooks[1]].content


def test_only_the_digest_decides_the_bytes() -> None:
    first = render_root_check(DIGEST, hooks=[HOOKS], templates=None)
    assert len(first) == ROOT_CHECK_BYTES
    assert first == render_root_check(DIGEST, hooks=(HOOKS,), templates=None)
    other = render_root_check("0" * 64, hooks=[HOOKS], templates=None)
    assert other == first.replace(DIGEST.encode(), b"0" * 64) != first


@pytest.mark.parametrize("digest", ["", "0" * 63, "A" * 64, "$(reboot)".ljust(64, "0"), "é" * 64])
def test_what_is_no_digest_is_refused(digest: str) -> None:
    with pytest.raises(TemplateError, match="is not a sha256 digest"):
        render_root_check(digest, hooks=[HOOKS], templates=None)


def test_own_templates(tmp_path: Path) -> None:
    own = tmp_path / "initramfs/root-check-genkernel.sh.j2"
    own.parent.mkdir()
    own.write_text("# {{ digest }}\n")
    data = render_root_check(DIGEST, hooks=[], templates=tmp_path)
    assert f"# {DIGEST}\n".encode() in data
    own.write_text("#" * ROOT_CHECK_BYTES)
    with pytest.raises(TemplateError, match=rf"more than {ROOT_CHECK_BYTES}; shorten") as caught:
        render_root_check(DIGEST, hooks=[], templates=tmp_path)
    assert caught.value.message.startswith("boot/root-check.cpio: its scripts make ")


@pytest.mark.parametrize(
    ("image", "obstacle"),
    [
        (dracut_members(sha256sum=True), None),
        (dracut_members(), "it has no sha256sum"),
        # As release specs have it: one of busybox's programs, seen in busybox itself.
        (dracut_members() | {"usr/bin/busybox": (FILE | 0o755, b"\x7fELF..sha256sum\0")}, None),
        (
            dracut_members() | {"usr/bin/busybox": (FILE | 0o755, b"\x7fELF..md5sum\0")},
            "it has no sha256sum",
        ),
        (
            dracut_members(sha256sum=True, hooks="opt/hooks"),
            "it has no folder of dracut's hooks that is known here",
        ),
        (
            dracut_members(modules=("base", "nfs"), sha256sum=True),
            "it has no dmsquash-live, in whose place the check runs",
        ),
        # genkernel's busybox always has it.
        (genkernel_members(), None),
        (
            genkernel_members() | {"etc/initrd.splash": b""},
            "genkernel 4.3.17 made it with a splash, whose place the check would take, or is older"
            " than 4.1",
        ),
    ],
)
def test_obstacles(tmp_path: Path, image: dict[str, Content], obstacle: str | None) -> None:
    write_stage2(tmp_path / "stage2", initramfs=newc(image))
    found = find_check_obstacle(read_source(tmp_path / "stage2").kernels[0])
    assert (found and found.reason) == obstacle


# --- the scripts ----------------------------------------------------------------------------------


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return the start of a command that runs a script by a shell that an initramfs may have."""
    argv = SHELLS[request.param]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not installed")
    return argv


@pytest.mark.parametrize("name", [CHECK, HOOK, GENKERNEL])
def test_syntax(shell: tuple[str, ...], name: str) -> None:
    done = subprocess.run([*shell, "-n"], input=script(name), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)


@dataclass(frozen=True)
class Machine:
    """A folder that the scripts take for the whole initramfs."""

    top: Path
    shell: tuple[str, ...]

    def rebased(self, text: str) -> str:
        """Turn the script's paths into paths below `top`; its log keeps all its lines."""
        text = text.replace("> /dev/kmsg", f">> {self.top}/kmsg")
        text = text.replace("PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"PATH={self.top}/bin")
        return re.sub(r"(?<![\w}/])/(root-check|sbin|proc|run|mnt)\b", rf"{self.top}/\1", text)

    def run(self, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        file = self.top / "script"
        file.write_text(text)
        return subprocess.run(
            [*self.shell, str(file), *arguments],
            cwd=self.top,
            env={"PATH": f"{self.top}/bin", "hookdir": f"{self.top}/hooks"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def file(self, name: str, content: bytes = ROOT) -> str:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    def plain(self, text: str) -> str:
        """Turn the paths in what was said back."""
        return text.replace(str(self.top), "")

    def text(self, name: str) -> str:
        path = self.top / name
        return path.read_text() if path.exists() else ""


PROGRAMS = ("cp", "mkdir", "dirname", "readlink", "rm", "mv", "sha256sum")


@pytest.fixture
def machine(tmp_path: Path, shell: tuple[str, ...]) -> Machine:
    for folder in ("bin", "proc", "root-check", "run/initramfs", "hooks/emergency"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "hooks/initqueue").mkdir()
    for name in PROGRAMS:
        found = shutil.which(name)
        assert found, name
        (tmp_path / "bin" / name).symlink_to(Path(found).resolve())
    (tmp_path / "bin" / shell[0]).symlink_to(Path(shutil.which(shell[0]) or "").resolve())
    (tmp_path / "proc/mounts").write_text(
        "rootfs / rootfs rw 0 0\n"
        "tmpfs /run tmpfs rw 0 0\n"
        f"192.0.2.1:/export {tmp_path}/server nfs ro 0 0\n"
    )
    return Machine(tmp_path, shell)


# --- dracut: in the place of dmsquash-live-root ---------------------------------------------------


@pytest.fixture
def check(machine: Machine) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what calls the check as livenetroot does; the real program notes its arguments."""
    program(machine.top / "root-check/dmsquash-live-root", f'echo "$@" >> {machine.top}/started\n')
    text = machine.rebased(script(CHECK))
    return lambda *arguments: machine.run(text, *arguments)


Check = Callable[..., subprocess.CompletedProcess[str]]


def assert_stopped(machine: Machine, done: subprocess.CompletedProcess[str], *lines: str) -> None:
    """Assert that the live root was not started, and that all consoles say why."""
    assert done.returncode != 0
    assert machine.text("started") == ""
    said = [line for line in machine.text("kmsg").splitlines() if line.startswith("<26>")]
    assert said == [f"<26>{line}" for line in lines]
    # What dracut's main loop and its emergency shell will run.
    job = machine.run(
        'emergency_shell() { echo "shell: $*"; }\n'
        ". hooks/initqueue/00-root-check.sh\n. hooks/emergency/00-root-check.sh\n"
    )
    assert job.stderr == ""
    assert job.stdout.splitlines() == [f"shell: {lines[0]}", *lines]
    assert (machine.top / "hooks/initqueue/work").exists()
    assert (machine.top / "run/initramfs/.die").exists()


def test_the_right_root_is_started(machine: Machine, check: Check) -> None:
    image = machine.file("tmp/curl_fetch_url0/image.squashfs")
    done = check(image)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.text("started") == f"{image}\n"
    assert machine.text("kmsg") == (
        "<30>root check: comparing the live root with its digest\n"
        "<30>root check: the live root is the one that this netboot tree was made with\n"
    )
    assert not (machine.top / "run/initramfs/.die").exists()
    # It lay in memory already; a second copy would cost as much again.
    assert not (machine.top / "root-check/image.squashfs").exists()


def test_a_flipped_byte_stops(machine: Machine, check: Check) -> None:
    done = check(machine.file("tmp/image.squashfs", SWAPPED))
    assert_stopped(machine, done, *NOT_THE_ROOT)


@pytest.mark.parametrize("content", [b"", ROOT[:-1], ROOT + b"\0"])
def test_another_length_stops(machine: Machine, check: Check, content: bytes) -> None:
    done = check(machine.file("tmp/image.squashfs", content))
    received = f"root check: received sha256 {hashlib.sha256(content).hexdigest()}"
    assert_stopped(machine, done, *NOT_THE_ROOT[:2], received, *NOT_THE_ROOT[3:])


def test_what_lies_on_a_server_is_copied_first(machine: Machine, check: Check) -> None:
    done = check(machine.file("server/image.squashfs"))
    assert done.returncode == 0
    copy = machine.top / "root-check/image.squashfs"
    assert machine.text("started") == f"{copy}\n"
    assert copy.read_bytes() == ROOT
    assert machine.text("kmsg").startswith("<30>root check: copying the live root into memory\n")


def test_a_link_to_a_server_is_copied_first(machine: Machine, check: Check) -> None:
    image = machine.top / "image.squashfs"
    image.symlink_to(machine.file("server/image.squashfs"))
    assert check(str(image)).returncode == 0
    assert machine.text("started") == f"{machine.top}/root-check/image.squashfs\n"


@WITHOUT_PROGRAMS
def test_a_swap_after_the_copy_changes_nothing(machine: Machine, check: Check) -> None:
    """The server swaps the file as soon as it was read once."""
    image = machine.file("server/image.squashfs")
    real = (machine.top / "bin/cp").readlink()
    (machine.top / "bin/cp").unlink()
    program(machine.top / "bin/cp", f'{real} "$@"\nprintf swapped > {image}\n')
    assert check(image).returncode == 0
    assert machine.text("server/image.squashfs") == "swapped"
    started = Path(machine.text("started").strip())
    assert started.read_bytes() == ROOT


def test_a_flipped_byte_on_a_server_stops(machine: Machine, check: Check) -> None:
    done = check(machine.file("server/image.squashfs", SWAPPED))
    assert_stopped(machine, done, *NOT_THE_ROOT)


def test_a_root_that_cannot_be_copied_stops(machine: Machine, check: Check) -> None:
    image = machine.file("server/image.squashfs")
    (machine.top / "root-check/image.squashfs").mkdir()
    (machine.top / "root-check/image.squashfs/image.squashfs").mkdir()
    done = check(image)
    assert_stopped(
        machine,
        done,
        "root check: the live root cannot be copied into memory",
        "root check: The live system is not started. Its root stays on the server and could be"
        " changed",
        "root check: after a check, so it is copied first. Give the machine more memory.",
    )


@WITHOUT_PROGRAMS
def test_without_sha256sum_it_stops(machine: Machine, check: Check) -> None:
    (machine.top / "bin/sha256sum").unlink()
    done = check(machine.file("tmp/image.squashfs"))
    assert_stopped(
        machine,
        done,
        "root check: this initramfs has no sha256sum, so the live root cannot be checked",
        "root check: The live system is not started. Put sha256sum into the initramfs,",
        "root check: or make the netboot tree without the check (pxeboot/verify_root: no).",
    )


@WITHOUT_PROGRAMS
def test_busyboxs_will_do(machine: Machine, check: Check) -> None:
    (machine.top / "bin/sha256sum").unlink()
    program(machine.top / "bin/busybox", f'exec {shutil.which("busybox")} "$@"\n')
    assert check(machine.file("tmp/image.squashfs")).returncode == 0
    assert machine.text("started") == f"{machine.top}/tmp/image.squashfs\n"
    (machine.top / "started").unlink()
    (machine.top / "kmsg").write_text("")
    assert check(machine.file("tmp/image.squashfs", SWAPPED)).returncode == 1
    assert not (machine.top / "started").exists()
    assert NOT_THE_ROOT[0] in machine.text("kmsg")


@WITHOUT_PROGRAMS
def test_a_sha256sum_that_fails_stops(machine: Machine, check: Check) -> None:
    (machine.top / "bin/sha256sum").unlink()
    program(machine.top / "bin/sha256sum", "exit 1\n")
    done = check(machine.file("tmp/image.squashfs"))
    assert_stopped(
        machine, done, *NOT_THE_ROOT[:2], "root check: received sha256 ", *NOT_THE_ROOT[3:]
    )


@pytest.mark.parametrize("arguments", [(), ("",), ("/dev/null",), ("/",)])
def test_what_is_no_file_stops(machine: Machine, check: Check, arguments: tuple[str, ...]) -> None:
    assert_stopped(
        machine,
        check(*arguments),
        "root check: the live root is not a file, so it cannot be checked",
        "root check: The live system is not started.",
    )


# --- dracut: the hook -----------------------------------------------------------------------------

DIE = 'die() { echo "die: $*"; exit 1; }\n'
REAL = "echo the real one\n"


@pytest.fixture
def hook(machine: Machine) -> Callable[[], subprocess.CompletedProcess[str]]:
    """Return what sources the hook as dracut does; /sbin is a link, as on a merged /usr."""
    (machine.top / "usr/sbin").mkdir(parents=True)
    (machine.top / "sbin").symlink_to("usr/sbin")
    program(machine.top / "root-check/check-live-root", "echo the check\n")
    file = machine.top / "00-root-check.sh"
    file.write_text(machine.rebased(script(HOOK)))
    return lambda: machine.run(f"{DIE}. {file}\necho goes on\n")


Hook = Callable[[], subprocess.CompletedProcess[str]]


def test_hook_puts_the_check_in_its_place(machine: Machine, hook: Hook) -> None:
    program(machine.top / "usr/sbin/dmsquash-live-root", REAL)
    for _ in range(2):  # what is sourced twice must not take the check for the real one
        done = hook()
        assert (done.stdout, done.stderr) == ("goes on\n", "")
    for name, says in (("sbin", "the check"), ("root-check", "the real one")):
        path = machine.top / name / "dmsquash-live-root"
        assert path.stat().st_mode & 0o777 == 0o755
        assert says in path.read_text()
    assert (machine.top / "sbin").is_symlink()


def test_hook_stops_where_there_is_nothing_to_replace(machine: Machine, hook: Hook) -> None:
    done = hook()
    assert done.returncode == 1
    said = "die: root check: /sbin/dmsquash-live-root not found\n"
    assert machine.plain(done.stdout) == said


@WITHOUT_PROGRAMS
@pytest.mark.parametrize(
    ("mount", "said"),
    [
        (0, "mount -o bind /root-check/check-live-root /sbin/dmsquash-live-root\ngoes on\n"),
        (1, "die: root check: /sbin/dmsquash-live-root cannot be replaced\n"),
    ],
)
def test_hook_where_usr_is_read_only(machine: Machine, hook: Hook, mount: int, said: str) -> None:
    program(machine.top / "usr/sbin/dmsquash-live-root", REAL)
    real = (machine.top / "bin/cp").readlink()
    (machine.top / "bin/cp").unlink()
    refuses = f'for last; do :; done\n[ "$last" != {machine.top}/sbin/dmsquash-live-root ]'
    program(machine.top / "bin/cp", f'{refuses} && exec {real} "$@"\n')
    told = 'echo "mount $*"; ' if mount == 0 else ""
    program(machine.top / "bin/mount", f"{told}exit {mount}\n")
    done = hook()
    assert (machine.plain(done.stdout), done.returncode) == (said, mount)


# --- genkernel ------------------------------------------------------------------------------------

#: What genkernel's init and initrd.scripts bring along, as far as the check uses it. Mounts are
#: folders: to move one is to rename it. The second time a shell is left, the test is over.
_GENKERNEL = """
CDROOT_PATH=@TOP@/mnt/cdrom LOOP=/image.squashfs LOOPEXT= got_loop_wo_mount=0
GK_EMERGENCY_ACTION=emergency shells=0
cache_cd_contents() { echo "genkernel's own"; }
cdupdate() { echo "genkernel's own"; }
check_loop() { [ -e "${CDROOT_PATH}/${LOOP}" ] || echo 'no loop'; }
good_msg() { echo ">> $1"; }
bad_msg() { echo "!! $1"; }
run() { "$@"; }
run_emergency_shell() {
    echo shell
    shells=$((shells + 1))
    [ "$shells" -lt 2 ] || exit 7
}
is_userinteraction_allowed() { return 0; }
emergency() { echo 'gk.emergency'; exit 8; }
busybox() { "$@"; }
mount() {
    echo "mount $*"
    case $1 in --move) rm -r "$3" && mv "$2" "$3" ;; esac
}
umount() { echo "umount $*"; rm -r "$1" && mkdir "$1"; }
"""


@dataclass(frozen=True)
class Genkernel:
    """genkernel's init at the point where it has the server's folder."""

    machine: Machine

    def boot(self, before: str = "") -> subprocess.CompletedProcess[str]:
        text = _GENKERNEL.replace("@TOP@", str(self.machine.top))
        text += self.machine.rebased(script(GENKERNEL))
        return self.machine.run(f"{text}\n{before}\ncache_cd_contents\ncdupdate\necho started\n")

    def lines(self, done: subprocess.CompletedProcess[str]) -> list[str]:
        assert done.stderr == ""
        return self.machine.plain(done.stdout).splitlines()


@pytest.fixture
def genkernel(machine: Machine) -> Genkernel:
    machine.file("mnt/cdrom/image.squashfs")
    machine.file("mnt/cdrom/livecd", b"")
    machine.file("mnt/cdrom/cdupdate.sh", b"#!/bin/sh\n")
    return Genkernel(machine)


def test_genkernel_starts_the_right_root_from_memory(genkernel: Genkernel) -> None:
    done = genkernel.boot()
    assert genkernel.lines(done) == [
        ">> root check: copying the live root into memory ...",
        "mount -t tmpfs -o mode=0755,size=100% tmpfs /mnt/root-check",
        "umount /mnt/cdrom",
        "mount --move /mnt/root-check /mnt/cdrom",
        ">> root check: comparing the live root with its digest ...",
        ">> root check: the live root is the one that this netboot tree was made with",
        "started",
    ]
    cdrom = genkernel.machine.top / "mnt/cdrom"
    # Nothing else of the server is left that genkernel would run.
    assert [path.name for path in cdrom.iterdir()] == ["image.squashfs"]
    assert (cdrom / "image.squashfs").read_bytes() == ROOT


def test_genkernel_stops_at_a_flipped_byte(genkernel: Genkernel) -> None:
    genkernel.machine.file("mnt/cdrom/image.squashfs", SWAPPED)
    done = genkernel.boot()
    said = [f"!! {line}" for line in NOT_THE_ROOT]
    # Who leaves the shell gets it again.
    assert genkernel.lines(done)[-12:] == [*said, "shell", *said, "shell"]
    assert done.returncode == 7


def test_genkernel_unattended(genkernel: Genkernel) -> None:
    genkernel.machine.file("mnt/cdrom/image.squashfs", SWAPPED)
    done = genkernel.boot("is_userinteraction_allowed() { return 1; }")
    assert genkernel.lines(done)[-2:] == ["shell", "gk.emergency"]
    assert done.returncode == 8


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("mount() { return 1; }", "the live root cannot be copied into memory"),
        ("cp() { return 1; }", "the live root cannot be copied into memory"),
        ("umount() { return 1; }", "/mnt/cdrom cannot be let go, so its content is not safe"),
        (
            'mount() { [ "$1" != --move ]; }',
            "/mnt/cdrom cannot be let go, so its content is not safe",
        ),
        ("sha256sum() { return 1; }", NOT_THE_ROOT[0].removeprefix("root check: ")),
        (
            "cache_cd_contents() { :; }",
            "the root that was found is not the live root, so it is not checked",
        ),
    ],
)
def test_genkernel_stops_at_any_fault(genkernel: Genkernel, fault: str, reason: str) -> None:
    done = genkernel.boot(fault)
    lines = genkernel.lines(done)
    assert f"!! root check: {reason}" in lines
    assert "started" not in lines
    assert done.returncode == 7


def test_genkernel_leaves_a_root_within_the_initramfs_where_it_is(genkernel: Genkernel) -> None:
    done = genkernel.boot("got_loop_wo_mount=1")
    assert genkernel.lines(done) == [
        ">> root check: comparing the live root with its digest ...",
        ">> root check: the live root is the one that this netboot tree was made with",
        "started",
    ]
    genkernel.machine.file("mnt/cdrom/image.squashfs", SWAPPED)
    assert genkernel.boot("got_loop_wo_mount=1").returncode == 7


def test_genkernel_loses_no_other_function() -> None:
    defined = re.findall(r"^(\w+)\(\) \{$", script(GENKERNEL), re.MULTILINE)
    assert sorted(defined) == ["cache_cd_contents", "cdupdate", "root_check_stop"]
