"""YAML documents in which no key is given twice, of which YAML itself would silently keep the last."""

from typing import Any

import yaml


def read_yaml(text: str, loader: Any = yaml.SafeLoader) -> Any:
    """The content of a document; a ``yaml.YAMLError`` says what is wrong, and in which line."""
    reader = loader(text)
    try:
        node = reader.get_single_node()
        _refuse_twice(node)
        return None if node is None else reader.construct_document(node)
    finally:
        reader.dispose()


def _refuse_twice(node: Any) -> None:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.YAMLError(f"line {key.start_mark.line + 1}: {key.value!r} is given twice")
                seen.add((key.tag, key.value))
            _refuse_twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twice(value)
