"""manifest.json and the digest files: what a tree holds and how each file is checked.

manifest.schema.json describes the manifest. DIGESTS and SHA256SUMS have the form of catalyst's
own digest files; both cover every file of the tree, the manifest included, but themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalyst_pxeboot import __version__
from catalyst_pxeboot.model.files import TreeFile
from catalyst_pxeboot.model.menu import ROOT_MEMBER
from catalyst_pxeboot.plan.summary import menu_entries
from catalyst_pxeboot.plan.tree import Plan
from catalyst_pxeboot.source.image import SourceKernel
from catalyst_pxeboot.util.errors import VerifyError
from catalyst_pxeboot.util.files import read_regular
from catalyst_pxeboot.util.sums import signed_sums, sum_files

GENERATOR = "catalyst-pxeboot"
MANIFEST = "manifest.json"
MAX_MANIFEST = 16 * 1024 * 1024  # bytes
FORMAT = 1


def render_manifest(
    plan: Plan,
    files: Sequence[TreeFile],
    *,
    time: int,
    flat: Mapping[str, str | None] | None = None,
) -> bytes:
    """Return manifest.json.

    `flat` are the flat release files beside the tree, each with the tree's file that it is or
    None for one of its own.
    """
    spec, source = plan.spec, plan.source
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "generator": {"name": GENERATOR, "version": __version__},
        "release": {
            "arch": spec.arch.name,
            "subarch": spec.subarch,
            "rel_type": spec.rel_type,
            "version_stamp": spec.version_stamp,
            "title": plan.menu.title,
            "time": datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        "kernels": [_kernel(kernel) for kernel in source.kernels],
        "squashfs": {
            "path": source.squashfs.path.name,
            "bytes": source.squashfs.bytes,
            "compression": source.squashfs.compression,
            "version": ".".join(map(str, source.squashfs.version)),
            "member": ROOT_MEMBER,
        },
        "menu": {
            "default": plan.menu.live[0].name,
            "timeout": plan.menu.timeout,
            "entries": menu_entries(plan),
        },
        "loaders": {
            str(name): {
                "missing": [file.path for file in plan.loaders.missing if file.loader is name]
            }
            for name in spec.loaders
        },
        "notes": list(plan.notes),
        "left_out": list(plan.left_out),
        "files": [_file(file) for file in sorted(files, key=lambda file: file.path)],
        "sums": sum_files(spec.digests),
    }
    if spec.signing.gpg_key:
        manifest["clearsigned"] = [f"{signed_sums(spec.digests)}.asc"]
    if flat is not None and spec.release:
        manifest["flat"] = {"release": spec.release.name, "files": dict(flat)}
    return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()


def _kernel(kernel: SourceKernel) -> dict[str, Any]:
    image, initramfs = kernel.kernel, kernel.initramfs
    return {
        "name": kernel.iso.name,
        "path": kernel.iso.path,
        "machine": image.machine,
        "image": str(image.image),
        "version": image.version,
        "efi_stub": image.efi_stub,
        "initramfs": {
            "path": kernel.iso.initramfs,
            "generator": str(initramfs.generator),
            "version": initramfs.version,
            "compression": str(initramfs.compression),
            "unpacked_bytes": initramfs.unpacked_bytes,
            "modules": list(initramfs.modules),
        },
    }


def _file(file: TreeFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "bytes": file.bytes,
        "role": str(file.role),
        **({"origin": file.origin} if file.origin else {}),
        "digests": dict(sorted(file.digests.items())),
    }


REBUILD = "build the tree again"


def read_manifest(tree: Path) -> tuple[bytes, Mapping[str, Any]]:
    """Return a tree's manifest as it stands and as data, or raise `VerifyError`."""
    path = tree / MANIFEST
    try:
        raw = read_regular(path, limit=MAX_MANIFEST)
        manifest = json.loads(raw)
        if manifest["generator"]["name"] != GENERATOR or manifest["format"] != FORMAT:
            raise KeyError("generator or format")
    except OSError as error:
        raise VerifyError(
            f"{path}: cannot be read: {error.strerror}", hint="give the folder of a netboot tree"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerifyError(
            f"{path}: not a manifest of this program ({error!r})", hint=REBUILD
        ) from error
    return raw, manifest


def parse_text(value: object) -> str:
    """Return `value`, a text that is not empty, or raise ValueError."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no text")
    return value


def parse_word(value: object) -> str:
    """Return `value`, a text or what an ISO's name does not tell: empty. Raises ValueError."""
    return value if value == "" else parse_text(value)


def parse_count(value: object) -> int:
    """Return `value`, a number that is not negative, or raise ValueError."""
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no number")
    return value
