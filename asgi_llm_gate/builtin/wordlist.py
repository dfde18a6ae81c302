"""Words that are given as a list, in a file, or both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from asgi_llm_gate.builtin import options


def words(option: str, given: Any, file: Any) -> list[str]:
    """Return the words of an option and of the lines of a file, without the spaces around them.

    Args:
        option: The option's name.
        given: What it says: a word, or a list of them.
        file: The path of a UTF-8 file with a word a line, or None. Empty lines do not count.

    Raises:
        ValueError: The option is wrong, or the file can't be read; the message begins with the option's name.
    """
    found = [word.strip() for word in options.names(option, given)]
    if file is not None:
        found += _lines(options.text("file", os.fspath(file) if isinstance(file, os.PathLike) else file))
    return found


def _lines(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as exc:
        raise ValueError(f"file: {exc.strerror}") from exc
    except ValueError as exc:
        raise ValueError("file: no UTF-8 text, or no path") from exc
    return [line.strip() for line in lines if line.strip()]
