"""The ASGI app in front of yours."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Unpack

from asgi_llm_gate.auth import authenticate, presented_key
from asgi_llm_gate.body import Head
from asgi_llm_gate.config import Keywords, load_settings
from asgi_llm_gate.endpoints import DENY, PASS, WEBSOCKETS, Endpoint, Routes, not_inspected
from asgi_llm_gate.errors import GateError, error_answer, intended
from asgi_llm_gate.exchange import Exchange
from asgi_llm_gate.forwarder import Forwarder
from asgi_llm_gate.lifespan import Lifespan
from asgi_llm_gate.plan import Plan
from asgi_llm_gate.socket import Socket, deny

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger("asgi_llm_gate")


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
        self._has_auth = bool(self.settings.master_key or self.settings.custom_auth)
        # An upstream has no public pages: with a key to check, nothing reaches it without.
        self._checks_all = self._has_auth and isinstance(app, Forwarder)

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
            await self._authenticated(scope, receive, send)

    async def _authenticated(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, for a caller with the right key, what no hook looks at."""
        head = Head.of(scope)
        try:
            if not head.is_preflight:
                head.check_single()
                key, settings = presented_key(head.named), self.settings
                await authenticate(scope, key, settings.master_key, settings.custom_auth, timeout=settings.hook_timeout)
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
            await self.app(scope, receive, send)
        elif endpoint.dialogue is None or endpoint.policy(self.settings.policies) == DENY:
            await deny(scope, receive, send, not_inspected(endpoint))
        else:
            await Socket(self._plan, endpoint.dialogue, scope, receive, send).run()

    def _check_known(self, scope: Scope) -> None:
        if scope["method"].upper() in {"POST", "PUT", "PATCH"} and self._routes.is_unknown_api(scope["path"]):
            message = "This gate lets no calls through that it does not know; the setting `paths` can make them known"
            raise GateError(403, message, code="unknown_endpoint")

    def _passes(self, endpoint: Endpoint) -> bool:
        return endpoint.policy(self.settings.policies) == PASS
