"""A JSON object that hooks read either way: ``response["choices"]`` and ``response.choices`` are one value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import orjson


class Record(dict[str, Any]):
    """A decoded JSON object with its items as attributes.

    A field that the wire shape knows but this object lacks reads as None, so that
    ``chunk.choices[0].delta.content`` holds on a finish chunk too. Names that begin with an underscore are
    ordinary attributes and never reach the wire.
    """

    known: ClassVar[frozenset[str]] = frozenset()

    def __getattr__(self, name: str) -> Any:
        if name == "_hidden_params":  # where LiteLLM's handlers keep what is not for the client
            self._hidden_params: dict[str, Any] = {}
            return self._hidden_params
        try:
            return self[name]
        except KeyError:
            if name in self.known:
                return None
            raise AttributeError(f"{type(self).__name__} has no field {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        del self[name]

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, as_record(value, type(self)))

    def update(self, *fields: Any, **more: Any) -> None:
        """Set several fields, from whatever `dict` takes."""
        for name, value in dict(*fields, **more).items():
            self[name] = value

    def __ior__(self, fields: Any) -> Self:  # type: ignore[override,misc]  # narrower than dict's overloads
        self.update(fields)
        return self

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return a field, set to the default if it is missing."""
        if name not in self:
            self[name] = default
        return self[name]

    def model_dump(self, **_options: Any) -> dict[str, Any]:
        """Return a copy in plain dicts and lists."""
        copy: dict[str, Any] = orjson.loads(orjson.dumps(self))
        return copy

    def model_dump_json(self, **_options: Any) -> str:
        """Return the object as compact JSON."""
        return orjson.dumps(self).decode()

    def model_copy(self, *, update: dict[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed, as a pydantic model does."""
        fields = self.model_dump() if deep else dict(self)
        copy: Self = as_record({**fields, **(update or {})}, type(self))
        return copy


def as_record(value: Any, kind: type[Record] = Record) -> Any:
    """Return the value with each plain mapping in it, at any depth, made a record of that kind.

    Records and lists are changed in place; objects that offer ``model_dump`` are dumped first.
    """
    if type(value) is dict:
        value = kind(value)
    if type(value) is list:
        value[:] = [item if type(item) in _SCALARS else as_record(item, kind) for item in value]
    elif isinstance(value, Record):
        for name, item in value.items():
            if type(item) not in _SCALARS:
                dict.__setitem__(value, name, as_record(item, kind))
    elif isinstance(value, Mapping):
        return as_record(dict(value), kind)
    elif hasattr(value, "model_dump"):
        return as_record(value.model_dump(), kind)
    return value


_SCALARS = frozenset({str, int, float, bool, type(None)})
