"""JSON Schema, by the jsonschema library: what `ask --schema` reads and checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmctl.errors import NotFound, Refused, UsageError

LIMIT_BYTES = 1 << 20


def read_schema(path: Path) -> dict[str, Any]:
    """A schema file. Raises NotFound, or UsageError when it is no JSON Schema."""
    import jsonschema

    try:
        with path.open("rb") as file:
            schema = json.loads(file.read(LIMIT_BYTES))
        jsonschema.Draft202012Validator.check_schema(schema)
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, jsonschema.SchemaError) as error:
        reason = error.message if isinstance(error, jsonschema.SchemaError) else str(error)
        raise UsageError(f"{path} is not a JSON Schema: {reason}") from None
    if not isinstance(schema, dict):
        raise UsageError(f"{path} is not a JSON Schema of an object: it is {json.dumps(schema)[:40]}")
    return schema


def check(text: str, schema: dict[str, Any]) -> None:
    """Raise Refused unless `text` is JSON that fits the schema."""
    import jsonschema

    try:
        jsonschema.validate(json.loads(text), schema)
    except ValueError as error:
        raise Refused(f"the answer is not JSON: {error}", code="schema_mismatch") from None
    except jsonschema.ValidationError as error:
        where = "/".join(str(part) for part in error.absolute_path) or "the whole answer"
        raise Refused(
            f"the answer does not fit the schema at {where}: {error.message}", code="schema_mismatch"
        ) from None
