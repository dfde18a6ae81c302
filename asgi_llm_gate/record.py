"""A JSON object that hooks read either way: ``response["choices"]`` and ``response.choices`` are one value."""

from __future__ import annotations

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
    """Return the value with each plain dict in it, at any depth, made a record of that kind.

    Lists are changed in place; objects that offer ``model_dump`` are dumped first.
    """
    if type(value) is dict:
        return kind({name: as_record(item, kind) if type(item) in _PLAIN else item for name, item in value.items()})
    if type(value) is list:
        value[:] = [as_record(item, kind) if type(item) in _PLAIN else item for item in value]
    elif not isinstance(value, Record) and hasattr(value, "model_dump"):
        return as_record(value.model_dump(), kind)
    return value


_PLAIN = frozenset({dict, list})
