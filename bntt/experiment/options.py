"""Pydantic models of the options that modules declare, and one-line messages of the errors that pydantic finds.

A declaration is a literal such as ``{"default": 0.9, "min": 0.0, "below": 1.0, "help": "Momentum of SGD."}``. A value
has the type of the default. If the default is null, it has the type ``type`` or is null. ``choices``, or the bounds
``min``, ``above``, ``below`` and ``max``, limit the values; for a list they limit its items. No whole number is above
`LARGEST`.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from bntt.common.errors import UserError, unknown

Declarations = Mapping[str, Mapping[str, Any]]

# The bounds of a declaration: what pydantic calls them, and what messages call them.
BOUNDS = {"min": ("ge", "at least"), "above": ("gt", "above"), "below": ("lt", "below"), "max": ("le", "at most")}
LARGEST = 2**31 - 1  # of whole numbers, unless a declaration says less
_TYPES = {"int": int, "float": float, "bool": bool, "str": str}
NAMED = "at most 64 lower-case letters, digits and hyphens, with a hyphen neither first nor last"
_EXPECTED = {  # by pydantic's kinds of errors
    "bool_type": "true or false",
    "dict_type": "a mapping of keys to values",
    "finite_number": "a number",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "string_pattern_mismatch": NAMED,
    "string_type": "text",
}


def each_once(items: list[Any]) -> list[Any]:
    """The list itself; raises ValueError if it names something twice."""
    if len(set(items)) != len(items):  # by value: 0 is 0.0
        raise ValueError(f"names something twice: {items!r}")
    return items


Item = TypeVar("Item")
Distinct = Annotated[list[Item], AfterValidator(each_once), Field(json_schema_extra={"uniqueItems": True})]


class Strict(BaseModel):
    """A mapping of known keys. Nothing is converted, except a whole number to a float."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, given: Any) -> Any:
        for key in mapping(given):
            if key not in cls.model_fields:
                raise ValueError(unknown("key", key, cls.model_fields))
        for key, field in cls.model_fields.items():
            if field.is_required() and given.get(key) in (None, [], {}):
                raise ValueError(f"{key} is {'empty' if key in given else 'missing'}: {field.description}")
        return given


Model = TypeVar("Model", bound=Strict)


def validated(model: type[Model], document: Any, where: str) -> Model:
    """The document as its model; if it is wrong, raises a UserError that begins with ``where``."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise UserError(_first(error, document, where)) from None


def options_model(name: str, declared: Declarations, base: type[Model], **fields: Any) -> type[Model]:
    """A model with the declared options and their defaults, with ``fields``, and with the fields of ``base``."""
    options: dict[str, Any] = {
        key: (_type(entry), Field(entry["default"], description=entry["help"])) for key, entry in declared.items()
    }
    return create_model(name, __base__=base, **fields, **options)


def shared_model(name: str, declared: Iterable[Declarations]) -> type[Strict]:
    """A model with the options of several modules, without defaults. A value must suit one of those that declare it."""
    entries: dict[str, list[Mapping[str, Any]]] = {}
    for key, entry in (item for options in declared for item in options.items()):
        entries.setdefault(key, []).append(entry)
    fields: dict[str, Any] = {  # a JSON schema would show a default; it does not show a factory
        key: (either(map(_type, those)), Field(default_factory=lambda: None, description=those[0]["help"]))
        for key, those in entries.items()
    }
    return create_model(name, __base__=Strict, **fields)


def _type(entry: Mapping[str, Any]) -> Any:
    default = entry["default"]
    samples = {type(one).__name__ for one in (default if isinstance(default, list) else [default])}
    kind: Any = _TYPES[entry.get("type") or ("float" if "float" in samples else samples.pop())]
    bounds: dict[str, Any] = {name: entry[bound] for bound, (name, _) in BOUNDS.items() if bound in entry}
    if kind is int and not bounds.keys() & {"le", "lt"}:
        bounds["le"] = LARGEST
    kind = one_of("value", entry["choices"]) if "choices" in entry else Annotated[kind, Field(**bounds)]
    if isinstance(default, list):
        return Distinct[kind]
    return kind | None if default is None else kind


def either(types: Iterable[Any]) -> Any:
    """The union of types that are known only at run time."""
    return Union[tuple(types)]  # noqa: UP007


def one_of(kind: str, names: Iterable[str]) -> Any:
    """The type of one of these names; the error for another name suggests the nearest."""
    names = tuple(names)

    def known(name: Any) -> Any:
        if name not in names:
            raise ValueError(unknown(kind, name, names))
        return name

    return Annotated[Literal[names], BeforeValidator(known)]


def mapping(value: Any) -> Mapping[str, Any]:
    """The value itself; raises ValueError if it is not a mapping."""
    if not isinstance(value, Mapping):
        raise ValueError(f"must be {_EXPECTED['dict_type']}, not {value!r}")
    return value


def _first(error: ValidationError, document: Any, where: str) -> str:
    """The first of pydantic's errors in one line: the path to the key, what is wrong, what would be right."""
    first = error.errors(include_url=False)[0]
    place = document
    for part in first["loc"]:  # parts that are not in the document are pydantic's own
        if isinstance(place, Mapping) and part in place:
            where, place = f"{where}: {part}", place[part]
        elif isinstance(place, list) and isinstance(part, int):
            where, place = f"{where}: item {part + 1}", place[part]
    context = first.get("ctx", {})
    bounds = [f"{word} {context[name]}" for name, word in BOUNDS.values() if name in context]
    expected = bounds[0] if bounds else _EXPECTED.get(first["type"], first["msg"])
    text = str(context.get("error", f"must be {expected}, not {first['input']!r}"))  # an error of this package
    return " ".join(f"{where}{' ' if text.startswith(('must', 'names')) else ': '}{text}".split())
