"""The keys, users and teams of a configuration: who a key stands for, and what limits hold for a caller."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.auth import UserAPIKeyAuth

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_LIMITS = ("max_parallel_requests", "rpm_limit", "tpm_limit")


def has_limits(entry: Mapping[str, Any]) -> bool:
    """Tell whether an entry of the keys, users or teams limits how often it may call."""
    metadata = entry.get("metadata") or {}
    return any(name in entry or f"model_{name}" in metadata for name in _LIMITS)


class Keys:
    """Keys by their SHA-256.

    Args:
        keys: The setting `keys`.
    """

    def __init__(self, keys: Iterable[Mapping[str, Any]]) -> None:
        self._by_digest = {key["api_key_sha256"]: _caller_fields(key) for key in keys}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_digest)

    def caller(self, digest: str) -> UserAPIKeyAuth | None:
        """Return who presents a key of some SHA-256, as an object of the call's own; None if it is no key.

        A look-up takes time by how much of two digests agrees, and that tells nothing: a digest can't be steered
        towards another one, nor led back to its key.
        """
        fields = self._by_digest.get(digest)
        return None if fields is None else UserAPIKeyAuth(**copy.deepcopy(fields))


def _caller_fields(key: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(key)
    fields["api_key"] = fields.pop("api_key_sha256")
    return {**fields, "models": list(fields.get("models", ()))}


class Limits:
    """What users and teams may do, whoever has found out who calls.

    Args:
        users: The setting `users`.
        teams: The setting `teams`.
    """

    def __init__(self, users: Mapping[str, Mapping[str, Any]], teams: Mapping[str, Mapping[str, Any]]) -> None:
        self._by_kind = tuple(
            (f"{kind}_id", {name: _prefixed(kind, limits) for name, limits in known.items()})
            for kind, known in (("user", users), ("team", teams))
            if known
        )

    def add_to(self, caller: UserAPIKeyAuth) -> None:
        """Set what a caller lacks of them: `user_rpm_limit`, `team_metadata` and so on."""
        for id_name, known in self._by_kind:
            limits = known.get(str(getattr(caller, id_name, None)))
            if limits is not None:
                held = vars(caller)  # LiteLLM's own class lets none be set that it does not declare
                held.update(copy.deepcopy({name: limit for name, limit in limits.items() if held.get(name) is None}))


def _prefixed(kind: str, limits: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{kind}_{name}": value for name, value in limits.items()}
