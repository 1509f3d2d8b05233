"""Build a small but real live image, laid out as catalyst's livecd-stage2 leaves it.

    python tests/liveimage.py OUTPUT_DIR [--generator dracut|dracut-net|genkernel-like|genkernel]

The kernel is Debian's for cloud machines (downloaded with apt-get, unpacked, not installed),
the initramfs is dracut's or one of tests/genkernel_fixture.py, the live root is a squashfs with
busybox and an init that prints a token to the console and powers the machine off. Needs Debian's
packages dracut-core, dmsetup, kmod, zstd, busybox-static and squashfs-tools-ng; "dracut-net",
which fetches its live root by HTTP or NFS, also dracut-network and nfs-common.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from catalyst_pxeboot.util.errors import CommandError
from tests.support import genkernel as genkernel_fixture

#: First word of the line that proves that the live root was reached; the kernel's command line
#: follows it.
TOKEN = "pxeboot-live-root-reached"

GENERATORS = ("dracut", "dracut-net", "dracut-release", "genkernel-like", "genkernel")
VOLUME_ID = "Gentoo-amd64-20261122"

#: Bytes by which a loop device is counted; what lies behind the last whole one is not seen.
SECTOR = 512

#: Debian's kernel for cloud machines, and the one with every driver.
CLOUD, FULL = "linux-image-cloud-amd64", "linux-image-amd64"

#: Half of the full kernel's modules, which no network boot asks for.
_NO_MODULES = re.compile(r"/kernel/(?:sound|drivers/(?:gpu|iio|infiniband|media|staging))/")

# dm_mod and dm_snapshot stay; what goes is half the image and is never touched by a live root.
_DRACUT_CONFIG = """\
omit_drivers+=" bcache raid0 raid1 raid10 raid456 raid6_pq md_mod multipath linear faulty \
dm_cache dm_cache_smq dm_crypt dm_era dm_integrity dm_multipath dm_raid dm_thin_pool dm_verity \
dm_writecache dm_zoned dm_persistent_data "
"""

# Network drivers of the kernel that no machine of the lab has; the largest are two thirds of all.
_NO_NETWORK_DRIVERS = """\
omit_drivers+=" ena gve hv_netvsc ixgbevf mana mlx4_core mlx4_en mlx4_ib mlx5_core mlx5_ib mlxfw \
vmxnet3 wireguard xen-netback xen-netfront "
"""

_DRACUT_MODULES = "base dmsquash-live"
#: What livenet needs to fetch by HTTP and NFS without systemd.
_DRACUT_NET_MODULES = f"{_DRACUT_MODULES} livenet network-legacy nfs"

#: boot/kernel/gentoo/dracut_args of release engineering's minimal CD, without what needs mdadm,
#: ntfs-3g and Gentoo's keymaps; systemd is Debian's, whose parts dracut finds in half.
_RELEASE_ARGUMENTS = (
    "--xz", "--add", "dmsquash-live",
    "--omit", "btrfs crypt i18n usrmount lunmask qemu qemu-net nvdimm multipath zfs systemd",
)  # fmt: skip
_RELEASE_FILLER = 13 << 20  # bytes, in place of firmware, which the kernel's package has not

INIT = """\
#!/bin/busybox sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
[ -e /proc/mounts ] || busybox mount -t proc proc /proc
for entry in sysfs:/sys devtmpfs:/dev tmpfs:/run; do
    busybox grep -q " ${entry#*:} " /proc/mounts ||
        busybox mount -t "${entry%:*}" "${entry%:*}" "${entry#*:}"
done
exec </dev/console >/dev/console 2>&1

finish() {
    echo "$1"
    busybox sync
    busybox sleep 1
    busybox poweroff -f
    busybox sleep 3600
}

[ "$$" = 1 ] || finish "live root: not started as process 1"
[ "$(busybox cat /etc/live-root)" = "@TOKEN@" ] || finish "live root: /etc/live-root is not ours"
busybox grep -q ' squashfs ' /proc/mounts || finish "live root: no squashfs is mounted"
# live.free=MiB: with no more memory than that.
free=$(busybox sed -n 's/.* live.free=\\([0-9]*\\).*/\\1/p' /proc/cmdline)
if [ -n "$free" ]; then
    busybox mount -t tmpfs -o size=100% tmpfs /mnt
    available() { busybox awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo; }
    while [ "$(available)" -gt "$free" ]; do
        busybox dd if=/dev/zero bs=1M count=1 >> /mnt/full 2>/dev/null || break
    done
fi
echo "live root: comparing"
busybox sha256sum -c /etc/live-root.sha256 >/dev/null || finish "live root: damaged"
finish "@TOKEN@ $(busybox cat /proc/cmdline)"
"""

#: The same, reading no more of the live root than it must.
QUICK_INIT = re.sub(r'^echo "live root: comparing"\n.*\n', "", INIT, flags=re.MULTILINE)

_README = """\
A live image for tests. It boots to an init that prints one line and powers the machine off.
"""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel package, unpacked."""

    top: Path
    release: str

    @property
    def modules(self) -> Path:
        return self.top / "lib/modules" / self.release

    def boot(self, name: str) -> Path:
        return self.top / "boot" / f"{name}-{self.release}"


def build_live_image(
    target: Path,
    *,
    cache: Path,
    generator: str = "dracut",
    token: str = TOKEN,
    squashfs_mib: int = 0,
    modules: bool = False,
    package: str = CLOUD,
    init: str = INIT,
    members: Sequence[tuple[str, int, bytes]] = (),
) -> Path:
    """Build the live image in the folder `target`, which is replaced, and return it.

    `cache` keeps the kernel and the initramfs images between builds. `generator` is one of
    `GENERATORS`; "genkernel" reads the checkout that GENKERNEL_SRC names. `squashfs_mib` adds
    incompressible data until image.squashfs has at least that many MiB, `modules` the kernel's.
    That one is of Debian's `package`. `init` runs in the live root, which has `members`, too: path,
    mode and content of each.
    No file shares an inode with the cache, so a test may damage what it likes.
    """
    if generator not in GENERATORS:
        raise ValueError(f"generator {generator!r} is none of {', '.join(GENERATORS)}")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", token):
        raise ValueError(f"token {token!r} must be letters, digits, dots, hyphens")
    cache.mkdir(parents=True, exist_ok=True)
    kernel = _kernel(cache, package)
    initramfs = _initramfs(cache, kernel, generator)
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
        (boot / name).chmod(0o644)
    if generator.startswith("dracut"):
        (boot / "gentoo.igz").chmod(0o600)  # as dracut leaves it, and catalyst after it
    (boot / "grub/grub.cfg").write_text(grub_cfg(generator))
    _write_squashfs(
        target / "image.squashfs", token, squashfs_mib, kernel.modules if modules else None,
        init, members,
    )  # fmt: skip
    (target / "livecd").touch()
    (target / "README.txt").write_text(_README)
    return target


def grub_cfg(generator: str, *, consoles: Sequence[str] = ("ttyS0,115200", "tty0")) -> str:
    """Write the ISO's menu as catalyst's iso-bootloader-setup.sh does, its faults included.

    `consoles` are the spec's boot/kernel/gentoo/console; only the genkernel form is given a
    submenu of them, as today's dracut specs name none.
    """
    if generator.startswith("dracut"):
        search = f"search --no-floppy --set=root -l {VOLUME_ID}\n"
        live = f"root=live:CDLABEL={VOLUME_ID} rd.live.dir=/ rd.live.squashimg=image.squashfs"
        words, cached, submenu = f"dokeymap nodhcp {live} cdroot", "rd.live.ram=1", False
    else:
        search = ""
        words = "dokeymap nodhcp looptype=squashfs loop=/image.squashfs cdroot"
        cached, submenu = "docache", True
    lines = [
        "set default=0",
        "set gfxpayload=keep",
        "set timeout=10",
        "insmod all_video",
        "insmod png",
        "insmod gfxterm",
        "terminal_output gfxterm",
        "set gfxmode=auto",
        "set theme=/boot/grub/themes/gentoo_frosted/theme.txt",
        "",
        "",
    ]
    text = "\n".join(lines)

    def entry(title: str, more: str, indent: tuple[str, str, str], find: str = search) -> str:
        found = indent[0] + find if find else ""
        return (
            f"menuentry 'Boot LiveCD (kernel: gentoo{title}' --class gnu-linux --class os {{\n"
            f"{found}{indent[1]}linux /boot/gentoo {words}{more}\n"
            f"{indent[2]}initrd /boot/gentoo.igz\n}}\n"
        )

    text += entry(")", "", ("\t", "\t", "\t")) + "\n"
    text += entry(") (cached)", f" {cached}", ("\t", "\t", "  ")) + "\n"
    text += entry(") (accessibility)", " dospeakup", ("  ", "  ", "\t"))
    if submenu and consoles:
        text += (
            "submenu 'Special console options (kernel: gentoo)' --class gnu-linux --class os {\n"
        )
        for console in consoles:
            option = f" console={console}"
            text += entry(f"{option})", option, ("\t", "\t", "\t"), "") + "\n"
        text += "}\n"
    return text + "\n"


def make_initramfs(cache: Path, generator: str) -> Path:
    """Return an initramfs of `GENERATORS`, from `cache` if it was made before."""
    cache.mkdir(parents=True, exist_ok=True)
    return _initramfs(cache, _kernel(cache), generator)


def _kernel(cache: Path, package: str = CLOUD) -> Kernel:
    """Unpack the kernel `package` into `cache`, or find it there."""
    top = cache / ("kernel" if package == CLOUD else package)
    if not top.is_dir():
        _once(top, partial(_unpack_kernel, package))
    (modules,) = (top / "lib/modules").iterdir()
    return Kernel(top, modules.name)


def _unpack_kernel(package: str, top: Path) -> None:
    shown = _output("apt-cache", "depends", "--important", package)
    found = re.search(r"Depends: (linux-image-\d\S+)", shown)
    if found is None:
        raise RuntimeError(f"apt knows no {package}: run apt-get update on Debian amd64")
    with tempfile.TemporaryDirectory() as scratch:
        # Root's apt hands the download to the user _apt, who must be able to write here.
        Path(scratch).chmod(0o777)
        _run("apt-get", "-qq", "download", found[1], folder=Path(scratch))
        (file,) = Path(scratch).glob("*.deb")
        top.mkdir()
        _run("dpkg-deb", "-x", str(file), str(top))
    if not (top / "lib").exists():
        (top / "lib").symlink_to("usr/lib")  # packages of a merged /usr
    (modules,) = (top / "lib/modules").iterdir()
    _run("depmod", "-b", str(top), modules.name)


def _initramfs(cache: Path, kernel: Kernel, generator: str) -> Path:
    """Make the initramfs of `generator` for `kernel`, or find it in `cache`."""
    recipe = hashlib.sha256(kernel.release.encode())
    recipe.update(Path(__file__).read_bytes() + Path(genkernel_fixture.__file__).read_bytes())
    make: Callable[[Path], None]
    if generator == "dracut":
        make = _dracut(kernel, _DRACUT_CONFIG, "--modules", _DRACUT_MODULES)
    elif generator == "dracut-net":
        make = _dracut(
            kernel,
            _DRACUT_CONFIG + _NO_NETWORK_DRIVERS,
            "--modules", _DRACUT_NET_MODULES,
            # That one comes by itself where the machine that builds is a QEMU guest.
            "--omit", "qemu-net",
            # A card's own driver comes with these modules, the bus of the lab's cards does not.
            "--add-drivers", "virtio_pci",
            "--install", "sha256sum",
        )  # fmt: skip
    elif generator == "dracut-release":
        make = _dracut(kernel, "", *_RELEASE_ARGUMENTS, filler=_RELEASE_FILLER)
    elif generator == "genkernel-like":

        def make(target: Path) -> None:
            genkernel_fixture.write_like(
                target, busybox=_busybox(), modules=kernel.modules, release=kernel.release
            )

    else:
        checkout = Path(os.environ.get("GENKERNEL_SRC", ""))
        if not (checkout / "defaults/linuxrc").is_file():
            raise RuntimeError("GENKERNEL_SRC must name a checkout of genkernel")
        for name in ("genkernel", "defaults/linuxrc", "defaults/initrd.scripts"):
            recipe.update((checkout / name).read_bytes())

        def make(target: Path) -> None:
            genkernel_fixture.write_real(
                target,
                genkernel=checkout,
                busybox=_busybox(),
                modules=kernel.modules,
                release=kernel.release,
            )

    target = cache / f"initramfs-{generator}-{recipe.hexdigest()[:16]}"
    if not target.exists():
        _once(target, make)
    return target


def _dracut(kernel: Kernel, config: str, *more: str, filler: int = 0) -> Callable[[Path], None]:
    def make(target: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            # dracut keeps its arguments in the image, so paths of this run stand in the file.
            Path(scratch, "dracut.conf").write_text(
                f'{config}drivers_dir="{kernel.modules.resolve()}"\ntmpdir="{scratch}"\n'
            )
            Path(scratch, "conf.d").mkdir()
            words = more
            if filler:
                content = random.Random(0).randbytes(filler)
                Path(scratch, "firmware").write_bytes(content)
                words += ("--include", "./firmware", "/usr/lib/firmware/filler")
            # Only the modules named in `more`, with their dependencies: Debian's own choice would
            # bring systemd, and another way to the network.
            _run(
                "dracut", "--quiet", "--conf", "./dracut.conf", "--confdir", "./conf.d",
                "--kver", kernel.release, "--no-hostonly", "--no-hostonly-cmdline",
                "--no-early-microcode", "--reproducible", "--zstd",
                *words, "./initramfs",
                folder=Path(scratch),
            )  # fmt: skip
            shutil.copy(Path(scratch, "initramfs"), target)

    return make


def _write_squashfs(
    target: Path,
    token: str,
    mib: int,
    modules: Path | None = None,
    init: str = INIT,
    members: Sequence[tuple[str, int, bytes]] = (),
) -> None:
    """Pack a live root whose last table ends in the file's last sector.

    gensquashfs pads to 4 KiB. An image cut short within that padding would still mount, so a test
    that cuts one byte off could not tell.
    """
    filler = 0
    for _ in range(50):
        _pack_squashfs(target, token, mib, filler, modules, init, members)
        with target.open("rb") as stream:
            (used,) = struct.unpack("<Q", stream.read(96)[40:48])
        slack = target.stat().st_size - used
        if slack < SECTOR:
            return
        filler = (filler + slack - SECTOR // 2) % 4096
    raise CommandError(f"{target}: no filler makes gensquashfs fill the last sector")


def _pack_squashfs(
    target: Path,
    token: str,
    mib: int,
    filler: int,
    modules: Path | None,
    init: str,
    members: Sequence[tuple[str, int, bytes]],
) -> None:
    """Pack busybox, our init, and what dracut and genkernel look for in a root."""
    busybox = _busybox()
    folders = "bin boot dev etc home lib mnt opt proc root run sbin sys tmp usr var"
    lines = [f"dir /{name} 0755 0 0" for name in folders.split()]
    lines += [f"dir /usr/{name} 0755 0 0" for name in ("bin", "lib", "sbin", "share")]
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)

        def add(name: str, mode: int, content: bytes) -> None:
            source = name.replace("/", "+")
            (top / source).write_bytes(content)
            lines.append(f"file {name} {mode:04o} 0 0 {source}")

        started = init.replace("@TOKEN@", token).encode()
        binary = busybox.read_bytes()
        add("/bin/busybox", 0o755, binary)
        add("/sbin/init", 0o755, started)
        add("/etc/live-root", 0o644, f"{token}\n".encode())
        add("/etc/os-release", 0o644, b'ID=gentoo\nNAME=Gentoo\nPRETTY_NAME="A test"\n')
        sums = [("/bin/busybox", binary), ("/sbin/init", started)]
        add("/etc/filler", 0o644, random.Random(0).randbytes(filler))
        if mib:
            source = random.Random(mib)  # one call gives less than 256 MiB
            padding = b"".join(source.randbytes(1 << 20) for _ in range(mib))
            add("/usr/share/padding", 0o644, padding)
            sums.append(("/usr/share/padding", padding))
        listed = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sums)
        add("/etc/live-root.sha256", 0o644, "".join(listed).encode())
        folders_of = {str(folder) for name, *_ in members for folder in Path(name).parents}
        made = {line.split()[1] for line in lines}
        lines += [f"dir {folder} 0755 0 0" for folder in sorted(folders_of - made - {"/"})]
        for member in members:
            add(*member)
        lines += [f"slink /bin/{name} 0777 0 0 busybox" for name in ("sh", "mount", "cat")]
        lines += [f"slink /usr/bin/{name} 0777 0 0 /bin/busybox" for name in ("test", "env")]
        if modules:
            within = {file.parent for file in modules.rglob("*")} | {modules.parent}
            for folder in sorted(within):
                lines.append(f"dir /lib/{folder.relative_to(modules.parent.parent)} 0755 0 0")
            for file in sorted(modules.rglob("*")):
                if file.is_file() and not file.is_symlink() and not _NO_MODULES.search(str(file)):
                    name = file.relative_to(modules.parent.parent)
                    lines.append(f"file /lib/{name} 0644 0 0 {file}")
        (top / "pack-list").write_text("\n".join(lines) + "\n")
        _run(
            "gensquashfs", "--quiet", "--force", "--defaults", "mtime=0", "--compressor", "gzip",
            "--pack-file", str(top / "pack-list"), str(target),
        )  # fmt: skip


def _busybox() -> Path:
    """Find a static busybox: neither root nor initramfs holds a C library."""
    found = shutil.which("busybox")
    if found is None:
        raise RuntimeError("busybox is missing: install busybox-static")
    path = Path(found).resolve()
    head = path.read_bytes()[:4096]
    if head[:5] != b"\x7fELF\x02":
        raise RuntimeError(f"{path} is no 64-bit program: install busybox-static")
    (table,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    if any(struct.unpack_from("<I", head, table + size * i)[0] == 3 for i in range(count)):
        raise RuntimeError(f"{path} is dynamically linked: install busybox-static")
    return path


def _once(target: Path, make: Callable[[Path], None]) -> None:
    """Make `target` beside itself and rename it, so that no one sees or keeps half of it."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        made = Path(scratch, "made")
        make(made)
        try:
            made.rename(target)
        except OSError:
            if not target.exists():  # otherwise another process was faster
                raise


def _run(*argv: str, folder: Path | None = None) -> None:
    done = subprocess.run(argv, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} failed with {done.returncode}: {done.stderr.strip()}")


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Build one live image from the command line."""
    parser = argparse.ArgumentParser(description="Build a small live image for boot tests.")
    parser.add_argument("output", type=Path, metavar="OUTPUT_DIR")
    parser.add_argument("--generator", choices=GENERATORS, default="dracut")
    parser.add_argument("--token", default=TOKEN)
    parser.add_argument("--squashfs-mib", type=int, default=0, metavar="MIB")
    parser.add_argument("--cache", type=Path, help="default: OUTPUT_DIR/../cache")
    given = parser.parse_args()
    output: Path = given.output.resolve()
    built = build_live_image(
        output,
        cache=given.cache or output.parent / "cache",
        generator=given.generator,
        token=given.token,
        squashfs_mib=given.squashfs_mib,
    )
    print(built)


if __name__ == "__main__":
    main()
