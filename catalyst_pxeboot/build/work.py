"""What a build has begun before it knows what to build."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.formats.verity import HashTreeBuilder
from catalyst_pxeboot.model.files import TreeFile


@dataclass(frozen=True, slots=True)
class Work:
    """The folder `staging` that is filled, and the live root on its way there.

    `hash_tree` is fed with the live root if that may be streamed. The thread that stages this gives
    up as soon as `stack` is left, before the threads `beside` are waited for: they may wait for it.
    """

    stack: ExitStack
    staging: Path
    beside: ThreadPoolExecutor
    staged_root: Future[TreeFile]
    hash_tree: HashTreeBuilder
