"""``blocked_user_check``: calls of some users are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, DualCache, UserAPIKeyAuth
from asgi_llm_gate.builtin.wordlist import words

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

# In front of a user's id, where the cache says that the user is blocked.
CACHE_PREFIX = "blocked_user:"


class BlockedUserCheck(CallHooks):
    """Refuse the calls of users that are blocked.

    A user is who the call says (`user`, or what stands for it) and whom its key belongs to. Blocked are those of the
    list and the file, and those for whom the gate's cache has something true under ``blocked_user:<id>``, as another
    hook may put there.

    Args:
        users: The users' ids; with neither these nor a file, the cache alone says who is blocked.
        file: The path of a file with more of them, one a line.

    Raises:
        ValueError: An option is wrong, or the file can't be read; the message begins with the option's name.
    """

    def __init__(self, *, users: Sequence[str] = (), file: str | os.PathLike[str] | None = None) -> None:
        self._users = frozenset(words("users", users, file))

    async def async_pre_call_hook(
        self,
        user_api_key_dict: UserAPIKeyAuth,
        cache: DualCache,
        data: dict[str, Any],
        call_type: Any,  # noqa: ARG002  # the hook's signature
    ) -> None:
        """Refuse a call of a user that is blocked."""
        caller = user_api_key_dict
        given = (caller.end_user_id, caller.user_id, data.get("user"), data.get("safety_identifier"))
        users = {user.strip() for user in given if isinstance(user, str) and user.strip()}
        if users and (users & self._users or await _is_blocked(cache, users)):
            detail: Any = {"error": {"message": "This user is blocked", "code": "user_blocked"}}
            raise HTTPException(403, detail)


async def _is_blocked(cache: DualCache, users: set[str]) -> bool:
    found = await cache.async_batch_get_cache([f"{CACHE_PREFIX}{user}" for user in users])
    return any(found)
