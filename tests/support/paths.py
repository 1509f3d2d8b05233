"""Where the checkout's folders are."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
DATA = TESTS / "data"
#: The golden trees, the exports of two of them, and the menu over many trees.
GOLDEN = TESTS / "golden/cases"
GOLDEN_EXPORTS = TESTS / "golden/exports"
GOLDEN_MENU = TESTS / "golden/menu"
STANDIN = TESTS / "integration/standin"
CACHE = Path(os.environ.get("PXEBOOT_CACHE", ROOT / ".cache"))
