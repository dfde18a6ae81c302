"""``banned_keywords``: calls and answers in which a keyword stands are refused."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, UserAPIKeyAuth, get_formatted_prompt
from asgi_llm_gate.builtin.wordlist import words

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

# Characters that are drawn as nothing, and so can hide a keyword.
_INVISIBLE = re.compile(r"[\u00ad\u034f\u061c\u115f\u1160\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_SPACES = re.compile(r"\s+")

# Under which names an answer has text, or objects that do.
_TEXTS = frozenset(
    {
        *("arguments", "audio", "choices", "content", "custom", "function", "function_call", "input", "message"),
        *("output", "reasoning", "reasoning_content", "refusal", "summary", "text", "thinking", "tool_calls"),
        "transcript",
    }
)


class BannedKeywords(CallHooks):
    """Refuse calls in which a keyword stands, and answers, streamed or not.

    A keyword counts wherever it stands, also within a word, in capitals or small letters, in any of the forms that
    Unicode has for its letters, and with any spaces between its words.

    Args:
        keywords: The keywords.
        file: The path of a file with more of them, one a line.

    Raises:
        ValueError: There is no keyword, or the file can't be read; the message begins with the option's name.
    """

    streaming_channels = ("text", "tool_calls", "refusal", "reasoning")

    def __init__(self, *, keywords: Sequence[str] = (), file: str | os.PathLike[str] | None = None) -> None:
        given = words("keywords", keywords, file)
        self._keywords = {_plain(keyword): keyword for keyword in given}
        if not given or "" in self._keywords:
            raise ValueError("keywords: expected at least one, here or in a file, and none that is invisible")
        # A stream is held back by the longest; its letters may take more characters than the plain ones.
        self.streaming_window = 2 * max(map(len, given)) + 16

    async def async_pre_call_hook(
        self,
        user_api_key_dict: UserAPIKeyAuth,  # noqa: ARG002  # the hook's signature
        cache: Any,  # noqa: ARG002
        data: dict[str, Any],
        call_type: Any,
    ) -> None:
        """Refuse a call with a keyword in its text."""
        keyword = self._found(get_formatted_prompt(data, call_type))
        if keyword is not None:
            raise _refusal(f"Keyword banned: {keyword}")

    async def async_post_call_success_hook(
        self,
        data: dict[str, Any],  # noqa: ARG002
        user_api_key_dict: UserAPIKeyAuth,  # noqa: ARG002
        response: Any,
    ) -> None:
        """Refuse an answer with a keyword in its text."""
        if any(self._found(text) is not None for text in _texts(response)):
            raise _refusal("The answer has a banned keyword in it")

    async def async_post_call_streaming_hook(
        self,
        user_api_key_dict: UserAPIKeyAuth,  # noqa: ARG002
        response: str,
    ) -> None:
        """End a stream before a keyword in its text."""
        if self._found(response) is not None:
            raise _refusal("The answer has a banned keyword in it")

    def _found(self, text: str) -> str | None:
        plain = _plain(text)
        return next((keyword for banned, keyword in self._keywords.items() if banned in plain), None)


def _plain(text: str) -> str:
    """Return a text in the one form in which texts are compared."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold()))
    return _SPACES.sub(" ", text.lower())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in _TEXTS:
                yield from _texts(item)


def _refusal(message: str) -> HTTPException:
    detail: Any = {"error": {"message": message, "code": "content_policy_violation"}}
    return HTTPException(400, detail)
