"""The ledger in memory and the limits, as pure functions of what they are given."""

from __future__ import annotations

import pytest

from asgi_llm_gate import UserAPIKeyAuth
from asgi_llm_gate.builtin.ledger import Ledger
from asgi_llm_gate.builtin.limits import Claim, Limit, Standing, Use, limits_of


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def claim(id="call", **most):
    return Claim(id, [Limit(kind, limit, "you", f"{kind}:you") for kind, limit in most.items()])


def test_a_window_begins_with_its_first_call_and_lasts_a_minute():
    clock = Clock()
    ledger = Ledger(clock)
    asks = claim(requests=2)
    found = []
    for now in (100, 130, 159.9, 160, 161):
        clock.now = now
        found += ledger.take(asks)
    assert [(use.used, round(use.left, 1)) for use in found] == [(0, 60), (1, 30), (2, 0.1), (0, 60), (1, 59)]


def test_tokens_count_from_the_call_that_has_spent_the_first():
    clock = Clock()
    ledger = Ledger(clock)
    asks = claim(tokens=10)
    assert ledger.take(asks) == [Use(0)]
    clock.now = 150
    ledger.give(asks, 9)
    ledger.give(asks, 0)
    assert ledger.take(asks) == [Use(9, 60)]
    ledger.give(asks, 5)
    clock.now = 209
    assert ledger.take(asks) == [Use(14, 1)]
    clock.now = 210
    assert ledger.take(asks) == [Use(0)]


def test_a_slot_is_given_back_once_however_often_it_is_said():
    ledger = Ledger()
    first, second, third = (claim(name, slots=2) for name in "abc")
    assert [ledger.take(each)[0].used for each in (first, second, third)] == [0, 1, 2]
    for _ in range(3):
        ledger.give(first, 0)
        ledger.give(third, 0)
    assert [ledger.take(each)[0].used for each in (third, first)] == [1, 2]


def test_nothing_is_kept_of_what_is_over():
    """However many callers there have been."""
    clock = Clock()
    ledger = Ledger(clock)
    for number in range(50):
        clock.now += 10
        limits = [Limit(kind, 5, "you", f"{kind}:{number}") for kind in ("slots", "requests", "tokens")]
        asks = Claim(str(number), limits)
        ledger.take(asks)
        ledger.give(asks, 3)
    assert ledger._slots == {}
    assert len(ledger._windows) <= 12


DURATIONS = {0.0: "0s", 0.0004: "0s", 0.006: "6ms", 0.9994: "999ms", 1.0: "1s", 55.492: "55.492s", 59.9999: "60s"}


@pytest.mark.parametrize("seconds", DURATIONS)
def test_times_are_written_as_openai_does(seconds):
    standing = Standing([Limit("requests", 5, "you", "k")], [Use(1, seconds)])
    assert standing.headers() == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": DURATIONS[seconds],
    }


def test_of_equal_limits_the_one_that_lasts_longer_is_told():
    limits = [Limit("tokens", 5, "you", "a"), Limit("tokens", 5, "you", "b")]
    assert Standing(limits, [Use(1, 20), Use(1, 30)]).headers()["x-ratelimit-reset-tokens"] == "30s"


def test_a_caller_without_limits_has_none():
    assert limits_of(UserAPIKeyAuth(api_key="sk-1", user_id="u", metadata={"model_rpm_limit": {"a": 1}}), "b") == ()
    assert limits_of(UserAPIKeyAuth(metadata={"model_rpm_limit": 5}), "b") == ()
    assert limits_of(UserAPIKeyAuth(metadata={"model_rpm_limit": {"a": 1}}), None) == ()


def test_each_limit_has_a_name_of_its_own_that_tells_nobody_whose_it_is():
    tables = {f"model_{name}": {"a": 1, "b": 2} for name in ("max_parallel_requests", "rpm_limit", "tpm_limit")}
    callers = [
        UserAPIKeyAuth(
            api_key=key, user_id=key, team_id=key, rpm_limit=1, user_rpm_limit=1, team_rpm_limit=1, metadata=tables
        )
        for key in ("sk-1", "sk-2", "half a pair \ud83d", None)
    ]
    names = [limit.key for caller in callers for model in "ab" for limit in limits_of(caller, model)]
    assert len(set(names)) == 4 * (3 + 2 * 3)
    assert not [name for name in names if "sk-" in name or "pair" in name]
