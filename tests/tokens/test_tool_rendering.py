"""Tools as TypeScript: a table of schemas and the text that the model is shown."""

import time

import pytest

from lastchunk.tokens.tools import namespace_text
from lastchunk.wire.prompt import Tool


def rendered(schema: dict[str, object], description: str = "Does it.") -> str:
    text = namespace_text([Tool("act", description, schema)]).text
    head = "namespace functions {\n\n// Does it.\ntype act = ("
    tail = ") => any;\n\n} // namespace functions"
    assert text.startswith(head)
    assert text.endswith(tail)
    return text[len(head) : -len(tail)]


def of(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": ["a"]}


TABLE = [
    ({}, ""),
    ({"type": "object", "properties": {}}, ""),
    (of(a={"type": "integer"}, b={"type": "string"}), "_: {a: number, b?: string}"),
    (of(a={"type": "array", "items": {"type": "boolean"}}), "_: {a: boolean[]}"),
    (of(a={"enum": ["x", "y"]}), '_: {a: "x" | "y"}'),
    (of(a={"type": ["string", "null"]}), "_: {a: string | null}"),
    (of(a={"anyOf": [{"type": "number"}, {"type": "null"}]}), "_: {a: number | null}"),
    (of(a={"type": "object", "properties": {"z": {}}}), "_: {a: {z?: any}}"),
    (of(a={"description": "Line.\n\n  More. "}), "_: {\n// Line.\n// More.\na: any,\n}"),
    (
        of(a={"title": "Age", "description": "In years.", "minimum": 0, "type": "integer"}),
        "_: {\n// Age\n//\n// In years.\n// - minimum: 0\na: number,\n}",
    ),
    (of(a={"type": "string", "default": "x"}), '_: {\na: string, // default: "x"\n}'),
    (of(a={"enum": ["x"], "default": "x"}), '_: {\na: "x", // default: x\n}'),
    ({**of(a={"type": "string"}), "title": "Args"}, "_: // Args\n{a: string}"),
]


@pytest.mark.parametrize(("schema", "text"), TABLE)
def test_a_schema_is_rendered_as_the_model_is_shown_it(
    schema: dict[str, object], text: str
) -> None:
    assert rendered(schema) == text


def test_a_reference_is_inlined_with_its_title() -> None:
    schema = {
        "$defs": {"Place": {"title": "Place", "properties": {"city": {"type": "string"}}}},
        "properties": {"at": {"$ref": "#/$defs/Place"}},
    }
    assert rendered(schema) == "_: {\n// Place\nat?: {city?: string},\n}"


def test_an_array_of_named_objects_stands_in_angle_brackets() -> None:
    item = {"title": "Step", "properties": {"do": {"type": "string"}}}
    schema = of(a={"type": "array", "items": item})
    assert rendered(schema) == "_: {a: Array<\n// Step\n{do?: string}>}"


def test_a_tool_without_description_has_no_comment() -> None:
    text = namespace_text([Tool("act", "", {})]).text
    assert text == "namespace functions {\n\ntype act = () => any;\n\n} // namespace functions"


def test_a_schema_that_names_itself_ends_and_is_a_doubt() -> None:
    schema = {"properties": {"next": {"$ref": "#"}}}
    result = namespace_text([Tool("act", "", schema)])
    assert "any" in result.text
    assert result.doubts > 0


def bomb(width: int, levels: int) -> dict[str, object]:
    definitions = {
        f"d{level}": {
            "properties": {
                f"p{n}": {"$ref": f"#/$defs/d{level + 1}", "description": "x" * 40}
                for n in range(width)
            },
            "anyOf": [{"$ref": f"#/$defs/d{level + 1}"}] * width,
        }
        for level in range(levels)
    }
    return {"$defs": definitions, "properties": {"a": {"$ref": "#/$defs/d0"}}}


@pytest.mark.parametrize(("width", "levels"), [(10, 30), (500, 8)])
def test_references_that_multiply_are_cut_in_time(width: int, levels: int) -> None:
    started = time.perf_counter()
    result = namespace_text([Tool("act", "", bomb(width, levels))])
    assert result.cut
    assert time.perf_counter() - started < 5
