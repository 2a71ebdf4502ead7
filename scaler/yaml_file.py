"""YAML files read safely, without the two things that YAML lets pass in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scaler.errors import FunctionsError


def read_yaml(file: Path, most_bytes: int) -> Any:
    """The content of a YAML file. A key that is given twice is an error, not its last value.

    Raises:
        FunctionsError: unreadable, too large, or not valid YAML; names the line.
    """
    import yaml  # type: ignore[import-untyped,unused-ignore]

    class Loader(yaml.SafeLoader):  # type: ignore[misc,unused-ignore]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key_node, _ in node.value:
                key = key_node.value
                if not isinstance(key, str) or key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                if key in seen:
                    line = key_node.start_mark.line + 1
                    raise FunctionsError(file, f"the key {key!r} is given twice", where=f"line {line}")
                seen.add(key)
            return super().construct_mapping(node, deep)

    try:
        if file.stat().st_size > most_bytes:
            raise FunctionsError(file, f"is larger than {most_bytes // 1_000_000} MB: is it the right file?")
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise FunctionsError(file, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FunctionsError(file, "is not text in UTF-8") from error
    try:
        # SafeLoader makes plain values alone; the subclass adds a check and no type.
        return yaml.load(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise FunctionsError(
            file, f"is not valid YAML: {error.problem}", where=f"line {mark.line + 1}" if mark else None
        ) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise FunctionsError(file, f"is not valid YAML: {' '.join(str(error).split())[:120]}") from error
