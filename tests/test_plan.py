"""A gate's plan: the hooks of each stage, found once, and what calls need because of them."""

from __future__ import annotations

import pytest

from asgi_llm_gate import CallHooks, DualCache
from asgi_llm_gate.callhooks import STAGES
from asgi_llm_gate.plan import LogHooks, Plan
from asgi_llm_gate.settings import Settings
from tests.harness import Upstream

# Of each hook: the plan's stage, whether calls carry what hooks look for, and whether a call's end is watched.
STAGE = {
    "async_pre_call_hook": ("pre_call", True, False),
    "async_moderation_hook": ("moderation", True, True),
    "async_post_call_success_hook": ("success", True, False),
    "async_post_call_streaming_hook": ("text", True, True),
    "async_post_call_streaming_iterator_hook": ("iterator", True, True),
    "async_post_call_failure_hook": ("failure", True, True),
    "async_post_call_response_headers_hook": ("headers", True, False),
    "async_post_call_ended_hook": ("ended", True, True),
    "async_log_pre_api_call": ("pre_api_call", True, True),
    "async_log_stream_event": ("stream_event", True, True),
    "async_log_success_event": ("success_event", True, True),
    "async_log_failure_event": ("failure_event", True, True),
    "log_pre_api_call": ("pre_api_call", True, True),
    "log_stream_event": ("stream_event", True, True),
    "log_success_event": ("success_event", True, True),
    "log_failure_event": ("failure_event", True, True),
}


class Callback(CallHooks):
    """A callback with the methods it is named."""

    def __init__(self, *methods):
        for method in methods:
            setattr(self, method, self._hook)

    async def _hook(self):
        """Do nothing."""


def plan_of(*callbacks, **settings):
    return Plan.of(Upstream(), Settings(callbacks=callbacks, **settings))


def filled(plan):
    """The stages that have hooks."""
    stages = ("pre_call", "moderation", "success", "text", "iterator", "failure", "headers", "ended")
    events = ("pre_api_call", "stream_event", "success_event", "failure_event")
    return [name for name in stages if getattr(plan, name)] + [name for name in events if getattr(plan.log, name)]


def test_the_table_has_every_hook():
    assert set(STAGE) == set(STAGES)


@pytest.mark.parametrize("method", STAGE)
def test_a_hook_stands_in_its_stage_and_costs_only_what_it_needs(method):
    stage, has_hooks, watches = STAGE[method]
    plan = plan_of(Callback(method))
    assert filled(plan) == [stage]
    assert (plan.has_hooks, plan.watches) == (has_hooks, watches)


def test_a_callback_that_overrides_nothing_costs_nothing():
    plan = plan_of(CallHooks(), object())
    assert filled(plan) == []
    assert (plan.has_hooks, plan.watches, bool(plan.log)) == (False, False, False)
    assert not LogHooks()


@pytest.mark.parametrize("event", ["pre_api_call", "stream_event", "success_event", "failure_event"])
def test_a_synchronous_twin_counts_only_in_a_callback_without_the_asynchronous_one(event):
    callbacks = [
        Callback(f"log_{event}"),
        Callback(f"async_log_{event}", f"log_{event}"),
        Callback(f"async_log_{event}"),
    ]
    assert [(hook.callback, hook.name) for hook in getattr(plan_of(*callbacks).log, event)] == [
        (callbacks[0], f"Callback.log_{event}"),
        (callbacks[1], f"Callback.async_log_{event}"),
        (callbacks[2], f"Callback.async_log_{event}"),
    ]


def test_an_asynchronous_method_counts_wherever_it_is_inherited_from():
    class Base(CallHooks):
        async def async_log_success_event(self):
            """Do nothing."""

    class Child(Base):
        def log_success_event(self):
            """Do nothing."""

    assert [hook.name for hook in plan_of(Child()).log.success_event] == ["Child.async_log_success_event"]


def test_hooks_stand_in_the_order_of_the_callbacks_with_the_settings_or_their_own():
    own = Callback("async_pre_call_hook")
    own.hook_timeout, own.on_hook_error = 1.5, "reject"
    plan = plan_of(Callback("async_pre_call_hook"), own, hook_timeout=7.0, on_hook_error="allow")
    assert [(hook.timeout, hook.on_error) for hook in plan.pre_call] == [(7.0, "allow"), (1.5, "reject")]


def test_a_log_hooks_failure_never_refuses():
    (hook,) = plan_of(Callback("async_log_success_event"), on_hook_error="reject").log.success_event
    assert hook.on_error == "allow"


def test_a_plan_has_the_settings_cache_or_one_of_its_own():
    cache = DualCache()
    assert plan_of(cache=cache).cache is cache
    assert plan_of().cache is not plan_of().cache


def test_gates_count_their_pending_events_apart():
    assert plan_of().pending is not plan_of().pending
