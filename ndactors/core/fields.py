"""marshmallow fields that take no half-truths: a string is no number, true is no integer. Each knows its JSON Schema."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validates_schema

from . import units
from .environments import Decimal, Number, Text, nearest

MAX_SUGGESTIONS = 20
"""For more unknown keys than that no likely spelling is looked for: it takes long, and helps nobody."""


def plain(value: Any) -> Any:
    """What a placeholder's text means where no string is wanted."""
    return value.scalar if isinstance(value, Text) else value


class Block(Schema):
    """A mapping with known keys; others get a suggestion."""

    class Meta:
        unknown = EXCLUDE

    error_messages = {"type": "Not a valid mapping."}

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def _no_unknown_keys(self, data: Any, original: Any, **_: Any) -> None:
        if not isinstance(original, dict):
            return
        known = {field.data_key or name: name for name, field in self.load_fields.items()}
        wrong = {}
        for count, key in enumerate(sorted(map(str, original.keys() - known.keys()))):
            near = nearest(key[:60], known) if count < MAX_SUGGESTIONS else []
            wrong[key] = [f"Unknown key; did you mean `{near[0]}`?" if near else "Unknown key."]
        if wrong:
            raise ValidationError(wrong)


class Of(fields.Nested):
    """A block inside a block; an empty one (`edge:`) is all defaults."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, partial: Any = None, **kwargs: Any) -> Any:
        return super()._deserialize({} if value is None else value, attr, data, partial, **kwargs)

    def __init__(self, nested: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_none", True)
        super().__init__(nested, **kwargs)

    def json_schema(self) -> dict[str, Any]:
        return block_schema(self.schema)


class Field(fields.Field[Any]):
    """A value that ``convert`` understands, or not: then ``ValueError`` has the sentence."""

    schema: Mapping[str, Any] = {}

    def convert(self, value: Any) -> Any:
        """What ``value`` means; ``ValueError`` with a sentence for the user if it means nothing here."""
        return value

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return self.convert(value)
        except ValueError as error:
            raise ValidationError(str(error)) from error

    def json_schema(self) -> dict[str, Any]:
        return dict(self.schema)


class Int(Field):
    def __init__(self, low: int = 0, high: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low, self.high = low, high

    def convert(self, value: Any) -> Any:
        value = plain(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("Not a valid integer.")
        if value < self.low or (self.high is not None and value > self.high):
            raise ValueError(
                f"Must be between {self.low} and {self.high}."
                if self.high is not None
                else f"Must be at least {self.low}."
            )
        return int(value)

    def json_schema(self) -> dict[str, Any]:
        limits: dict[str, Any] = {"type": "integer", "minimum": self.low}
        return limits | ({"maximum": self.high} if self.high is not None else {})


class Num(Field):
    def __init__(self, low: float = 0, high: float | None = None, *, above: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low, self.high, self.above = low, high, above

    def convert(self, value: Any) -> Any:
        value = plain(value)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value:
            raise ValueError("Not a valid number.")
        if self.above and value <= self.low:
            raise ValueError(f"Must be greater than {self.low:g}.")
        if value < self.low or (self.high is not None and value > self.high) or value in (float("inf"), float("-inf")):
            raise ValueError(
                f"Must be between {self.low:g} and {self.high:g}."
                if self.high is not None
                else f"Must be at least {self.low:g}."
            )
        return float(value)

    def json_schema(self) -> dict[str, Any]:
        limits: dict[str, Any] = {"type": "number", ("exclusiveMinimum" if self.above else "minimum"): self.low}
        return limits | ({"maximum": self.high} if self.high is not None else {})


class Bool(Field):
    schema = {"type": "boolean"}

    def convert(self, value: Any) -> Any:
        value = plain(value)
        if not isinstance(value, bool):
            raise ValueError("Not a valid boolean; write true or false.")
        return value


class Str(Field):
    """``pattern`` must fit the whole; ``hint`` says in words what is wanted."""

    def __init__(self, pattern: str | None = None, hint: str = "Not a valid string.", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pattern, self.hint = pattern, hint

    def convert(self, value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError("Not a valid string.")
        if "\0" in value:
            raise ValueError("Must not contain NUL.")
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            raise ValueError(self.hint)
        return str(value)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string"} | ({"pattern": f"^(?:{self.pattern})$"} if self.pattern else {})


class Word(Field):
    """One of a few words."""

    def __init__(self, *words: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words = words

    def convert(self, value: Any) -> Any:
        if isinstance(value, str) and value in self.words:
            return str(value)
        near = nearest(str(value), self.words) if isinstance(value, str) else []
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise ValueError(f"Must be one of: {', '.join(self.words)}.{hint}")

    def json_schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}


class Duration(Field):
    schema = {"type": ["string", "number"], "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$", "minimum": 0}

    def __init__(self, *, above_zero: bool = False, most: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.above_zero = above_zero
        self.most = most

    def convert(self, value: Any) -> Any:
        seconds = units.duration(plain(value))
        if self.above_zero and not seconds:
            raise ValueError("Must be longer than 0.")
        if self.most is not None and seconds > units.duration(self.most):
            raise ValueError(f"Must be at most {self.most}.")
        return seconds

    def json_schema(self) -> dict[str, Any]:
        return {**self.schema, **({} if self.most is None else {"maximum": units.duration(self.most)})}


class Size(Field):
    schema = {"type": ["string", "integer"], "pattern": r"^\d+(\.\d+)?\s*[kKmMgGtT]?(i?[bB])?$", "minimum": 0}

    def convert(self, value: Any) -> Any:
        return units.size(plain(value))


class RateOf(Field):
    schema = {"type": "string", "pattern": r"^\d+/(s|sec|second|m|min|minute|h|hour)$"}

    def convert(self, value: Any) -> Any:
        count, seconds = units.rate(value)
        return {"count": count, "seconds": seconds}


class ListOf(fields.List[Any]):
    """A list, or one value alone where a list of one is meant."""

    def __init__(self, inner: Any, *, alone: bool = False, **kwargs: Any) -> None:
        super().__init__(inner, **kwargs)
        self.alone = alone
        self.error_messages["invalid"] = "Not a valid list."

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if self.alone and isinstance(value, str):
            value = [value]
        return super()._deserialize(value, attr, data, **kwargs)

    def json_schema(self) -> dict[str, Any]:
        inner = json_of(self.inner)
        many = {"type": "array", "items": inner}
        return {"anyOf": [many, inner]} if self.alone else many


class MapOf(Field):
    """A mapping with free keys. ``key`` is a pattern for them."""

    def __init__(self, inner: Any, key: str | None = None, hint: str = "Not a valid name.", **kwargs: Any) -> None:
        super().__init__(**{"allow_none": True, **kwargs})
        self.inner, self.key, self.hint = inner, key, hint

    def _bind_to_schema(self, field_name: str, parent: Any) -> None:
        super()._bind_to_schema(field_name, parent)
        self.inner._bind_to_schema(field_name, self)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise ValidationError("Not a valid mapping.")
        result: dict[str, Any] = {}
        wrong: dict[str, Any] = {}
        for name, below in value.items():
            if self.key is not None and not re.fullmatch(self.key, str(name)):
                wrong[name] = [self.hint]
                continue
            try:
                result[str(name)] = self.inner.deserialize(below)
            except ValidationError as error:
                wrong[name] = error.messages
        if wrong:
            raise ValidationError(wrong)
        return result

    def json_schema(self) -> dict[str, Any]:
        names = {"propertyNames": {"pattern": f"^(?:{self.key})$"}} if self.key else {}
        return {"type": ["object", "null"], "additionalProperties": json_of(self.inner)} | names


class EnvValue(Field):
    """A string, or a number or boolean as it was written."""

    schema = {"type": ["string", "number", "boolean"]}

    def convert(self, value: Any) -> Any:
        if isinstance(value, (Number, Decimal)):
            return value.text
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, (int, float)):
            return str(value)
        if isinstance(value, str) and "\0" not in value:
            return str(value)
        raise ValueError("Not a valid string.")


class Env(MapOf):
    """A mapping, or a list of ``NAME=value``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(EnvValue(), r"[A-Za-z_][A-Za-z0-9_.-]*", "Not a valid variable name.", **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, list):
            pairs = {}
            for index, item in enumerate(value):
                if not isinstance(item, str) or "=" not in item:
                    raise ValidationError({index: ["Write it as NAME=value."]})
                name, _, text = item.partition("=")
                pairs[name] = text
            value = pairs
        return super()._deserialize(value, attr, data, **kwargs)

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [super().json_schema(), {"type": "array", "items": {"type": "string", "pattern": "="}}]}


class Command(Field):
    """A string as one writes it, or an argv."""

    schema = {
        "anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
    }

    def convert(self, value: Any) -> Any:
        if isinstance(value, str) and value.strip():
            return str(value)
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            return tuple(map(str, value))
        raise ValueError("Not a valid command; write a string or a list of strings.")


class Address(Field):
    """``host:port`` or ``:port``."""

    schema = {"type": "string", "pattern": r"^$|^.*:\d{1,5}$"}

    def __init__(self, *, may_be_empty: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.may_be_empty = may_be_empty

    def convert(self, value: Any) -> Any:
        if isinstance(value, str):
            if value == "" and self.may_be_empty:
                return ""
            host, colon, port = value.rpartition(":")
            well = colon and port.isascii() and port.isdigit() and int(port) <= 65535
            if well and re.fullmatch(r"[A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\]|\*", host):
                return str(value)
        raise ValueError("Not a valid address; write it like `:80` or `127.0.0.1:8090`.")


class Cidr(Field):
    schema = {"type": "string"}

    def convert(self, value: Any) -> Any:
        try:
            return str(ipaddress.ip_network(value if isinstance(value, str) else "", strict=False))
        except ValueError:
            raise ValueError("Not a valid network; write it like 10.0.0.0/8.") from None


class Either(Field):
    """A short spelling or the long one: ``short`` maps values that stand for a block to what they mean."""

    def __init__(self, long: Any, short: Any, json: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.long, self.short, self.json = long, short, json

    def _bind_to_schema(self, field_name: str, parent: Any) -> None:
        super()._bind_to_schema(field_name, parent)
        self.long._bind_to_schema(field_name, self)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, (dict, type(None))):
            try:
                value = self.short(plain(value))
            except ValueError as error:
                raise ValidationError(str(error)) from error
        return self.long.deserialize(value) if isinstance(value, (dict, type(None))) else value

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [json_of(self.long), self.json]}


def json_of(field: Any) -> dict[str, Any]:
    schema = dict(field.json_schema())
    if field.allow_none and "null" not in str(schema.get("type", "")):
        schema = {"anyOf": [schema, {"type": "null"}]}
    told = field.metadata.get("description")
    if told:
        schema["description"] = told
    return schema


def block_schema(block: Schema) -> dict[str, Any]:
    """A block as JSON Schema."""
    own = {(field.data_key or name): json_of(field) for name, field in block.load_fields.items()}
    required = sorted((f.data_key or n) for n, f in block.load_fields.items() if f.required)
    schema: dict[str, Any] = {"type": ["object", "null"], "properties": own, "additionalProperties": False}
    return schema | ({"required": required} if required else {})
