"""Build a small live image for another architecture, as tests/liveimage.py does for amd64.

    python tests/foreignimage.py OUTPUT_DIR --arch arm64|arm|x86

Kernel, busybox and GRUB's modules are Debian's packages for that architecture. apt downloads
them with a state folder of its own and nothing is installed, so the machine stays as it is. The
initramfs is the genkernel-like one of tests/genkernel_fixture.py: its scripts fit any processor.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import random
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tests.support import genkernel as genkernel_fixture
from tests.support import live_image as liveimage

_MIRROR = "http://deb.debian.org/debian"
#: Where the kernel says that it runs that machine's programs by QEMU.
_RUNS_ARM64 = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True, slots=True)
class Foreign:
    """What an architecture is called by Debian, and which packages a boot needs."""

    debian: str
    kernel: str  # a package that depends on the kernel's
    full: str  # the same, of the one with all drivers
    grub: str | None  # None where the build host's own GRUB has the platform


ARCHES = {
    "arm64": Foreign("arm64", "linux-image-cloud-arm64", "linux-image-arm64", "grub-efi-arm64-bin"),
    "arm": Foreign("armhf", "linux-image-armmp", "linux-image-armmp", "grub-efi-arm-bin"),
    "x86": Foreign("i386", "linux-image-686", "linux-image-686", None),
}


#: What streams a root, as tools.toml names Debian's packages.
_STREAM = ("nbdkit", "nbd-client", "busybox-static", "kmod", "dmsetup")


def build_live_image(
    target: Path,
    *,
    cache: Path,
    arch: str,
    genkernel: Path | None = None,
    modules: bool = False,
    squashfs_mib: int = 0,
    release: bool = False,
) -> Path:
    """Build the live image of `arch` in the folder `target`, which is replaced, and return it.

    `cache` keeps packages and initramfs between builds. `genkernel` is a checkout whose own scripts
    the initramfs is to have; the live root has the kernel's `modules` if that says so, and at least
    `squashfs_mib`. A `release` has the full kernel, and an initramfs by dracut with the release
    specs' arguments. Raises `RuntimeError` if apt cannot download the packages, or this machine
    cannot run that one's programs.
    """
    kernel = _kernel(cache, arch, ARCHES[arch].full if release else ARCHES[arch].kernel)
    busybox = _unpacked(cache, arch, "busybox-static") / "bin/busybox"
    if release:
        initramfs = _release_initramfs(cache, arch, kernel)
    else:
        initramfs = _initramfs(cache, arch, kernel, busybox, genkernel)
    if target.exists():
        shutil.rmtree(target)
    boot = target / "boot"
    (boot / "grub").mkdir(parents=True)
    for source, name in (
        (kernel.boot("vmlinuz"), "gentoo"),
        (kernel.boot("config"), "gentoo-config"),
        (kernel.boot("System.map"), "System-gentoo.map"),
        (initramfs, "gentoo.igz"),
    ):
        shutil.copyfile(source, boot / name)
    if arch != "arm":  # catalyst makes no menu there
        (boot / "grub/grub.cfg").write_text(
            liveimage.grub_cfg("dracut" if release else "genkernel-like", consoles=())
        )
    with mock.patch.object(liveimage, "_busybox", lambda: busybox):
        liveimage._write_squashfs(
            target / "image.squashfs", liveimage.TOKEN, squashfs_mib,
            kernel.modules if modules else None, liveimage.INIT, (),
        )  # fmt: skip
    (target / "livecd").touch()
    return target


def pack_kernel(stage2: Path) -> None:
    """Make the kernel of a live image an Image.gz, as catalyst's distkernels for arm64 are."""
    kernel = stage2 / "boot/gentoo"
    packed = gzip.compress(kernel.read_bytes(), 6, mtime=0)
    kernel.unlink()
    kernel.write_bytes(packed)


def loaders(arch: str, cache: Path) -> Path | None:
    """Return a folder with the GRUB platforms of `arch`; None where the host's are to be used."""
    package = ARCHES[arch].grub
    return _unpacked(cache, arch, package) / "usr/lib/grub" if package else None


def stub(arch: str, cache: Path) -> Path:
    """Return a folder with the architecture's stub for unified kernel images."""
    return _unpacked(cache, arch, "systemd-boot-efi") / "usr/lib/systemd/boot/efi"


def stream_tools(arch: str, cache: Path) -> Path:
    """Return a folder with the architecture's programs that stream a root, and their libraries."""
    top = cache / arch / "stream"
    if not top.is_dir():
        liveimage._once(top, functools.partial(_unpack_all, cache, arch, _STREAM))
    return top


def _unpack_all(cache: Path, arch: str, packages: Sequence[str], top: Path) -> None:
    """Unpack packages and all that they depend on."""
    options = ("--no-install-recommends", "--simulate", "install", *packages)
    planned = liveimage._output("apt-get", *_apt(cache, arch), *options)
    names = re.findall(r"^Inst (\S+) ", planned, re.MULTILINE)
    _unpack(cache, arch, names, top)


def _kernel(cache: Path, arch: str, wanted: str) -> liveimage.Kernel:
    top = _unpacked(cache, arch, _kernel_package(cache, arch, wanted))
    (modules,) = (top / "lib/modules").iterdir()
    if not (modules / "modules.dep").exists():
        liveimage._run("depmod", "-b", str(top), modules.name)
    return liveimage.Kernel(top, modules.name)


def _initramfs(
    cache: Path, arch: str, kernel: liveimage.Kernel, busybox: Path, genkernel: Path | None
) -> Path:
    recipe = hashlib.sha256(kernel.release.encode())
    recipe.update(Path(genkernel_fixture.__file__).read_bytes())
    kind = "-genkernel" if genkernel else ""
    target = cache / f"initramfs-{arch}{kind}-{recipe.hexdigest()[:16]}"

    def make(made: Path) -> None:
        write = genkernel_fixture.write_like
        if genkernel:
            write = functools.partial(genkernel_fixture.write_real, genkernel=genkernel)
        write(made, busybox=busybox, modules=kernel.modules, release=kernel.release)

    if not target.exists():
        liveimage._once(target, make)
    return target


def _release_initramfs(cache: Path, arch: str, kernel: liveimage.Kernel) -> Path:
    """Make an initramfs as a release of `arch` has it, by its own dracut."""
    target = cache / f"initramfs-{arch}-dracut-release-{kernel.release}"

    def make(made: Path) -> None:
        root = _debian_root(cache, arch)
        modules = root / "usr/lib/modules" / kernel.release
        if not modules.exists():
            shutil.copytree(kernel.modules, modules, symlinks=True)
        (root / "root/filler").write_bytes(random.Random(0).randbytes(liveimage._RELEASE_FILLER))
        (root / "root/none").mkdir(exist_ok=True)
        liveimage._run(
            "chroot", str(root), "dracut", "--quiet", "--force", "--conf", "/dev/null",
            "--confdir", "/root/none", "--kver", kernel.release, "--no-hostonly",
            "--no-hostonly-cmdline", "--no-early-microcode", "--reproducible",
            "--include", "/root/filler", "/usr/lib/firmware/filler",
            *liveimage._RELEASE_ARGUMENTS, "/root/initramfs",
        )  # fmt: skip
        shutil.copyfile(root / "root/initramfs", made)

    if not target.exists():
        liveimage._once(target, make)
    return target


def _debian_root(cache: Path, arch: str) -> Path:
    """Return a folder with a small Debian of `arch` that has dracut."""
    top = cache / arch / "debian"
    if top.is_dir():
        return top
    if shutil.which("debootstrap") is None or not _RUNS_ARM64.exists():
        raise RuntimeError("install debootstrap and qemu-user-static to run programs of arm64")
    packages = "dracut-core,dracut-live,dmsetup,kmod,xz-utils,busybox-static,udev,squashfs-tools"
    bootstrap = functools.partial(
        liveimage._run, "debootstrap", f"--arch={ARCHES[arch].debian}", "--variant=minbase",
        f"--include={packages}", _codename(),
    )  # fmt: skip
    liveimage._once(top, lambda made: bootstrap(str(made), _MIRROR))
    return top


def _kernel_package(cache: Path, arch: str, wanted: str) -> str:
    """Name the kernel's package: the one in the cache, or what Debian has today."""
    flavour = wanted.removeprefix("linux-image-")
    known = sorted((cache / arch).glob(f"linux-image-[0-9]*[0-9]-{flavour}"))
    if known:
        return known[-1].name
    shown = liveimage._output("apt-cache", *_apt(cache, arch), "depends", "--important", wanted)
    found = re.search(r"Depends: (linux-image-\d\S+)", shown)
    if found is None:
        raise RuntimeError(f"apt knows no {wanted} for {ARCHES[arch].debian}")
    return found[1]


def _unpacked(cache: Path, arch: str, package: str) -> Path:
    """Return the folder of an unpacked package; it is downloaded if the cache has it not."""
    top = cache / arch / package
    if not top.is_dir():
        top.parent.mkdir(parents=True, exist_ok=True)
        liveimage._once(top, functools.partial(_unpack, cache, arch, [package]))
    return top


def _unpack(cache: Path, arch: str, packages: Sequence[str], top: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        liveimage._run(
            "apt-get", *_apt(cache, arch), "-qq", "download", *packages, folder=Path(scratch)
        )
        top.mkdir()
        for file in Path(scratch).glob("*.deb"):
            liveimage._run("dpkg-deb", "-x", str(file), str(top))
    if not (top / "lib").exists():
        (top / "lib").symlink_to("usr/lib")  # packages of a merged /usr
    if not (top / "bin").exists():
        (top / "bin").symlink_to("usr/bin")


@functools.cache
def _apt(cache: Path, arch: str) -> Sequence[str]:
    """Write apt's options for a state of its own, after fetching the list of packages."""
    state = cache / arch / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    signed = f"[signed-by={_KEYRING}]"
    (state / "sources.list").write_text(f"deb {signed} {_MIRROR} {_codename()} main\n")
    settings = {
        "APT::Architecture": ARCHES[arch].debian,
        "APT::Architectures": ARCHES[arch].debian,
        "APT::Sandbox::User": "root",  # the cache is nobody else's to write
        "Acquire::Languages": "none",
        "Dir::State": state / "state",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "-",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    liveimage._run("apt-get", *options, "-qq", "update")
    return options


def _codename() -> str:
    """Read this Debian's release name; another distribution raises `RuntimeError`."""
    text = Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)$", text, re.MULTILINE)
    if found is None or not re.search(r"^ID=debian$", text, re.MULTILINE):
        raise RuntimeError("foreign live images need Debian's apt")
    return found[1]


def main() -> None:
    """Build one live image from the command line."""
    parser = argparse.ArgumentParser(description="Build a small live image of another machine.")
    parser.add_argument("output", type=Path, metavar="OUTPUT_DIR")
    parser.add_argument("--arch", choices=sorted(ARCHES), required=True)
    parser.add_argument("--cache", type=Path, help="default: OUTPUT_DIR/../cache")
    given = parser.parse_args()
    output: Path = given.output.resolve()
    print(build_live_image(output, cache=given.cache or output.parent / "cache", arch=given.arch))


if __name__ == "__main__":
    main()
