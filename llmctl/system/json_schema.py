"""JSON Schema, by the jsonschema library: what `ask --schema` reads and checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmctl.errors import NotFound, Refused, UsageError

LIMIT_BYTES = 1 << 20
ANSWER_HINT = "the same command with --json shows the answer"


def read_schema(path: Path) -> dict[str, Any]:
    """A schema file. Raises NotFound, or UsageError when it is no JSON Schema."""
    import jsonschema

    try:
        with path.open("rb") as file:
            schema = json.loads(file.read(LIMIT_BYTES))
        if not isinstance(schema, dict):
            raise ValueError(f"it is {json.dumps(schema)[:40]}, not an object")
        validator(schema).check_schema(schema)
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}", code="file_not_found") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError, jsonschema.SchemaError) as error:
        reason = error.message if isinstance(error, jsonschema.SchemaError) else str(error)
        raise UsageError(f"{path} is not a JSON Schema: {reason}") from None
    return schema


def validator(schema: dict[str, Any]) -> Any:
    from jsonschema.validators import Draft202012Validator, validator_for

    return validator_for(schema, default=Draft202012Validator)


def check(text: str, schema: dict[str, Any], document: object = None) -> None:
    """Raise Refused, with this document, unless `text` is JSON that fits the schema."""
    import jsonschema
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        # An empty registry: nothing is ever fetched for a `$ref`.
        validator(schema)(schema, registry=Registry()).validate(json.loads(text, parse_constant=no_number))
    except ValueError as error:
        said = f"the answer is not JSON: {error}"
        raise Refused(said, ANSWER_HINT, code="schema_mismatch", document=document) from None
    except jsonschema.ValidationError as error:
        where = "/".join(str(part) for part in error.absolute_path) or "the whole answer"
        said = f"the answer does not fit the schema at {where}: {error.message}"
        raise Refused(said, ANSWER_HINT, code="schema_mismatch", document=document) from None
    except (Unresolvable, RecursionError) as error:
        reason = "it refers to itself without end" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"the schema cannot be applied: {reason}") from None


def no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")
