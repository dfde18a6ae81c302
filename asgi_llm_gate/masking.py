"""Keys in errors, in the log, and in URLs that hooks are given: a mask stands in their place."""

from __future__ import annotations

import logging
import re
import traceback
from contextvars import ContextVar

logger = logging.getLogger("asgi_llm_gate")

MASK = "***"

# What is shorter is part of too many words, and no secret.
_LEAST = 6

# The keys of OpenAI, Anthropic and LiteLLM, also those that a service has masked in part; and what an authorization
# header holds. They have a digit, which tells them from words.
_LIKE_KEY = re.compile(r"\bsk-[\w*-]{12,}|(?i:(\bbearer\s+))[^\s'\"]{8,}")
_DIGIT = re.compile(r"\d")

# Parameters of a query in which services take a key.
_IN_QUERY = re.compile(r"(?i)(?<![^?&])((?:api[-_]?|auth[-_]?|access[-_]?)?(?:key|token))=[^&]+")

_presented: ContextVar[str | None] = ContextVar("presented_key", default=None)


def keep_secret(key: str | None) -> None:
    """Have a key masked, of whatever kind it is, in what is said of the call that presents it."""
    _presented.set(key)


def mask(text: str) -> str:
    """Return a text with a mask in place of the key that its call presents, and of what looks like one."""
    return _LIKE_KEY.sub(_masked, without(_presented.get(), text))


def _masked(found: re.Match[str]) -> str:
    return f"{found[1] or ''}{MASK}" if _DIGIT.search(found[0]) else found[0]


def without(key: str | None, text: str) -> str:
    """Return a text with a mask in place of one key."""
    return text if key is None or len(key) < _LEAST else text.replace(key, MASK)


def mask_query(url: str) -> str:
    """Return a URL with a mask in place of the keys in its query."""
    return mask(_IN_QUERY.sub(rf"\1={MASK}", url))


def log_crash(exc: Exception, message: str, *args: object) -> None:
    """Log what was raised, with its traceback.

    Where a key stands in that, the masked text goes with the message, and the exception itself is kept from the log.
    """
    trace = "".join(traceback.format_exception(exc))
    masked = mask(trace)
    if masked == trace:
        logger.error(message, *args, exc_info=exc, stacklevel=2)
    else:
        logger.error(f"{message}\n%s", *args, masked.rstrip(), stacklevel=2)
