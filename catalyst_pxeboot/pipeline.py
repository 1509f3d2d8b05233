"""The one way through the house. Both doors, catalyst's and the command line, come here.

spec, source, plan, render, tree, manifest, publish; nothing flows back.
"""

from __future__ import annotations

import os
import time as clock
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.dhcp import render_dhcp
from catalyst_pxeboot.digest import digest_bytes
from catalyst_pxeboot.errors import PxebootError
from catalyst_pxeboot.loaders import FoundLoader, GrubImage, MissingLoader, find_loaders
from catalyst_pxeboot.manifest import algorithms, render_manifest, render_sums, sum_files
from catalyst_pxeboot.model import Loader, MadeFile, Role
from catalyst_pxeboot.plan import Plan, plan_tree
from catalyst_pxeboot.publish import MANIFEST, Publication, own_names
from catalyst_pxeboot.render import render_configs, render_grub_early, view_menu
from catalyst_pxeboot.source import read_source
from catalyst_pxeboot.spec import Spec
from catalyst_pxeboot.tree import (
    TreeFile,
    seal_folders,
    stage_joined_files,
    stage_made_files,
    stage_source_files,
    stage_unpacked_files,
    write_file,
)

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Built:
    """What a build came to: the tree, its files, and what the user should know."""

    output: Path
    files: tuple[TreeFile, ...]
    missing: tuple[str, ...]  # a line for each package whose loader binaries were not found
    warnings: tuple[str, ...]
    left_out: tuple[str, ...]
    seconds: float


def make_plan(spec: Spec) -> Plan:
    """Read the source, look for loaders and plan the tree, without writing anything."""
    source = read_source(spec.source, names=spec.kernels)
    loaders = find_loaders(spec.arch.grub, loaders=spec.loaders, search=spec.loader_path)
    return plan_tree(spec, source, loaders)


def build(spec: Spec, *, report: Report) -> Built:
    """Build and publish the netboot tree of `spec`, telling `report` of each step in a line."""
    begun = clock.monotonic()
    report(f"Reading {spec.source}")
    plan = make_plan(spec)
    time = tree_time(plan)
    for loader in spec.loaders:
        view_menu(loader, plan.menu)  # what no loader could take is told before any work
    digests = algorithms(spec.digests)
    publication = Publication(spec.output, expected=own_names)
    with publication as staging, ThreadPoolExecutor(max_workers=1) as beside:
        # All other files are made while the squashfs is read; neither needs the other.
        making = beside.submit(
            lambda: stage_made_files(
                (*plan.made, *_make_files(plan)), staging, algorithms=digests, time=time
            )
        )
        report(f"Staging {len(plan.files)} payload files")
        files = stage_source_files(
            plan.files, staging, link=spec.link, algorithms=digests, time=time
        )
        files += making.result()
        files += stage_unpacked_files(plan.unpacked, staging, algorithms=digests, time=time)
        files += stage_joined_files(plan.joined, staging, algorithms=digests, time=time)
        manifest = render_manifest(plan, files, time=time)
        write_file(staging / MANIFEST, manifest, time=time)
        by_path = {file.path: file.digests for file in files}
        by_path[MANIFEST] = digest_bytes(manifest, digests)
        sums = render_sums(by_path, sum_files(spec.digests), spec.digest_format)
        for name, content in sums.items():
            write_file(staging / name, content, time=time)
        seal_folders(staging, time=time)
        publication.commit()
    return Built(
        output=spec.output,
        files=tuple(sorted(files, key=lambda file: file.path)),
        missing=tuple(_missing_lines(plan.loaders.missing)),
        warnings=plan.warnings,
        left_out=plan.left_out,
        seconds=clock.monotonic() - begun,
    )


def tree_time(plan: Plan) -> int:
    """Return the time every file of the tree gets: SOURCE_DATE_EPOCH, or the live root's own."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not given:
        return plan.source.time
    if not given.isdecimal() or len(given) > 12:
        raise PxebootError(
            f"SOURCE_DATE_EPOCH: {given!r} is not a number of seconds", hint="correct or unset it"
        )
    return int(given)


def _make_files(plan: Plan) -> list[MadeFile]:
    """Render every text of the tree, and read or make its loader binaries."""
    spec = plan.spec
    configs = render_configs(plan.menu, loaders=spec.loaders, templates=spec.templates)
    names = {loader.path for loader in plan.loaders.found} | {file.path for file in configs}
    if Loader.UBOOT in spec.loaders:
        names.add(MANIFEST)  # for its folder, which is the tree's
    dhcp = render_dhcp(spec.arch, files=names, server=spec.server, templates=spec.templates)
    early = render_grub_early(spec.templates, spec.server)
    return [*configs, *dhcp, *_take_loaders(plan.loaders.found, early)]


def _take_loaders(found: Iterable[FoundLoader], early: str) -> list[MadeFile]:
    """Read or make the loader binaries that this machine has for the tree."""
    files = []
    for loader in found:
        if isinstance(loader.origin, GrubImage):
            content = loader.origin.make(early)
            origin = f"grub-mkimage, {loader.origin.modules_folder}"
        else:
            content, origin = loader.origin.read_bytes(), str(loader.origin)
        made_by = f"{origin} ({loader.version})" if loader.version else origin
        files.append(MadeFile(loader.path, content, Role.LOADER, made_by))
    return files


def _missing_lines(missing: Iterable[MissingLoader]) -> Iterator[str]:
    by_package: dict[tuple[str, str], list[str]] = {}
    for loader in missing:
        by_package.setdefault((loader.gentoo, loader.debian), []).append(loader.path)
    for (gentoo, debian), paths in by_package.items():
        yield f"{' '.join(paths)} (of Gentoo's {gentoo}, Debian's {debian})"
