"""Make a tree's manifest from its plan and its staged files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from catalyst_pxeboot import __version__
from catalyst_pxeboot.loader.grub_image import GrubImage
from catalyst_pxeboot.model.files import TreeFile
from catalyst_pxeboot.model.manifest import (
    FORMAT,
    GENERATOR,
    FileInfo,
    FlatInfo,
    LoaderInfo,
    MadeBy,
    Manifest,
    MenuInfo,
    ReleaseInfo,
    SquashfsInfo,
)
from catalyst_pxeboot.model.menu import ROOT_MEMBER
from catalyst_pxeboot.plan.flat import FlatSet
from catalyst_pxeboot.plan.summary import kernel_info, menu_entries
from catalyst_pxeboot.plan.tree import Plan
from catalyst_pxeboot.util.sums import signed_sums, sum_files


def make_manifest(
    plan: Plan, files: Sequence[TreeFile], *, time: int, flat: FlatSet | None
) -> Manifest:
    """Return the manifest of a tree; `time` is that of its files, in seconds since 1970."""
    spec, squashfs = plan.spec, plan.source.squashfs
    images = any(isinstance(loader.origin, GrubImage) for loader in plan.loaders.found)
    return Manifest(
        format=FORMAT,
        generator=MadeBy(GENERATOR, __version__),
        release=ReleaseInfo(
            arch=spec.arch.name,
            subarch=spec.subarch,
            rel_type=spec.rel_type,
            version_stamp=spec.version_stamp,
            title=plan.menu.title,
            time=datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ),
        kernels=tuple(map(kernel_info, plan.source.kernels)),
        squashfs=SquashfsInfo(
            path=squashfs.path.name,
            bytes=squashfs.bytes,
            compression=squashfs.compression,
            version=".".join(map(str, squashfs.version)),
            member=ROOT_MEMBER,
        ),
        menu=MenuInfo(plan.menu.live[0].name, plan.menu.timeout, menu_entries(plan)),
        loaders={
            kind: LoaderInfo(
                tuple(file.path for file in plan.loaders.missing if file.loader is kind)
            )
            for kind in spec.loaders
        },
        hosts=tuple(host.name for host in plan.hosts) or None,
        first=spec.first if plan.ukis else None,
        server=spec.server,
        grub_server=spec.server.address if spec.server and images else None,
        notes=plan.notes,
        left_out=plan.left_out,
        files=tuple(
            FileInfo(
                path=file.path,
                bytes=file.bytes,
                role=file.role,
                origin=file.origin,
                digests=dict(sorted(file.digests.items())),
            )
            for file in sorted(files, key=lambda file: file.path)
        ),
        sums={name: tuple(names) for name, names in sum_files(spec.digests).items()},
        clearsigned=(f"{signed_sums(spec.digests)}.asc",) if spec.signing.gpg_key else None,
        flat=FlatInfo(flat.release, dict(flat.origins)) if flat else None,
    )
