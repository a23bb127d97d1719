"""Reading values of a config.json, each fault named with its file and key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping


class ConfigFields:
    """Typed access to a model's configuration; a key may have several spellings."""

    def __init__(self, values: Mapping[str, Any], *, place: str = "config.json") -> None:
        self._values = values
        self._place = place

    def present(self, *keys: str) -> Any:
        """The first value that is there and not null, else None."""
        return next((self._values[key] for key in keys if self._values.get(key) is not None), None)

    def size(self, *keys: str, default: int | None = None) -> int:
        """A positive whole number; without a default the key is required."""
        value = self.present(*keys)
        if value is None:
            value = default
        if value is None:
            raise self.fault(keys[0], "is missing")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.fault(keys[0], f"is {value!r}, not a positive whole number")
        return value

    def optional_size(self, *keys: str) -> int | None:
        """A positive whole number, or None."""
        return None if self.present(*keys) is None else self.size(*keys)

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self.present(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fault(key, f"is {value!r}, not true or false")
        return value

    def fault(self, key: str, what: str) -> ModelError:
        """The error for one key of this file."""
        return ModelError(
            f"{key} {what}",
            place=self._place,
            hint="is this the config.json of a language model in the Hugging Face layout?",
        )
