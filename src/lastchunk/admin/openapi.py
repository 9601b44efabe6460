"""The OpenAPI document, made from the types that requests and answers are checked by."""

from __future__ import annotations

from typing import Any

import msgspec

from lastchunk import __version__
from lastchunk.admin.operation import STATUS, Operation
from lastchunk.admin.operations import OPERATIONS
from lastchunk.admin.schema import Answer, Body, ErrorAnswer, ErrorCode, Query

PATH = "/admin/openapi.json"
MAX_ID_CHARS = 200
_REF = "#/components/schemas/{name}"

_ABOUT = """\
Keys, limits, calls and reports of a lastchunk gateway, for its operator.

Every request brings the admin key: `Authorization: Bearer …`. Whoever has it sees the calls of all
accounts. There is no content of calls anywhere. Money is a string of US dollars with nine decimals,
never a float. Moments are ISO 8601 with a time zone. Lists come in pages: ask again with the
answer's `next` as `cursor`, until it is null."""


def openapi_document() -> dict[str, Any]:
    """The whole document, version 3.1."""
    kinds: list[type[Answer | Body | Query]] = [ErrorAnswer]
    for operation in OPERATIONS:
        kinds += [operation.answer, operation.query]
        kinds += [operation.body] if operation.body is not None else []
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    queries = {one.query.__name__: components.get(one.query.__name__) for one in OPERATIONS}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        described = _operation(operation, queries[operation.query.__name__] or {})
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    schemas = {name: one for name, one in sorted(components.items()) if name not in queries}
    return {
        "openapi": "3.1.0",
        "info": {"title": "lastchunk admin API", "version": __version__, "description": _ABOUT},
        "security": [{"adminKey": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"adminKey": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation, query: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": _parameters(operation, query),
        "responses": {
            str(operation.status): _answer("Done.", operation.answer.__name__),
            **_errors(operation),
        },
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": not operation.body_optional,
            "content": _json(operation.body.__name__),
        }
    return described


def _parameters(operation: Operation, query: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if "{id}" in operation.path:
        schema = {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARS}
        found.append({"name": "id", "in": "path", "required": True, "schema": schema})
    for name, schema in query.get("properties", {}).items():
        found.append({"name": name, "in": "query", "required": False, "schema": schema})
    return found


def _errors(operation: Operation) -> dict[str, Any]:
    codes: dict[int, list[ErrorCode]] = {}
    for code in operation.all_errors:
        codes.setdefault(STATUS[code], []).append(code)
    return {
        str(status): _answer(" or ".join(f"`{code}`" for code in named) + ".", "ErrorAnswer")
        for status, named in sorted(codes.items())
    }


def _answer(description: str, name: str) -> dict[str, Any]:
    return {"description": description, "content": _json(name)}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(name=name)}}}
