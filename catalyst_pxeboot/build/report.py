"""Source, plan, result and tree as text for people; source also as data for machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from catalyst_pxeboot.build.tree import Built
from catalyst_pxeboot.model.files import Role, hash_tree_path
from catalyst_pxeboot.model.manifest import MANIFEST, Manifest
from catalyst_pxeboot.plan.entries import PERSONAL
from catalyst_pxeboot.plan.roots import ROOTS
from catalyst_pxeboot.plan.summary import menu_entries
from catalyst_pxeboot.plan.tree import Plan
from catalyst_pxeboot.render.limits import limit_lines, limit_warnings
from catalyst_pxeboot.source.image import Source
from catalyst_pxeboot.stream.tools import NoTools, Tools
from catalyst_pxeboot.util.records import encode
from catalyst_pxeboot.util.sums import sum_files
from catalyst_pxeboot.util.text import size

#: The roles of files that come from the live image.
PAYLOAD = frozenset({Role.SQUASHFS, Role.INITRAMFS, Role.KERNEL, Role.MEMTEST, Role.DEVICE_TREE})


def source_lines(source: Source, tools: Tools | NoTools) -> Iterator[str]:
    """Say what was found in a live image; `tools` are this host's programs that stream a root."""
    yield f"live image   {source.root}"
    squashfs = source.squashfs
    yield (
        f"squashfs     {squashfs.path.name}: {size(squashfs.bytes)}, {squashfs.compression},"
        f" version {'.'.join(map(str, squashfs.version))}, blocks of {size(squashfs.block_size)}"
    )
    yield f"network      {source.network}"
    for kernel in source.kernels:
        image, initramfs = kernel.kernel, kernel.initramfs
        stub = "with" if image.efi_stub else "without"
        yield (
            f"kernel       {kernel.iso.path}: Linux {image.version or 'of unknown version'},"
            f" {image.machine}, {image.image}, {size(image.bytes)}, {stub} EFI stub"
        )
        yield (
            f"initramfs    {kernel.iso.initramfs}: {initramfs.generator} {initramfs.version},"
            f" {initramfs.compression}, {size(initramfs.bytes)},"
            f" {size(initramfs.unpacked_bytes)} unpacked"
        )
        if initramfs.modules:
            yield f"  modules    {' '.join(initramfs.modules)}"
        for mode, root in ROOTS.items():
            obstacle = root.find_way(kernel, squashfs, tools).obstacle
            yield f"  root       {mode}: {f'no; {obstacle}' if obstacle else 'yes'}"
        if trees := kernel.device_trees:
            yield f"  trees      {trees.folder}: {len(trees.files)} files"
        yield f"  config     {'read' if kernel.config is not None else 'not in the image'}"
        yield f"  arguments  {' '.join(kernel.iso.arguments) or 'none'}"
        for entry in kernel.iso.entries:
            extra = f"  (+ {' '.join(entry.extra)})" if entry.extra else ""
            yield f"  entry      {entry.title}{extra}"
    for memtest, count in source.memtests:
        yield f"memtest      {memtest.path}: {memtest.firmware}, {memtest.bits} bit, {size(count)}"
    yield f"timeout      {'none' if source.timeout is None else f'{source.timeout} s'}"
    for line in source.left_out:
        yield f"left out     {line}"


def source_data(source: Source, tools: Tools | NoTools) -> dict[str, Any]:
    """Return what `source_lines` says, as data for JSON."""
    return {
        "root": str(source.root),
        "squashfs": {
            "path": source.squashfs.path.name,
            "bytes": source.squashfs.bytes,
            "compression": source.squashfs.compression,
            "version": ".".join(map(str, source.squashfs.version)),
            "block_size": source.squashfs.block_size,
        },
        "network": {"service": source.network.service, "unknown": source.network.why},
        "kernels": [
            {
                "name": kernel.iso.name,
                "path": kernel.iso.path,
                "bytes": kernel.kernel.bytes,
                "machine": kernel.kernel.machine,
                "image": str(kernel.kernel.image),
                "version": kernel.kernel.version,
                "efi_stub": kernel.kernel.efi_stub,
                "config": kernel.config is not None,
                "arguments": list(kernel.iso.arguments),
                "entries": [
                    {"title": entry.title, "extra": list(entry.extra)}
                    for entry in kernel.iso.entries
                ],
                "initramfs": {
                    "path": kernel.iso.initramfs,
                    "bytes": kernel.initramfs.bytes,
                    "unpacked_bytes": kernel.initramfs.unpacked_bytes,
                    "generator": str(kernel.initramfs.generator),
                    "version": kernel.initramfs.version,
                    "compression": str(kernel.initramfs.compression),
                    "modules": list(kernel.initramfs.modules),
                },
                "roots": [
                    str(mode)
                    for mode, root in ROOTS.items()
                    if root.find_way(kernel, source.squashfs, tools).obstacle is None
                ],
            }
            for kernel in source.kernels
        ],
        "memtests": [
            {
                "title": memtest.title,
                "path": memtest.path,
                "firmware": str(memtest.firmware),
                "bits": memtest.bits,
                "bytes": count,
            }
            for memtest, count in source.memtests
        ],
        "timeout": source.timeout,
        "time": source.time,
        "left_out": list(source.left_out),
    }


def plan_lines(plan: Plan) -> Iterator[str]:
    """Say what a build would do."""
    spec = plan.spec
    yield f"source   {spec.source}"
    yield f"output   {spec.output}"
    yield f"title    {plan.menu.title}"
    yield f"timeout  {'none' if plan.menu.timeout is None else f'{plan.menu.timeout} s'}"
    yield f"loaders  {' '.join(spec.loaders)}"
    for file in plan.files:
        if file.role is not Role.DEVICE_TREE:
            yield f"file     {file.path}  {file.role}, {size(file.bytes)}, {spec.link}"
    # There may be more than a thousand.
    if trees := [file.bytes for file in plan.files if file.role is Role.DEVICE_TREE]:
        yield f"files    {len(trees)} {Role.DEVICE_TREE}s, {size(sum(trees))}, {spec.link}"
    for made in plan.made:
        yield f"file     {made.path}  {made.role}, {size(len(made.content))}, made"
    for stream in plan.streams:
        yield f"file     {stream.path}  {Role.STREAM}, made of {stream.modules} and nbdkit"
    if plan.streams:
        name = plan.source.squashfs.path.name
        yield f"file     {hash_tree_path(name)}  {Role.HASH_TREE}, sha256 of {name}"
    for uki in plan.ukis:
        yield f"file     {uki.path}  {Role.UKI}, {size(uki.bytes)}, made for {uki.entry}"
    if plan.personal:
        yield f"file     {PERSONAL}  {Role.PERSONAL}, {plan.personal}"
    for kernel in plan.unpacked:
        yield f"file     {kernel.path}  {kernel.role}, unpacked from {Path(kernel.packed).name}"
    for joined in plan.joined:
        parts = " + ".join(joined.parts)
        yield f"file     {joined.path}  {joined.role}, {size(joined.bytes)}, {parts}"
    for loader in plan.loaders.found:
        yield f"file     {loader.path}  loader, {loader.loader} {loader.version or ''}".rstrip()
    yield f"file     {MANIFEST} {' '.join(sum_files(spec.digests))}  made last"
    for entry in plan.menu.live:
        mark = "*" if entry is plan.menu.live[0] else " "
        yield f"entry   {mark}{entry.title}"
        yield f"         {entry.kernel} {' '.join(entry.arguments)}"
    entries = menu_entries(plan)
    for line in limit_lines(entries):
        yield f"limits   {line}"
    for memtest in plan.menu.memtests:
        yield f"entry    {memtest.title} ({memtest.firmware} only)"
    for line in plan.notes:
        yield f"note     {line}"
    for line in plan.left_out:
        yield f"left out {line}"
    for missing in plan.loaders.missing:
        yield f"missing  {missing.path}  of {missing.gentoo} (Debian: {missing.debian})"
    for line in (*plan.warnings, *limit_warnings(entries)):
        yield f"warning  {line}"


def plan_data(plan: Plan) -> dict[str, Any]:
    """Return what `plan_lines` says, as data for JSON."""
    entries = menu_entries(plan)
    copied = [(file.path, file.role, file.bytes) for file in plan.files]
    made = [(file.path, file.role, len(file.content)) for file in plan.made]
    joined = [(file.path, file.role, file.bytes) for file in plan.joined]
    personal = [(PERSONAL, Role.PERSONAL, None)] if plan.personal else []
    personal += [(host.archive, Role.PERSONAL, None) for host in plan.menu.hosts if host.archive]
    ukis = [(file.path, Role.UKI, file.bytes) for file in plan.ukis]
    unpacked = [(file.path, file.role, None) for file in plan.unpacked]
    loaders = [(file.path, Role.LOADER, None) for file in plan.loaders.found]
    return {
        "source": str(plan.spec.source),
        "output": str(plan.spec.output),
        "title": plan.menu.title,
        "timeout": plan.menu.timeout,
        "loaders": [str(loader) for loader in plan.spec.loaders],
        "files": [
            {"path": path, "role": str(role), "bytes": count}
            for path, role, count in (
                *copied,
                *made,
                *joined,
                *unpacked,
                *personal,
                *ukis,
                *loaders,
            )
        ],
        "entries": encode(entries),
        "notes": list(plan.notes),
        "left_out": list(plan.left_out),
        "missing": [file.path for file in plan.loaders.missing],
        "warned": [*plan.warnings, *limit_warnings(entries)],
    }


def tree_lines(tree: Path, manifest: Manifest) -> Iterator[str]:
    """Yield what a netboot tree offers, by its manifest."""
    menu = manifest.menu
    yield f"netboot tree {tree}"
    yield f"title        {manifest.release.title}"
    yield f"made for     {manifest.release.arch}, at {manifest.release.time}"
    yield f"squashfs     {manifest.squashfs.path}: {size(manifest.squashfs.bytes)}"
    yield f"files        {len(manifest.files)}"
    for file in manifest.files:
        if file.role is Role.PERSONAL:
            yield f"personal     {file.path}: {file.origin}"
    for entry in menu.entries:
        mark = "*" if entry.name == menu.default else " "
        root = f"  root: {entry.root}" if entry.root else ""
        checked = ", checked" if entry.checked else ""
        yield f"entry       {mark}{entry.title}{root}{checked}"
    yield ""
    yield from limit_lines(menu.entries)
    yield ""
    for line in limit_warnings(menu.entries):
        yield f"warning      {line}"
    for kind, loader in manifest.loaders.items():
        if loader.missing:
            yield f"missing      {kind}: {' '.join(loader.missing)}"
    for line in manifest.notes:
        yield f"note         {line}"
    for line in manifest.left_out:
        yield f"left out     {line}"


def built_lines(built: Built) -> Iterator[str]:
    """Sum up a finished build."""
    payload = [file for file in built.files if file.role in PAYLOAD]
    copied = sum(file.written for file in payload)
    yield f"Published {built.output} in {built.seconds:.1f} s"
    count = sum(file.bytes for file in payload)
    how = "all copied" if copied == count else f"{size(copied)} of it copied, the rest linked"
    yield f"{len(payload)} payload files of {size(count)}, {how}"
    loaders = [file.path for file in built.files if file.role is Role.LOADER]
    yield f"Loaders: {' '.join(loaders) or 'none'}"


def built_data(built: Built) -> dict[str, Any]:
    """Return what a finished build came to, as data for JSON."""
    return {
        "output": str(built.output),
        "seconds": round(built.seconds, 3),
        "files": [
            {
                "path": file.path,
                "role": str(file.role),
                "bytes": file.bytes,
                "written": file.written,
                "origin": file.origin,
            }
            for file in built.files
        ],
        "left_out": list(built.left_out),
        "missing": list(built.missing),
    }


def built_warnings(built: Built) -> Iterator[str]:
    """Say what a finished build lacks."""
    yield from built.warnings
    for line in built.left_out:
        yield f"left out: {line}"
    for line in built.missing:
        yield f"not found: {line}"
