"""kexec.sh: what it asks of kexec, what it refuses, and once a real kexec in QEMU.

The script runs in dash and in busybox's shell with a kexec that only notes its arguments; /proc
and /sys are folders of the test's own.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.lab.serve import WebServer, serve_tree
from catalyst_pxeboot.render.kexec import quote_shell
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.util.errors import TemplateError
from tests.conftest import hide_loaders
from tests.golden.test_golden import CASES, NETWORK
from tests.support import builders
from tests.support.paths import GOLDEN
from tests.support.stage2 import INITRAMFS, STAMP, release_settings, storedir_stage2, write_stage2

SHELLS = ("dash", "busybox sh")
MAC = "52:54:00:12:34:56"
ARGUMENTS = "root=live:/image.squashfs.img rd.live.overlay.overlayfs=1 cdroot dokeymap nodhcp"
BOOTIF = "BOOTIF=01-52-54-00-12-34-56"
SHA256SUM = "sha256sum"

#: What the script needs besides kexec; nothing else of the machine is on its PATH.
PROGRAMS = (
    "cat", "chmod", "curl", "df", "gzip", "mktemp", "mv", "rm", "sleep", "sync", "tee", "tr", "wc",
    SHA256SUM,
)  # fmt: skip

KEXEC = """\
#!/bin/sh
# Notes its arguments, and keeps what it is to load.
printf '%s\\n' "kexec $*" >> "$NOTES/calls"
case "$*" in
-s\\ -l*)
    [ ! -e "$NOTES/no-file-load" ] || {
        echo "syscall kexec_file_load not available."
        exit 1
    }
    ;;
-e | -u) exit 0 ;;
esac
[ ! -e "$NOTES/no-load" ] || { echo "kexec_load failed: Invalid argument" >&2; exit 255; }
for word; do
    case $word in
    --initrd=*) cat "${word#*=}" > "$NOTES/initrd" ;;
    --command-line=*) printf '%s' "${word#*=}" > "$NOTES/command-line" ;;
    /*) cat "$word" > "$NOTES/kernel" ;;
    esac
done
"""


@dataclass(frozen=True)
class Machine:
    """A running Linux as the script sees it."""

    top: Path
    shell: str

    @property
    def notes(self) -> Path:
        return self.top / "notes"

    @property
    def calls(self) -> list[str]:
        file = self.notes / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def kept(self, name: str) -> bytes:
        return (self.notes / name).read_bytes()

    def write(self, name: str, text: str) -> None:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def without(self, program: str) -> None:
        (self.top / "bin" / program).unlink()

    def script(self, text: str) -> str:
        """Return the tree's script with this machine's /proc and /sys."""
        places = "/(?:proc|sys)/|/(?:dev/shm|run|tmp|var/tmp)(?![\\w-])"
        text = re.sub(rf"(?<![\w./])({places})", rf"{self.top}\1", text)
        # busybox's shell has many of these inside and does not look for them on the PATH.
        called = r"(?<=\$\()(?:id|uname)\b|(?<=\bhas )\w+|(?<=\| )sha256sum(?=\))|(?<=  )wget\b"
        return re.sub(called, lambda found: f"{self.top}/bin/{found[0]}", text)

    def run(self, tree: Path, *words: str, piped: bool = False) -> subprocess.CompletedProcess[str]:
        """Run the tree's script, from the tree or by a pipe."""
        original = (tree / "kexec.sh").read_text()
        script = self.script(original)
        shell = [shutil.which(word) or word for word in self.shell.split()[:1]]
        shell += self.shell.split()[1:]
        if not piped:
            (tree / "kexec.sh").write_text(script)
        done = subprocess.run(
            [*shell, *(["-s", "--"] if piped else [str(tree / "kexec.sh")]), *words],
            input=script if piped else "",
            env={"PATH": str(self.top / "bin"), "NOTES": str(self.notes)},
            capture_output=True, text=True, check=False, timeout=30, cwd=self.top,
        )  # fmt: skip
        (tree / "kexec.sh").write_text(original)
        return done

    def left(self) -> list[str]:
        """Return what is left in the folders that the script works in."""
        return sorted(
            str(path.relative_to(self.top))
            for name in ("dev/shm", "run", "tmp", "var/tmp")
            for path in (self.top / name).iterdir()
        )


@pytest.fixture(params=SHELLS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    made = Machine(tmp_path / "machine", request.param)
    if shutil.which(made.shell.split()[0]) is None:
        pytest.skip(f"{made.shell} is missing")
    for name in ("bin", "dev/shm", "run", "tmp", "var/tmp", "notes"):
        (made.top / name).mkdir(parents=True)
    for program in PROGRAMS:
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"{program} is missing")
        (made.top / "bin" / program).symlink_to(found)
    for name, text in (
        ("uname", "#!/bin/sh\necho x86_64\n"),
        ("id", "#!/bin/sh\necho 0\n"),
        ("kexec", KEXEC),
    ):
        made.write(f"bin/{name}", text)
        (made.top / "bin" / name).chmod(0o755)
    made.write("proc/meminfo", "MemTotal: 1000000 kB\nMemFree: 1 kB\nMemAvailable: 900000 kB\n")
    made.write(
        "proc/iomem",
        "00001000-0009fbff : System RAM\n000a0000-000fffff : Reserved\n"
        "00100000-3fffffff : System RAM\n  01000000-01ffffff : Kernel code\n",
    )
    made.write("proc/cmdline", "root=/dev/sda1 console=tty0 console=ttyS1,9600 quiet\n")
    made.write(
        "proc/net/route",
        "Iface\tDestination\tGateway\neth1\t0000000A\t0\neth0\t00000000\t0100000A\n",
    )
    made.write("sys/class/net/eth0/address", MAC + "\n")
    made.write("sys/class/net/eth0/device/vendor", "")
    made.write("sys/kernel/kexec_loaded", "0\n")
    made.write("sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
    return made


def make(folder: Path, stage2: dict[str, object] | None = None, **settings: object) -> Path:
    write_stage2(storedir_stage2(folder), **(stage2 or {}))  # type: ignore[arg-type]
    spec = parse_settings(release_settings(folder, **settings))
    return build(spec, report=lambda _line: None).output


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        hide_loaders(patch)
        return make(tmp_path_factory.mktemp("built"))


@pytest.fixture
def tree(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "copy")


@pytest.fixture(scope="module")
def all_roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        hide_loaders(patch)
        return make(
            tmp_path_factory.mktemp("all-roots"),
            {"initramfs": builders.initramfs(NETWORK)},
            pxeboot__nfs_root=":/srv/gentoo,vers=3",
        )


@dataclass(frozen=True)
class Site:
    """A web server for trees, each in a folder of its own."""

    folder: Path
    server: WebServer

    def share(self, tree: Path) -> str:
        """Serve a tree, and return its URL."""
        link = self.folder / tree.parent.name
        if not link.is_symlink():
            link.symlink_to(tree)
        return f"http://127.0.0.1:{self.server.port}/{link.name}"

    def fetched(self, url: str) -> dict[str, int]:
        """Return the bytes of each file of a tree that was fetched."""
        start = url.removeprefix(f"http://127.0.0.1:{self.server.port}") + "/"
        found = self.server.fetched.items()
        return {path.removeprefix(start): count for path, count in found if path.startswith(start)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with serve_tree(folder, follow=True) as server:
        yield Site(folder, server)


def joined(tree: Path, *names: str) -> bytes:
    return b"".join((tree / name).read_bytes() for name in names)


EMBEDDED = ("boot/gentoo.igz", "boot/root.cpio-header", "image.squashfs")


def test_from_a_copy_of_the_tree(machine: Machine, tree: Path) -> None:
    done = machine.run(tree)
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.kept("kernel") == (tree / "boot/gentoo").read_bytes()
    assert machine.kept("initrd") == joined(tree, *EMBEDDED)
    # The running system's consoles go on, as the tree names none.
    arguments = f"{ARGUMENTS} {BOOTIF} console=tty0 console=ttyS1,9600"
    assert machine.kept("command-line").decode() == arguments
    work = machine.calls[0].split()[-1].removesuffix("/kernel")
    assert re.fullmatch(re.escape(f"{machine.top}/dev/shm/kexec.") + r"\w{6}", work)
    assert machine.calls == [
        f"kexec -s -l --initrd={work}/initrd --command-line={arguments} {work}/kernel",
        "kexec -e",
    ]
    assert done.stdout.splitlines() == [
        "Entry      gentoo: Boot LiveCD (kernel: gentoo)",
        f"Tree       {tree}",
        f"Arguments  {arguments}",
        *(f"Fetching {name}" for name in ("boot/gentoo", *EMBEDDED)),
    ]
    assert machine.left() == []


@pytest.mark.parametrize("slash", ["", "/"])
def test_from_a_web_server(machine: Machine, tree: Path, site: Site, slash: str) -> None:
    url = site.share(tree)
    done = machine.run(tree, f"{url}{slash}", "quiet", "console=ttyS0", piped=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.kept("initrd") == joined(tree, *EMBEDDED)
    assert machine.kept("command-line").decode() == f"{ARGUMENTS} {BOOTIF} quiet console=ttyS0"
    assert f"Tree       {url}\n" in done.stdout
    # Each once.
    assert site.fetched(url) == {
        name: (tree / name).stat().st_size for name in ("boot/gentoo", *EMBEDDED)
    }


def test_wget_where_there_is_no_curl(machine: Machine, tree: Path, site: Site) -> None:
    machine.without("curl")
    machine.write("bin/wget", f'#!/bin/sh\nexec {shutil.which("curl")} -fsS "$4"\n')
    (machine.top / "bin/wget").chmod(0o755)
    done = machine.run(tree, site.share(tree), piped=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.kept("initrd") == joined(tree, *EMBEDDED)


def test_the_trees_own_address_where_none_is_given(
    machine: Machine, tmp_path: Path, site: Site, no_loaders: None
) -> None:
    copy = tmp_path / tmp_path.name / "tree"
    url = site.share(copy)  # which will be there
    tree = make(tmp_path / "store", pxeboot__base_url=url)
    shutil.copytree(tree, copy)
    done = machine.run(tree, piped=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Tree       {url}\n" in done.stdout


@pytest.mark.parametrize(
    ("entry", "where"),
    [
        ("gentoo-http", "root=live:{url}/image.squashfs ip=dhcp"),
        ("gentoo-nfs", "root=live:nfs:vers=3:127.0.0.1:/srv/gentoo/image.squashfs ip=dhcp"),
    ],
)
def test_a_root_over_the_network(
    machine: Machine, all_roots: Path, site: Site, entry: str, where: str
) -> None:
    url = site.share(all_roots)
    done = machine.run(all_roots, "--entry", entry, url, piped=True)
    assert (done.returncode, done.stderr) == (0, "")
    parts = ("boot/gentoo.igz", "boot/root-check.cpio") if "http" in entry else EMBEDDED[:1]
    assert machine.kept("initrd") == joined(all_roots, *parts)
    line = machine.kept("command-line").decode()
    assert f"cdroot rd.neednet=1 dokeymap nodhcp {where.format(url=url)} BOOTIF" in line
    assert "image.squashfs" not in site.fetched(url)
    # An address that the caller gives takes the place of DHCP.
    static = "ip=192.0.2.5::192.0.2.1:255.255.255.0:::none"
    done = machine.run(all_roots, f"--entry={entry}", "--dry-run", url, static, piped=True)
    assert "ip=dhcp" not in done.stdout
    assert f" {static}\n" in done.stdout


def test_genkernels_words_for_nfs(machine: Machine, tmp_path: Path, no_loaders: None) -> None:
    initramfs = builders.initramfs(builders.genkernel_members(drivers=("nfsv3",)))
    tree = make(
        tmp_path / "store",
        {"grub_cfg": "ppc-genkernel.cfg", "initramfs": initramfs},
        pxeboot__root="nfs",
        pxeboot__nfs_root="192.168.7.2:/srv/gentoo,vers=3",
    )
    done = machine.run(tree, "--dry-run")
    assert done.returncode == 0, done.stderr
    where = "loop=/image.squashfs nfsroot=192.168.7.2:/srv/gentoo,vers=3 ip=dhcp"
    assert f" {where} {BOOTIF} gk.net.iface={MAC} console=" in done.stdout


def test_what_needs_a_server_is_not_had_from_a_folder(machine: Machine, all_roots: Path) -> None:
    done = machine.run(all_roots, "--entry", "gentoo-http", ".", "quiet")
    assert done.returncode == 1
    assert done.stderr.startswith("kexec.sh: .: no netboot tree (boot/gentoo is not there)\n")
    done = machine.run(all_roots, "--entry", "gentoo-http")
    assert (done.returncode, done.stderr) == (
        1,
        "kexec.sh: gentoo-http needs a server, and the tree is a folder here\n"
        "  name its address: sh kexec.sh http://SERVER/FOLDER\n",
    )
    assert machine.calls == []


def test_padding_stands_where_the_embedded_root_needs_it(
    machine: Machine, tmp_path: Path, no_loaders: None
) -> None:
    tree = make(
        tmp_path / "store",
        {
            "grub_cfg": "ppc-genkernel.cfg",
            "initramfs": (INITRAMFS / "genkernel-4.3.17.gz").read_bytes(),
        },
    )
    done = machine.run(tree)
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.kept("initrd") == joined(
        tree, "boot/gentoo.igz", "boot/gentoo.igz.pad", *EMBEDDED[1:]
    )


@pytest.mark.parametrize("loaders", [["grub"], ["ipxe", "grub"]])
def test_a_packed_arm64_kernel(
    machine: Machine, tmp_path: Path, no_loaders: None, loaders: list[str]
) -> None:
    """kexec takes the plain Image: the tree's own one, or unpacked on the way."""
    image = builders.arm64_image()
    subarch = tmp_path / "store"
    write_stage2(
        storedir_stage2(subarch, subarch="arm64"),
        kernel=builders.compress(image, "gzip"),
        grub_cfg="arm64-dracut.cfg",
    )
    settings = release_settings(
        subarch,
        subarch="arm64",
        source_subpath=f"23.0-default/livecd-stage2-arm64-{STAMP}",
        pxeboot__loaders=loaders,
    )
    tree = build(parse_settings(settings), report=lambda _line: None).output
    assert (tree / "boot/gentoo.Image").exists() == ("ipxe" in loaders)
    machine.write("bin/uname", "#!/bin/sh\necho aarch64\n")
    done = machine.run(tree)
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.kept("kernel") == image


# --- what it checks -------------------------------------------------------------------------------


def refused(done: subprocess.CompletedProcess[str], machine: Machine) -> str:
    """Return the complaint of a run that ended before kexec was asked for anything."""
    assert done.returncode == 1
    assert machine.calls == []
    assert machine.left() == []
    return done.stderr


def test_another_processor(machine: Machine, tree: Path) -> None:
    machine.write("bin/uname", "#!/bin/sh\necho ppc64le\n")
    assert refused(machine.run(tree), machine) == (
        "kexec.sh: this tree is for another processor than this machine's, ppc64le\n"
    )


def test_only_root(machine: Machine, tree: Path) -> None:
    machine.write("bin/id", "#!/bin/sh\necho 1000\n")
    assert refused(machine.run(tree), machine) == (
        "kexec.sh: only root can start another kernel\n  run it by sudo or su\n"
    )


def test_no_kexec(machine: Machine, tree: Path) -> None:
    machine.without("kexec")
    assert refused(machine.run(tree), machine) == (
        "kexec.sh: the program kexec is missing\n"
        "  install kexec-tools (Gentoo: sys-apps/kexec-tools)\n"
    )


def test_a_kernel_without_kexec(machine: Machine, tree: Path) -> None:
    (machine.top / "sys/kernel/kexec_loaded").unlink()
    assert refused(machine.run(tree), machine) == (
        "kexec.sh: the running kernel knows no kexec (CONFIG_KEXEC)\n"
        "  boot this tree from the network instead\n"
    )


def test_kexec_switched_off(machine: Machine, tree: Path) -> None:
    machine.write("proc/sys/kernel/kexec_load_disabled", "1\n")
    assert refused(machine.run(tree), machine).startswith(
        "kexec.sh: kexec is switched off until this machine starts again\n"
    )


def test_too_little_memory(machine: Machine, tree: Path) -> None:
    """The firmware's figure counts where root sees it, the kernel's otherwise."""
    machine.write("proc/iomem", "00000000-00000000 : System RAM\n")
    machine.write("proc/meminfo", "MemTotal: 65536 kB\nMemAvailable: 60000 kB\n")
    assert refused(machine.run(tree), machine) == (
        "kexec.sh: this machine has 64 MiB of memory, and gentoo needs 82 MiB\n"
        "  take another entry (--list), or try all the same (--force)\n"
    )
    machine.write("proc/iomem", "00000000-051fffff : System RAM\n")
    assert machine.run(tree, "--load-only").returncode == 0


def test_force(machine: Machine, tree: Path) -> None:
    machine.write("proc/iomem", "")
    machine.write("proc/meminfo", "MemTotal: 65536 kB\nMemAvailable: 10 kB\n")
    assert machine.run(tree, "--force").returncode == 0
    assert machine.calls[-1] == "kexec -e"


def test_too_little_free_memory(machine: Machine, tree: Path) -> None:
    machine.write("proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 100 kB\n")
    complaint = refused(machine.run(tree), machine)
    assert re.fullmatch(
        r"kexec\.sh: [12] MiB of free memory are needed to load it, and 0 MiB are free\n"
        r"  end some programs, or try all the same \(--force\)\n",
        complaint,
    )


@pytest.mark.parametrize("name", ["boot/gentoo", "boot/gentoo.igz", "image.squashfs"])
def test_a_changed_file(machine: Machine, tree: Path, name: str) -> None:
    content = bytearray((tree / name).read_bytes())
    content[-1] ^= 1
    (tree / name).unlink()
    (tree / name).write_bytes(content)
    assert refused(machine.run(tree), machine) == (
        f"kexec.sh: {name} is not the file that this script was made with\n"
        "  fetch this script again from the same tree, or look for what changes the file on its"
        " way\n"
    )


def test_a_file_cut_short_where_there_is_no_sha256sum(machine: Machine, tree: Path) -> None:
    machine.without(SHA256SUM)
    done = machine.run(tree, "--load-only")
    assert done.returncode == 0
    assert "sha256sum not found: only sizes are compared.\n" in done.stdout
    (machine.notes / "calls").unlink()
    squashfs = tree / "image.squashfs"
    content = squashfs.read_bytes()
    squashfs.unlink()
    squashfs.write_bytes(content[:-1])
    assert refused(machine.run(tree), machine).startswith(
        "kexec.sh: image.squashfs is not the file that this script was made with\n"
    )


def test_a_file_that_the_server_lacks(machine: Machine, tree: Path, site: Site) -> None:
    (tree / "image.squashfs").unlink()
    url = site.share(tree)
    complaint = refused(machine.run(tree, url, piped=True), machine)
    assert complaint == (
        "curl: (22) The requested URL returned error: 404\n"
        f"kexec.sh: image.squashfs could not be fetched from {url}\n"
        "  the reason is above; is the address right, and the tree whole?\n"
    )


def test_the_older_system_call(machine: Machine, tree: Path) -> None:
    machine.write("notes/no-file-load", "")
    done = machine.run(tree, "--load-only")
    assert (done.returncode, done.stderr) == (0, "")
    assert [call.split()[1:3] for call in machine.calls] == [
        ["-s", "-l"],
        ["-l", machine.calls[1].split()[2]],
    ]
    assert machine.kept("initrd") == joined(tree, *EMBEDDED)


def test_a_locked_kernel(machine: Machine, tree: Path) -> None:
    """Under lockdown only the call that checks signatures is allowed."""
    machine.write("notes/no-file-load", "")
    machine.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    done = machine.run(tree)
    assert (done.returncode, done.stderr) == (
        1,
        "syscall kexec_file_load not available.\n"
        "kexec.sh: the running kernel is locked down, as under Secure Boot, and refuses this"
        " kernel\n"
        "  it takes one that is signed by a key it trusts; or turn Secure Boot off\n",
    )
    assert len(machine.calls) == 1
    assert machine.left() == []


def test_kexec_that_fails(machine: Machine, tree: Path) -> None:
    machine.write("notes/no-load", "")
    done = machine.run(tree)
    assert done.returncode == 1
    assert done.stderr.endswith("kexec.sh: kexec could not load it; its reason is above\n")
    assert "kexec_load failed: Invalid argument\n" in done.stderr
    assert "kexec -e" not in machine.calls
    assert machine.left() == []


# --- its options ----------------------------------------------------------------------------------


def test_a_dry_run_loads_nothing_and_tells_what_would_stop_it(machine: Machine, tree: Path) -> None:
    machine.write("bin/id", "#!/bin/sh\necho 1000\n")
    done = machine.run(tree, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Would end here: only root can start another kernel",
        "Entry      gentoo: Boot LiveCD (kernel: gentoo)",
        f"Tree       {tree}",
        f"Arguments  {ARGUMENTS} {BOOTIF} console=tty0 console=ttyS1,9600",
        "Kernel     boot/gentoo",
        "Initrd     64 KiB: boot/gentoo.igz boot/root.cpio-header image.squashfs",
        "Memory     needs 82 MiB, this machine has 1023 MiB",
    ]
    assert (machine.calls, machine.left()) == ([], [])


def test_load_only(machine: Machine, tree: Path) -> None:
    done = machine.run(tree, "--load-only")
    assert done.stdout.endswith(
        'Loaded. "kexec -e" starts it at once, "systemctl kexec" ends all programs before;'
        ' "kexec -u" forgets it.\n'
    )
    assert len(machine.calls) == 1


def test_systemd_ends_its_programs_first(machine: Machine, tree: Path) -> None:
    (machine.top / "run/systemd/system").mkdir(parents=True)
    machine.write("bin/systemctl", '#!/bin/sh\necho "systemctl $*" >> "$NOTES/calls"\n')
    (machine.top / "bin/systemctl").chmod(0o755)
    assert machine.run(tree).returncode == 0
    assert machine.calls[1:] == ["systemctl kexec"]


def test_the_list(machine: Machine, tree: Path) -> None:
    done = machine.run(tree, "--list")
    assert (done.returncode, done.stdout) == (
        0,
        "gentoo: Boot LiveCD (kernel: gentoo) (root: embedded, at least 82 MiB of memory)\n"
        "gentoo-accessibility: Boot LiveCD (kernel: gentoo) (accessibility)"
        " (root: embedded, at least 82 MiB of memory)\n",
    )


def test_help(machine: Machine, tree: Path) -> None:
    done = machine.run(tree, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(
        "Gentoo Linux amd64 (2026-11-22)\n\n"
        "usage: sh kexec.sh [OPTION...] [URL|FOLDER] [KERNEL ARGUMENT...]\n"
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ["--entry"],
            "kexec.sh: --entry wants a name\n  sh kexec.sh --list shows those there are\n",
        ),
        (
            ["--entry", "x"],
            "kexec.sh: unknown entry 'x'\n  sh kexec.sh --list shows those there are\n",
        ),
        (["--now"], "kexec.sh: unknown option --now\n  sh kexec.sh --help lists them\n"),
        (
            ["/nowhere"],
            "kexec.sh: /nowhere: no netboot tree (boot/gentoo is not there)\n"
            "  name its address or its folder: sh kexec.sh http://SERVER/FOLDER\n",
        ),
        (
            ["http://server/a b"],
            "kexec.sh: http://server/a b: an address of other characters than letters, digits and"
            " : / . _ ~ % + @ -\n",
        ),
        (
            ["http://server/a", "quiet", "--dry-run"],
            "kexec.sh: --dry-run: options stand before the tree's address\n"
            "  sh kexec.sh --help shows how\n",
        ),
        (
            [".", "--dry-run"],
            "kexec.sh: --dry-run: options stand before the tree's address\n"
            "  sh kexec.sh --help shows how\n",
        ),
    ],
)
def test_wrong_words(machine: Machine, tree: Path, words: list[str], complaint: str) -> None:
    assert refused(machine.run(tree, *words), machine) == complaint


def test_what_is_meant_for_init_may_look_like_an_option(machine: Machine, tree: Path) -> None:
    said = machine.run(tree, "--dry-run", str(tree), "quiet", "--", "--log-level=debug").stdout
    assert " quiet -- --log-level=debug\n" in said


def test_by_a_pipe_without_an_address(machine: Machine, tree: Path) -> None:
    assert refused(machine.run(tree, piped=True), machine) == (
        "kexec.sh: it is not known where the tree is\n"
        "  name its address or its folder: sh kexec.sh http://SERVER/FOLDER\n"
    )


@pytest.mark.parametrize("part", [0.3, 0.7, 0.99])
def test_a_script_that_was_cut_short_does_nothing(
    machine: Machine, tree: Path, part: float
) -> None:
    text = (tree / "kexec.sh").read_text()
    (tree / "kexec.sh").write_text(text[: int(len(text) * part)])
    done = machine.run(tree)
    assert "Entry" not in done.stdout
    assert machine.calls == []


# --- the text -------------------------------------------------------------------------------------

HOSTILE = ["It's", "$(touch", "hacked)", "`touch", "hacked`", '"', "\\", "&&", ";", "#", "é"]


def test_values_stay_values(machine: Machine, tmp_path: Path, no_loaders: None) -> None:
    tree = make(
        tmp_path / "store",
        pxeboot__title=HOSTILE,
        pxeboot__bootargs=["a;b", "$(touch${IFS}hacked)", "`x`", "{c}", "d*", '"e"', "f'g", "h\\i"],
        pxeboot__loaders=["pxelinux"],
    )
    done = machine.run(tree, "--load-only")
    assert (done.returncode, done.stderr) == (0, "")
    words = machine.kept("command-line").decode()
    assert """ a;b $(touch${IFS}hacked) `x` {c} d* "e" f'g h\\i BOOTIF=""" in words
    assert " ".join(HOSTILE) + "\n" == machine.run(tree, "--help").stdout.splitlines()[0] + "\n"
    assert not list(tmp_path.rglob("hacked*"))


@pytest.mark.parametrize("text", ["a\nb", "a\tb", "\x1b[0m", "\0"])
def test_control_characters_are_refused(text: str) -> None:
    with pytest.raises(TemplateError, match=r"^kexec\.sh: the value .* holds a line break or"):
        quote_shell(text)


@pytest.mark.parametrize("case", CASES)
def test_shellcheck_finds_nothing(case: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is missing")
    done = subprocess.run(
        ["shellcheck", "--shell=sh", "--severity=style", GOLDEN / case / "kexec.sh"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def test_an_own_template(machine: Machine, tmp_path: Path, no_loaders: None) -> None:
    templates = tmp_path / "own"
    templates.mkdir()
    (templates / "kexec.sh.j2").write_text("echo {{ title }} {{ entries[0].initrds[0].path }}\n")
    tree = make(tmp_path / "store", pxeboot__templates=str(templates))
    assert machine.run(tree).stdout == "Gentoo Linux amd64 (2026-11-22) boot/gentoo.igz\n"


def test_the_manifest_calls_it_a_script(tree: Path) -> None:
    files = {
        file["path"]: file for file in json.loads((tree / "manifest.json").read_text())["files"]
    }
    digest = hashlib.sha256((tree / "kexec.sh").read_bytes()).hexdigest()
    assert files["kexec.sh"]["role"] == "script"
    assert files["kexec.sh"]["digests"]["sha256"] == digest
    assert (tree / "kexec.sh").stat().st_mode & 0o777 == 0o644
