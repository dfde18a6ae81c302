"""The ASGI app in front of yours."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Unpack

from asgi_llm_gate.auth import presented_key
from asgi_llm_gate.config import Keywords, load_settings
from asgi_llm_gate.endpoints import DENY, PASS, WEBSOCKETS, Endpoint, Routes, not_inspected
from asgi_llm_gate.errors import GateError, error_answer, intended
from asgi_llm_gate.exchange import Exchange
from asgi_llm_gate.head import Head
from asgi_llm_gate.lifespan import Lifespan
from asgi_llm_gate.model_access import check_access
from asgi_llm_gate.plan import Plan
from asgi_llm_gate.rejections import as_error
from asgi_llm_gate.socket import Socket, as_http, deny, identified

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

_WRITES = frozenset({"POST", "PUT", "PATCH"})


class LLMGate:
    """Run call hooks before, beside and after the LLM calls of any ASGI app.

    What is no LLM call passes through untouched.

    Args:
        app: The ASGI app to guard; a `Forwarder` for an upstream server.
        config: The path of a YAML file, or the same as a mapping.
        settings: Every setting of the file under its own name; a keyword wins over the file, and `callbacks` add up.
            With neither, the file named by the environment variable ``ASGI_LLM_GATE_CONFIG`` is used if it is set.

    Raises:
        ConfigError: A setting is wrong, or a callback can't be loaded; one line that says which.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        **settings: Unpack[Keywords],
    ) -> None:
        self.app = app
        self.settings = load_settings(config, settings)
        self._plan = Plan.of(app, self.settings)
        self._lifespan = Lifespan(self._plan)
        self._routes = Routes(paths=self.settings.paths)
        self._websockets = Routes(WEBSOCKETS)
        self._has_auth = self._plan.authenticator.required
        # An upstream has no public pages: with a key to check, nothing reaches it without.
        self._checks_all = self._has_auth and _is_forwarder(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "lifespan" and self._lifespan:
            await self._lifespan.run(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            endpoint = self._routes.find(scope["path"], scope.get("root_path", ""))
            if endpoint is None and self.settings.strict:
                self._check_known(scope)
        except GateError as error:
            await error_answer(error).send(send)
            return
        if endpoint is not None and not self._passes(endpoint):
            await Exchange(self._plan, endpoint, scope, receive, send).run()
        elif not self._checks_all and (endpoint is None or not self._has_auth):
            await self.app(scope, receive, send)
        else:
            await self._authenticated(endpoint, scope, receive, send)

    async def _authenticated(self, endpoint: Endpoint | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, for a caller with the right key, what no hook looks at."""
        head = Head.of(scope)
        try:
            if not head.is_preflight:
                head.check_single()
                caller = await self._plan.authenticator.caller(scope, presented_key(head.named))
                if self._may_run_model(endpoint, scope):
                    # Nobody reads which.
                    check_access(caller, (), {})
        except Exception as exc:
            error = intended(exc)
            if error is None:
                raise
            await error_answer(error).send(send)
            return
        await self.app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            endpoint = self._websockets.find(scope["path"], scope.get("root_path", ""))
        except GateError as error:
            await deny(scope, receive, send, error)
            return
        if endpoint is None or self._passes(endpoint):
            await self._pass_websocket(endpoint, scope, receive, send)
        elif endpoint.dialogue is None or endpoint.policy(self.settings.policies) == DENY:
            await deny(scope, receive, send, not_inspected(endpoint))
        else:
            await Socket(self._plan, endpoint.dialogue, scope, receive, send).run()

    async def _pass_websocket(self, endpoint: Endpoint | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, for a caller with the right key where one is asked for, a socket that no hook looks at."""
        if endpoint is not None and self._has_auth:
            request = as_http(scope)
            try:
                check_access(await identified(self._plan.authenticator, request, Head.of(request)), (), {})
            except Exception as exc:
                await deny(scope, receive, send, as_error(exc))
                return
        await self.app(scope, receive, send)

    def _may_run_model(self, endpoint: Endpoint | None, scope: Scope) -> bool:
        """Tell whether a request that passes unseen may run a model."""
        if scope["method"].upper() not in _WRITES:
            return False
        if endpoint is None:
            return not self._routes.is_known(scope["path"])
        return endpoint.model is not None or endpoint.call_type == "batches"

    def _check_known(self, scope: Scope) -> None:
        if scope["method"].upper() in _WRITES and self._routes.is_unknown_api(scope["path"]):
            message = "This gate lets no calls through that it does not know; the setting `paths` can make them known"
            raise GateError(403, message, code="unknown_endpoint")

    def _passes(self, endpoint: Endpoint) -> bool:
        return endpoint.policy(self.settings.policies) == PASS


def _is_forwarder(app: ASGIApp) -> bool:
    # Not imported for this: it takes an HTTP client's library, and where nobody has imported it, no app is one.
    module = sys.modules.get("asgi_llm_gate.forwarder")
    return module is not None and isinstance(app, module.Forwarder)
