"""Plan and stage all of a netboot tree but its live root, which is staged meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from catalyst_pxeboot.build.manifest import make_manifest
from catalyst_pxeboot.build.signing import find_secureboot_signer, find_signers
from catalyst_pxeboot.build.stream import (
    find_no_tools,
    find_stream_tools,
    stage_hash_tree,
    stage_streams,
)
from catalyst_pxeboot.build.uki import make_ukis
from catalyst_pxeboot.build.work import Work
from catalyst_pxeboot.formats.squashfs import Squashfs
from catalyst_pxeboot.formats.verity import HashTree
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.loader.binaries import FoundLoader, Loaders, MissingLoader, find_loaders
from catalyst_pxeboot.loader.grub_image import GrubImage
from catalyst_pxeboot.model.files import MadeFile, Role, RootCheckFile, TreeFile
from catalyst_pxeboot.model.loader import BootProgram, Loader
from catalyst_pxeboot.model.manifest import MANIFEST
from catalyst_pxeboot.personal.read import read_hosts, read_personal
from catalyst_pxeboot.plan.entries import PERSONAL, host_path
from catalyst_pxeboot.plan.flat import FlatSet, plan_flat
from catalyst_pxeboot.plan.signers import Signers
from catalyst_pxeboot.plan.tree import Plan, plan_tree
from catalyst_pxeboot.render.dhcp import render_dhcp
from catalyst_pxeboot.render.menu import (
    render_configs,
    render_flat_config,
    render_grub_early,
    view_menu,
)
from catalyst_pxeboot.render.pages import render_page, render_texts
from catalyst_pxeboot.render.personal import render_personal
from catalyst_pxeboot.render.rootcheck import render_root_check
from catalyst_pxeboot.source.image import read_image
from catalyst_pxeboot.source.live import LiveImage
from catalyst_pxeboot.spec.parse import Spec
from catalyst_pxeboot.stream.tools import NoTools
from catalyst_pxeboot.tree.flat import FlatPublication, stage_flat
from catalyst_pxeboot.tree.manifest import render_manifest
from catalyst_pxeboot.tree.signatures import make_signatures, sign_sums
from catalyst_pxeboot.tree.stage import (
    check_links,
    seal_folders,
    stage_joined_files,
    stage_made_files,
    stage_source_file,
    stage_unpacked_files,
)
from catalyst_pxeboot.tree.verify import find_config_faults
from catalyst_pxeboot.util.checksum import digest_bytes, spare_core
from catalyst_pxeboot.util.errors import PxebootError, SpecError
from catalyst_pxeboot.util.files import read_regular, write_file
from catalyst_pxeboot.util.sums import (
    MANIFEST_DIGEST,
    algorithms,
    render_sums,
    sum_files,
)

_MAX_LOADER = 64 << 20  # bytes; the largest, GRUB with all modules, has some 4 MiB


@dataclass(frozen=True, slots=True)
class Built:
    """The result of a build: the tree, its files, and what the user should know."""

    output: Path
    files: tuple[TreeFile, ...]
    missing: tuple[str, ...]  # a line for each package whose loader binaries were not found
    warnings: tuple[str, ...]
    left_out: tuple[str, ...]
    seconds: float

    @classmethod
    def of(cls, plan: Plan, files: Iterable[TreeFile], *, seconds: float) -> Self:
        """Return the result of a build that took `seconds`."""
        return cls(
            output=plan.spec.output,
            files=tuple(sorted(files, key=lambda file: file.path)),
            missing=tuple(_missing_lines(plan.loaders.missing)),
            warnings=plan.warnings,
            left_out=plan.left_out,
            seconds=seconds,
        )


def plan_opened(spec: Spec, image: LiveImage, squashfs: Squashfs) -> Plan:
    """Read the open live image, look for loaders and plan the tree."""
    return _plan(spec, image, squashfs, lambda: _find_loaders(spec), find_no_tools(spec))


def stage_tree(
    spec: Spec,
    image: LiveImage,
    squashfs: Squashfs,
    work: Work,
    report: Callable[[str], None],
) -> tuple[Plan, list[TreeFile], FlatPublication | None]:
    """Fill the staging folder of `work` with the tree.

    Returns the plan, every file, and the flat files that are to be published with the tree, in
    the stack of `work` as the tree itself.
    """
    staging, beside = work.staging, work.beside
    no_tools = find_no_tools(spec)
    if no_tools:
        work.hash_tree.stop()
    digests = algorithms(spec.digests)
    signers = find_signers(spec.signing, spec.loaders)
    secureboot = find_secureboot_signer(spec.secureboot)
    prepared = beside.submit(_prepare_loaders, spec, signers)
    plan = _plan(spec, image, squashfs, lambda: prepared.result()[0], no_tools)
    time = tree_time(plan)
    for loader in filter(plan.menu.offers, spec.loaders):
        view_menu(loader, plan.menu)  # what a loader cannot take is reported before any work
    flat = plan_flat(plan)
    flat_publication = FlatPublication(flat, spec.output) if flat else None
    flat_staging = work.stack.enter_context(flat_publication) if flat_publication else None
    report(f"Staging {len(plan.files)} payload files")
    rest = beside.submit(
        lambda: [
            stage_source_file(file, staging, link=spec.link, algorithms=digests)
            for file in plan.files
            if file.role is not Role.SQUASHFS
        ]
    )
    streams: list[Future[list[TreeFile]]] = []
    if plan.streams:
        hashed = beside.submit(_finish_hash_tree, work)
        streams = [
            beside.submit(stage, plan, staging, hashed, algorithms=digests, time=time)
            for stage in (stage_streams, stage_hash_tree)
        ]
    else:
        work.hash_tree.stop()
    made = (*plan.made, *_render_files(plan), *prepared.result()[1])
    files = stage_made_files(made, staging, algorithms=digests, time=time)
    files += rest.result()
    files += stage_unpacked_files(plan.unpacked, staging, algorithms=digests, time=time)
    for stream in streams:
        files += stream.result()
    files.append(work.staged_root.result())
    if plan.check:
        files += _stage_check(plan.check, files, plan, staging, digests=digests, time=time)
    files += stage_joined_files(plan.joined, staging, algorithms=digests, time=time)
    ukis = make_ukis(plan, staging, secureboot, time=time)
    files += stage_made_files(ukis, staging, algorithms=digests, time=time)
    signatures = make_signatures(
        signers,
        tree=staging,
        digests={file.path: file.digests[MANIFEST_DIGEST] for file in files},
        time=time,
    )
    files += stage_made_files(signatures, staging, algorithms=digests, time=time)
    files += stage_made_files(
        render_texts(plan, files, signers), staging, algorithms=digests, time=time
    )
    page = render_page(plan, files, signers, tree=staging, time=time)
    files += stage_made_files([page], staging, algorithms=digests, time=time)
    _check_configs(plan, files, staging)
    manifest = render_manifest(make_manifest(plan, files, time=time, flat=flat))
    write_file(staging / MANIFEST, manifest, time=time)
    by_path = {file.path: file.digests for file in files}
    by_path[MANIFEST] = digest_bytes(manifest, digests)
    sums = render_sums(by_path, sum_files(spec.digests), spec.digest_format)
    sums |= sign_sums(signers, sums, spec.digests, time=time)
    for name, content in sums.items():
        write_file(staging / name, content, time=time)
    seal_folders(staging, time=time)
    if flat and flat_staging and flat_publication:
        stage_flat(
            flat,
            _render_flat(flat, spec),
            tree=staging,
            staging=flat_staging,
            by_path=by_path,
            digests=spec.digests,
            digest_format=spec.digest_format,
            signers=signers,
            time=time,
        )
    check_links(files, staging)
    return plan, files, flat_publication


def _finish_hash_tree(work: Work) -> HashTree:
    work.staged_root.result()
    return work.hash_tree.finish()


def _find_loaders(spec: Spec) -> Loaders:
    return find_loaders(
        spec.arch.grub, loaders=spec.loaders, search=spec.loader_path, uefi=spec.arch.uefi
    )


def _prepare_loaders(spec: Spec, signers: Signers) -> tuple[Loaders, list[MadeFile]]:
    """Find the loader binaries that this machine has, and read or make them."""
    with spare_core():
        loaders = _find_loaders(spec)
        key = signers.grub_key(spec.loaders)
        early = render_grub_early(spec.templates, spec.server, signed=key is not None)
        return loaders, _take_loaders(loaders.found, early, key)


def _plan(
    spec: Spec,
    image: LiveImage,
    squashfs: Squashfs,
    find: Callable[[], Loaders],
    no_tools: NoTools | None,
) -> Plan:
    personal = read_personal(spec.personal)
    hosts = read_hosts(spec.hosts, personal)
    with spare_core():  # an initramfs is unpacked by one thread
        source = read_image(image, squashfs, names=spec.kernels)
    tools = no_tools or find_stream_tools(source, spec.loader_path)
    return plan_tree(spec, source, find(), tools, personal, hosts)


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


def _render_files(plan: Plan) -> list[MadeFile]:
    """Render the loaders' and DHCP servers' configurations."""
    spec = plan.spec
    shown = tuple(filter(plan.menu.offers, spec.loaders))
    configs = render_configs(plan.menu, loaders=shown, templates=spec.templates)
    names = {loader.path for loader in plan.loaders.found} | {file.path for file in configs}
    if any(LOADERS[kind].boot_file_in_tree for kind in spec.loaders):
        names.add(MANIFEST)  # for its folder, which is the tree's
    dhcp = render_dhcp(
        spec.arch,
        files=names,
        server=spec.server,
        templates=spec.templates,
        program=BootProgram(plan.ukis[0].path, first=spec.first is Loader.UKI)
        if plan.ukis
        else None,
    )
    return [*configs, *dhcp, *_render_personal(plan)]


def _render_personal(plan: Plan) -> Iterator[MadeFile]:
    if plan.personal:
        content = render_personal(plan.personal, plan.spec.templates)
        yield MadeFile(PERSONAL, content, Role.PERSONAL, str(plan.personal))
    scripts: dict[str, bytes] = {}
    for host in plan.hosts:
        if host.personal:
            content = render_personal(host.personal, plan.spec.templates, scripts)
            yield MadeFile(host_path(host.name), content, Role.PERSONAL, str(host.personal))


def _render_flat(flat: FlatSet, spec: Spec) -> list[MadeFile]:
    return [
        render_flat_config(
            loader, flat.menu, folder=flat.folder, name=name, templates=spec.templates
        )
        for loader, name in flat.configs.items()
    ]


def _take_loaders(found: Iterable[FoundLoader], early: str, key: bytes | None) -> list[MadeFile]:
    """Read or make the loader binaries that this machine has for the tree."""
    files = []
    for loader in found:
        if isinstance(loader.origin, GrubImage):
            content = loader.origin.make(early, key)
            origin = f"grub-mkimage, {loader.origin.modules_folder}"
        else:
            content, origin = read_regular(loader.origin, limit=_MAX_LOADER), str(loader.origin)
        made_by = f"{origin} ({loader.version})" if loader.version else origin
        files.append(MadeFile(loader.path, content, Role.LOADER, made_by))
    return files


def _stage_check(
    check: RootCheckFile,
    files: Sequence[TreeFile],
    plan: Plan,
    staging: Path,
    *,
    digests: Sequence[str],
    time: int,
) -> list[TreeFile]:
    """Make the initrd that compares the root with its digest, now that this is known."""
    digest = next(file.digests[MANIFEST_DIGEST] for file in files if file.path == check.root)
    content = render_root_check(digest, hooks=check.hooks, templates=plan.spec.templates)
    origin = f"sha256 of {check.root}"
    made = MadeFile(check.path, content, Role.ROOT_CHECK, origin)
    return stage_made_files([made], staging, algorithms=digests, time=time)


def _check_configs(plan: Plan, files: Iterable[TreeFile], tree: Path) -> None:
    """Raise `SpecError` if a configuration would make `verify` refuse the tree."""
    missing = {file.path for file in plan.loaders.missing}
    there = missing | {MANIFEST, *sum_files(plan.spec.digests), *(file.path for file in files)}
    faults = [
        fault for name in sorted(there - missing) for fault in find_config_faults(tree, name, there)
    ]
    if faults:
        raise SpecError(faults)


def _missing_lines(missing: Iterable[MissingLoader]) -> Iterator[str]:
    by_package: dict[tuple[str, str], list[str]] = {}
    for loader in missing:
        by_package.setdefault((loader.gentoo, loader.debian), []).append(loader.path)
    for (gentoo, debian), paths in by_package.items():
        yield f"{' '.join(paths)} (of Gentoo's {gentoo}, Debian's {debian})"
