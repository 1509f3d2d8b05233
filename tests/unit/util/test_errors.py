"""Errors of this project: one line each."""

from __future__ import annotations

import importlib

import pytest

from catalyst_pxeboot.util.errors import PxebootError, from_system, needs_extra


def test_a_missing_extra_is_named() -> None:
    with pytest.raises(PxebootError) as caught, needs_extra("sign", "pxeboot/sign_cert"):
        importlib.import_module("no_such_package")
    assert str(caught.value) == (
        "pxeboot/sign_cert: the Python package no_such_package is missing;"
        " install it, or all of catalyst-pxeboot[sign]"
    )


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "not enough memory"),
        # CPython's import, where memory ends
        (SystemError("error return without exception set"), "not enough memory"),
        (RuntimeError("can't start new thread"), "no thread can be started"),
        (OSError(28, "No space left on device", "/tmp/x"), "/tmp/x: No space left on device"),
    ],
)
def test_what_the_machine_refuses(error: Exception, says: str) -> None:
    assert from_system(error).message == says


@pytest.mark.parametrize("error", [RuntimeError("a bug"), SystemError("bad argument")])
def test_a_bug_stays_one(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        from_system(error)
