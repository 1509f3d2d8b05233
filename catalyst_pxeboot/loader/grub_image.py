"""GRUB's network images, made by grub-mkimage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.process import find_program, run
from catalyst_pxeboot.util.resources import read_table
from catalyst_pxeboot.util.tempdir import scratch_folder


@dataclass(frozen=True, slots=True)
class GrubImage:
    """A network image of GRUB that `make_grub_image` can make."""

    platform: str
    modules_folder: Path

    def make(self, early_config: str, key: bytes | None = None) -> bytes:
        """Make the image's content, with `early_config` and the public key `key` inside."""
        return make_grub_image(self.platform, self.modules_folder, early_config, key)


def make_grub_image(
    platform: str, modules_folder: Path, early_config: str, key: bytes | None = None
) -> bytes:
    """Make the network image of one GRUB platform; the same input gives the same bytes.

    With the OpenPGP public key `key` it opens only files with a signature of it beside them.
    Raises `CommandError` if grub-mkimage is missing or fails.
    """
    program = grub_mkimage()
    if program is None:
        raise CommandError(
            "grub-mkimage is missing", hint="install sys-boot/grub (Debian: grub-common)"
        )
    modules = grub_modules(platform, module_names(modules_folder), signed=key is not None)
    with scratch_folder() as folder:
        config, image = folder / "early.cfg", folder / "image"
        config.write_text(early_config, "utf-8")
        argv = grub_argv(program, platform, modules_folder, config, image, modules)
        if key is not None:
            (folder / "key").write_bytes(key)
            argv.insert(1, f"--pubkey={folder / 'key'}")
        run(argv)
        return image.read_bytes()


def grub_argv(
    program: Path,
    platform: str,
    modules_folder: Path,
    config: Path,
    image: Path,
    modules: Iterable[str],
) -> list[str]:
    """Write grub-mkimage's command line for one platform's network image."""
    return [
        str(program),
        f"--directory={modules_folder}",
        f"--format={_format(platform)}",
        # The early configuration sets the real one.
        "--prefix=/boot/grub",
        f"--config={config}",
        f"--output={image}",
        *modules,
    ]


def grub_modules(platform: str, present: Iterable[str], *, signed: bool = False) -> tuple[str, ...]:
    """Choose the modules of a platform's image among those that are `present`, sorted.

    With `signed` those that check signatures are among them: GRUB could not load them later, as
    they would have to be checked themselves. Raises `CommandError` naming those that no menu works
    without.
    """
    table = read_table("loader/binaries.toml")["grub"]
    there = set(present)
    needed = {*table["needed"], *(table["signed"] if signed else ())}
    lacking = sorted(needed - there)
    if lacking:
        raise CommandError(
            f"GRUB for {platform} lacks the modules {' '.join(lacking)}",
            hint="install all of its package, or leave grub out of pxeboot/loaders",
        )
    wanted = {*needed, *table["modules"]}
    for part in platform.split("-"):
        wanted.update(table["extra"].get(part, ()))
    return tuple(sorted(wanted & there))


def grub_mkimage() -> Path | None:
    return find_program("grub-mkimage") or find_program("grub2-mkimage")


def module_names(folder: Path) -> frozenset[str]:
    return frozenset(file.stem for file in folder.glob("*.mod"))


def _format(platform: str) -> str:
    """Name the image format of a platform: BIOS wants an image with a PXE start."""
    return f"{platform}-pxe" if platform.endswith("-pc") else platform
