"""A test without its service is passed over only where that is allowed."""

from __future__ import annotations

import pytest

from tests.services import missing, require


@pytest.mark.parametrize(("required", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_a_missing_service_is_not_passed_over(monkeypatch, required, outcome):
    """The test is skipped, and failed where services are required; either way the reason is said."""
    monkeypatch.setenv("LLM_GATE_REQUIRE_SERVICES", required)
    with pytest.raises(outcome, match="NOT RUN: the service"):
        missing("NOT RUN: the service")


def test_a_program_is_looked_for(monkeypatch):
    """The one that is not there is named."""
    monkeypatch.setenv("LLM_GATE_REQUIRE_SERVICES", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        require("sh", "no-such-program")
