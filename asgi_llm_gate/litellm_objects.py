"""LiteLLM's own response objects, for handlers that imported an installed LiteLLM and test what they are given by type.

An object stands in for a record while one hook has it. What the hook changed is what its `model_dump` says after the
hook and not before; that alone is changed in the record, so that nothing is lost or added on the wire.
"""

from __future__ import annotations

import sys
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.record import Record, as_record

if TYPE_CHECKING:
    from collections.abc import Mapping

# The class of each kind of whole response and of each kind of chunk, by the endpoint's call type.
_WHOLE: Mapping[str, str] = {
    "completion": "ModelResponse",
    "text_completion": "TextCompletionResponse",
    "embeddings": "EmbeddingResponse",
    "image_generation": "ImageResponse",
}
_CHUNK: Mapping[str, str] = {"completion": "ModelResponseStream", "text_completion": "TextCompletionResponse"}

# Under which name an object, and each copy of it, knows the record that it stands for.
_RECORD = "_asgi_llm_gate_record"


class Objects:
    """What hooks of one callback are given in the place of records: LiteLLM's objects, or the records themselves.

    Args:
        callback: Whose hooks they are.
        call_type: The endpoint's.
    """

    __slots__ = ("_chunk", "_whole")

    def __init__(self, callback: object, call_type: str) -> None:
        module = _litellm_of(callback)
        self._whole = _class(module, _WHOLE.get(call_type))
        self._chunk = _class(module, _CHUNK.get(call_type))

    def whole(self, record: Any) -> Any:
        """Return what stands for a whole response."""
        return _object(self._whole, record)

    def chunk(self, record: Any) -> Any:
        """Return what stands for a chunk of a stream."""
        return _object(self._chunk, record)


def record_of(value: Any, kind: type[Record]) -> Any:
    """Return the record that a hook's object stands for, with what the hook changed; other values as `as_record` does.

    The record that was given out is left as it was.
    """
    stands_for = None if isinstance(value, Record) else getattr(value, "__dict__", {}).get(_RECORD)
    if stands_for is None:
        return as_record(value, kind)
    record, before = stands_for
    changed = _patched(record, before, _dump(value))
    if changed is record:
        return record
    fresh = as_record(changed, kind)
    vars(fresh).update(vars(record))
    return fresh


def record_left(value: Any, kind: type[Record]) -> Any:
    """Do so for what a hook was given and has changed: a record is that already."""
    return value if isinstance(value, Record) else record_of(value, kind)


def _litellm_of(callback: object) -> ModuleType | None:
    """Return the installed LiteLLM that a callback's file has imported, or None."""
    module = sys.modules.get("litellm")
    if module is None:
        return None
    handler = getattr(callback, "_native_guardrail", callback)
    modules = {kind.__module__ for kind in type(handler).__mro__}
    return module if any(_is_litellm(name) or _imports_litellm(name) for name in modules) else None


def _is_litellm(name: Any) -> bool:
    return isinstance(name, str) and name.partition(".")[0] == "litellm"


def _imports_litellm(name: str) -> bool:
    module = sys.modules.get(name)
    return module is not None and any(_is_litellm(_module_of(value)) for value in list(vars(module).values()))


def _module_of(value: Any) -> Any:
    """Return the name of the module that a value is, or was defined in."""
    return getattr(value, "__name__" if isinstance(value, ModuleType) else "__module__", None)


def _class(module: ModuleType | None, name: str | None) -> Any:
    return None if module is None or name is None else getattr(module, name, None)


def _object(kind: Any, record: Any) -> Any:
    """Return an object that stands for a record; the record itself where LiteLLM can't read it."""
    if kind is None or not isinstance(record, Record):
        return record
    try:
        value = kind(**record.model_dump())
        value.__dict__[_RECORD] = (record, _dump(value))
    except Exception:  # what does not fit its classes is for the handler to read as a record
        return record
    return value


def _dump(value: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic's, of fields that a handler set to other types
        return value.model_dump(mode="json")


def _patched(given: Any, before: Any, after: Any) -> Any:
    """Return what was given with the differences between two dumps of its object."""
    if after == before:
        return given
    if isinstance(given, dict) and isinstance(before, dict) and isinstance(after, dict):
        kept = {name: value for name, value in given.items() if name in after or name not in before}
        for name, value in after.items():
            if name not in before or value != before[name]:
                kept[name] = _patched(given.get(name), before.get(name), value)
        return kept
    if isinstance(given, list) and isinstance(before, list) and isinstance(after, list) and len(given) == len(before):
        return _patched_list(given, before, after)
    return after


def _patched_list(given: list[Any], before: list[Any], after: list[Any]) -> list[Any]:
    """Do so for lists: item by item, or where some came or went, by what is the same."""
    if len(after) == len(before):
        return [_patched(*items) for items in zip(given, before, after, strict=True)]
    return [next((g for g, b in zip(given, before, strict=True) if b == item), item) for item in after]
