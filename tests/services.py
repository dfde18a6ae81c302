"""What is said where a real service or program that a test needs is not there."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it where all services must be there."""
    if os.environ.get("LLM_GATE_REQUIRE_SERVICES"):
        pytest.fail(what)
    pytest.skip(what)


def require(*programs: str) -> None:
    """Do the same where one of some programs is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            missing(f"NOT RUN: {program} is not installed")
