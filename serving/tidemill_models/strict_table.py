"""Reads a table of parsed TOML or JSON strictly: every key is known, present or defaulted, typed and in range."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tidemill_models.errors import ModelPackageError

T = TypeVar("T")


class StrictTable:
    """One table of the file. Take every key out of it, then call `end`, which refuses what is left.

    All methods raise ModelPackageError with the key's dotted name.
    """

    def __init__(self, value: Any, *, path: str, key: str = "") -> None:
        self._path = path
        self._key = key
        if not isinstance(value, Mapping):
            raise ModelPackageError(f"must be a table, not {_kind(value)}", path=path, key=key)
        self._rest: dict[str, Any] = dict(value)

    def __contains__(self, key: str) -> bool:
        return key in self._rest

    def error(self, key: str, sentence: str) -> ModelPackageError:
        """The error that says `sentence` of `key` in this table."""
        return ModelPackageError(sentence, path=self._path, key=f"{self._key}.{key}" if self._key else key)

    def string(self, key: str, *, max_length: int = 255) -> str:
        """A required string of 1 to `max_length` characters."""
        value = self._take(key)
        if not isinstance(value, str):
            raise self.error(key, f"must be a string, not {_kind(value)}")
        if not 1 <= len(value) <= max_length:
            raise self.error(key, f"must have 1 to {max_length} characters, not {len(value)}")
        return value

    def integer(self, key: str, *, least: int, most: int, default: int | None = None) -> int:
        """An integer from `least` to `most`; required unless there is a default."""
        if default is not None and key not in self._rest:
            return default
        return self._check_integer(key, self._take(key), least, most)

    def optional_integer(self, key: str, *, least: int, most: int) -> int | None:
        """An integer from `least` to `most`, or None where the key is missing."""
        return self._check_integer(key, self._take(key), least, most) if key in self._rest else None

    def flag(self, key: str) -> bool:
        """True or false; false when it is not there."""
        if key not in self:
            return False
        value = self._take(key)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {_kind(value)}")
        return value

    def number(self, key: str, *, least: float, most: float, default: float) -> float:
        """A number from `least` to `most`; an integer is taken as one."""
        value = self._rest.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, f"must be a number, not {_kind(value)}")
        if not least <= value <= most:
            raise self.error(key, f"must be from {least:g} to {most:g}, not {value}")
        return float(value)

    def items(self, key: str, read: Callable[[Any], T | None], what: str, *, max_items: int = 64) -> tuple[T, ...]:
        """A required list of 1 to `max_items` different items; `read` gives None for what is not `what`."""
        values = self._take(key)
        if not isinstance(values, list):
            raise self.error(key, f"must be a list, not {_kind(values)}")
        if not 1 <= len(values) <= max_items:
            raise self.error(key, f"must have 1 to {max_items} items, not {len(values)}")
        read_items: list[T] = []
        for value in values:
            item = read(value)
            if item is None:
                raise self.error(key, f"each item must be {what}, not {str(value)[:64]!r}")
            if item in read_items:
                raise self.error(key, f"has {str(value)[:64]!r} twice")
            read_items.append(item)
        return tuple(read_items)

    def table(self, key: str, *, optional: bool = False) -> "StrictTable":
        """The table under `key`; an empty one where it is optional and missing."""
        value = {} if optional and key not in self._rest else self._take(key)
        return StrictTable(value, path=self._path, key=f"{self._key}.{key}" if self._key else key)

    def names(self) -> tuple[str, ...]:
        """The keys that were not yet taken, in the file's order."""
        return tuple(self._rest)

    def end(self) -> None:
        """Refuse the keys that nobody took."""
        for key in self._rest:
            raise self.error(str(key), "is not a known key")

    def _take(self, key: str) -> Any:
        if key not in self._rest:
            raise self.error(key, "is missing")
        return self._rest.pop(key)

    def _check_integer(self, key: str, value: Any, least: int, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"must be an integer, not {_kind(value)}")
        if not least <= value <= most:
            raise self.error(key, f"must be from {least} to {most}, not {value}")
        return value


def _kind(value: Any) -> str:
    names = {bool: "a boolean", str: "a string", int: "an integer", float: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), f"a {type(value).__name__}")
