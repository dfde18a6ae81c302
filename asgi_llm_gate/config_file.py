"""The configuration file: YAML in which no key can get lost."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

_MERGE = "tag:yaml.org,2002:merge"

# A password that is not quoted may begin like an alias or a tag: what the parser quotes of those is not shown.
_QUOTED = re.compile(r"\b(alias|tag|handle) ['\"].*")


class ConfigError(ValueError):
    """A configuration that can't be used, in one line that says where and why."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Escape what would break a line, or a terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is a mistake: the second would silently drop the first."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._looked_at: set[yaml.MappingNode] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Look at the keys before those of ``<<`` come among them, which may well stand here too."""
        if node not in self._looked_at:
            self._looked_at.add(node)
            self._refuse_double_keys(node)
        super().flatten_mapping(node)

    def _refuse_double_keys(self, node: yaml.MappingNode) -> None:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = None if key_node.tag == _MERGE else self.construct_object(key_node, deep=True)
            if key is None or not isinstance(key, Hashable):
                continue
            if key in seen:
                raise _error(key_node, f"{key} stands here twice")
            seen.add(key)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Name the place of what only looks like a date, a number or whatever its tag says."""
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, ValueError) as exc:
            kind = node.tag.rpartition(":")[2]
            raise _error(node, f"this looks like {kind} and is none; text takes quotes") from exc


def _error(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)


def read(path: Path) -> dict[Any, Any]:
    """Return the content of a configuration file.

    Raises:
        ConfigError: There is no such file, it is not YAML in UTF-8, or it is no mapping.
    """
    text = _text(path)
    try:
        content = yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        problem = _QUOTED.sub(r"\1", str(exc.problem))
        raise ConfigError(f"{path}: line {line}: {problem}") from exc
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise ConfigError(f"{path}: line {line}: a character that YAML does not allow") from exc
    except RecursionError as exc:
        raise ConfigError(f"{path}: nested too deep") from exc
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise ConfigError(f"{path}: expected sections at the top, got {found}")
    return content


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not UTF-8 text") from exc
    except ValueError as exc:
        raise ConfigError(f"{path}: no path has such a character") from exc
