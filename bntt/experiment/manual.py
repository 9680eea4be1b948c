"""Every key of an experiment file, made from the declarations: as Markdown, and as a JSON schema.

`config/README.md` ends with the Markdown. Editors use the schema, `config/schema.json`, to complete and check files.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from bntt.experiment import declared
from bntt.experiment.options import BOUNDS
from bntt.experiment.schema import EVALUATION, File, models


def reference() -> str:
    """Markdown tables of the top-level keys, the keys of `evaluation`, and those of each method and its bases."""
    _none_is_broken()
    top = [(f"`{key}`", field.description or "") for key, field in File.model_fields.items()]
    parts = ["## Top level", _table(("key", "meaning"), top)]
    parts += ["## `evaluation`", _options(EVALUATION)]
    methods = declared.plugins("methods", "OPTIONS")
    parts.append("## Methods\n\nA row's options are those of its method and of the modules that the method builds on.")
    for name, module in methods.items():
        bases = " and ".join(f"`{base}`" for base in declared.literal(module, "EXTENDS") or [])
        needs = " Needs `start`." if declared.literal(module, "NEEDS_START") else ""
        needs += " Needs single events." if declared.literal(module, "NEEDS_EVENTS") else ""
        parts += [f"### method `{name}`", f"{declared.summary(module)}{needs} Builds on {bases}.", _own(module)]
    for module in _bases(methods.values()):
        parts += [f"### from `{module}`", declared.summary(module), _own(module)]
    return "\n\n".join(part for part in parts if part) + "\n"


def schema() -> str:
    """JSON schema of an experiment file. It uses nothing newer than draft 7, which every editor knows."""
    _none_is_broken()
    document = models().file.model_json_schema(schema_generator=_Untitled)
    return json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", **document}, indent=1) + "\n"


def _none_is_broken() -> None:
    """Raise the error of a broken method, because a list without it would be wrong."""
    for error in models().broken.values():
        raise error


class _Untitled(GenerateJsonSchema):
    """Leaves out the titles, which only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _bases(modules: Iterable[str]) -> list[str]:
    """Modules that methods build on and that are no methods themselves, each once, in order of first use."""
    methods = list(modules)
    seen = [*methods]
    for module in seen:  # the loop appends to it
        seen += [base for base in declared.literal(module, "EXTENDS") or [] if base not in seen]
    return seen[len(methods) :]


def _own(module: str) -> str:
    return _options(declared.literal(module, "OPTIONS"))


def _options(entries: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [(f"`{key}`", f"`{_yaml(one['default'])}`", _allowed(one), one["help"]) for key, one in entries.items()]
    return _table(("key", "default", "allowed", "meaning"), rows)


def _allowed(entry: Mapping[str, Any]) -> str:
    if "choices" in entry:
        return ", ".join(f"`{choice}`" for choice in entry["choices"])
    return ", ".join(f"{word} {entry[bound]:g}" for bound, (_, word) in BOUNDS.items() if bound in entry)


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ("---",) * len(header), *rows))
