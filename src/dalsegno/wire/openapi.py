"""The OpenAPI 3.1 document, made from the same table as the routes and the same types as the bytes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from dalsegno.core.json import JsonObject, dumps
from dalsegno.wire import shapes

PROBLEM = "application/problem+json"
JSON = "application/json"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
BYTES = "application/octet-stream"


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter, a header or a piece of the path."""

    name: str
    place: Literal["query", "header", "path"]
    says: str
    schema: JsonObject


class Answer(msgspec.Struct, frozen=True):
    """What a status brings: a type or None for each media type, and headers with what they say."""

    says: str
    content: dict[str, Any] = {}
    headers: dict[str, str] = {}


class Operation(msgspec.Struct, frozen=True):
    """One row of the route table: everything about a route but the code that serves it."""

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    name: str
    says: str
    answers: dict[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    body: dict[str, Any] = {}
    needs_body: bool = False
    errors: tuple[str, ...] = ()


def document(operations: Sequence[Operation], *, statuses: Mapping[str, int], version: str) -> bytes:
    """The whole document as JSON. `statuses` says which HTTP status each error code has."""
    paths: dict[str, dict[str, object]] = {}
    schemas = _Schemas(operations)
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas, statuses)
    security = {"bearer": {"type": "http", "scheme": "bearer"}}
    return dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Dalsegno",
                "version": version,
                "description": "Sessions of any agent, on any of many replicas: any replica continues any session.",
            },
            "paths": paths,
            "components": {
                "schemas": schemas.components,
                "securitySchemes": {
                    **security,
                    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                },
            },
            "security": [{}, {"bearer": []}, {"key": []}],
        }
    )


class _Schemas:
    """Schemas of every type that the table mentions, found again by the type."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        types: list[Any] = [shapes.Problem]
        for operation in operations:
            for kind in (*operation.body.values(), *_answered(operation)):
                if kind is not None and not any(kind is known for known in types):
                    types.append(kind)
        refs, self.components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
        for name, fields in shapes.ONE_OF.items():
            if name in self.components:
                given = {"not": {"type": "null"}}
                self.components[name]["oneOf"] = [
                    {"required": [field], "properties": {field: given}} for field in fields
                ]
        self._known = list(zip(types, refs, strict=True))

    def of(self, kind: Any) -> dict[str, Any]:
        """A type's schema; of None, the one of text that has no structure to describe."""
        return next((dict(ref) for known, ref in self._known if known is kind), {"type": "string"})


def _answered(operation: Operation) -> list[Any]:
    return [kind for answer in operation.answers.values() for kind in answer.content.values()]


def _operation(operation: Operation, schemas: _Schemas, statuses: Mapping[str, int]) -> dict[str, object]:
    made: dict[str, object] = {
        "operationId": operation.name,
        "summary": operation.says,
        "responses": {
            **{str(status): _answer(answer, schemas) for status, answer in operation.answers.items()},
            **_errors(operation.errors, schemas, statuses),
        },
    }
    if operation.parameters:
        made["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.body:
        content = {media: {"schema": schemas.of(kind)} for media, kind in operation.body.items()}
        made["requestBody"] = {"content": content, "required": operation.needs_body}
    return made


def _parameter(parameter: Parameter) -> dict[str, object]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.says,
        "required": parameter.place == "path",
        "schema": parameter.schema,
        **({"style": "form", "explode": True} if parameter.schema.get("type") == "object" else {}),
    }


def _answer(answer: Answer, schemas: _Schemas) -> dict[str, object]:
    made: dict[str, object] = {"description": answer.says}
    if answer.content:
        made["content"] = {media: {"schema": schemas.of(kind)} for media, kind in answer.content.items()}
    if answer.headers:
        made["headers"] = {
            name: {"description": says, "schema": {"type": "string"}} for name, says in answer.headers.items()
        }
    return made


def _errors(codes: Sequence[str], schemas: _Schemas, statuses: Mapping[str, int]) -> dict[str, object]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(statuses[code], []).append(code)
    return {
        str(status): {
            "description": ", ".join(f"`{code}`" for code in named),
            "content": {PROBLEM: {"schema": schemas.of(shapes.Problem)}},
        }
        for status, named in sorted(by_status.items())
    }
