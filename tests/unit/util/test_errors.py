"""Errors of this project: one line each."""

from __future__ import annotations

import importlib

import pytest

from catalyst_pxeboot.util.errors import PxebootError, needs_extra


def test_a_missing_extra_is_named() -> None:
    with pytest.raises(PxebootError) as caught, needs_extra("sign", "pxeboot/sign_cert"):
        importlib.import_module("no_such_package")
    assert str(caught.value) == (
        "pxeboot/sign_cert: the Python package no_such_package is missing;"
        " install it, or all of catalyst-pxeboot[sign]"
    )
