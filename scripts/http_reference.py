"""Write docs/http-api.md, every path and field of the HTTP API, from its OpenAPI schema: `python scripts/http_reference.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opengrit.serving.app import ServeSettings, build_app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "http-api.md"
HEAD = """# HTTP API

Written by `scripts/http_reference.py` from the schema that a server gives at `/openapi.json`; edit `src/opengrit/serving/schemas.py`.
[serving.md](serving.md) has examples with curl and the `openai` package, and says who may ask and how much.

"""
_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true`, `false`",
    "object": "object",
    "null": "null",
}
Schema = dict[str, Any]


def page() -> str:
    """The page's text: each path with its bodies and statuses, then the fields of each body."""
    schema = build_app({}, ServeSettings(), page=False).openapi()
    parts = [
        path_section(method, path, one)
        for path, methods in schema["paths"].items()
        for method, one in methods.items()
    ]
    bodies: dict[str, Schema] = schema["components"]["schemas"]
    used = reached(schema["paths"], bodies)
    parts += [
        body_section(name, body)
        for name, body in bodies.items()
        if name in used and "ValidationError" not in name
    ]
    return HEAD + "\n".join(parts)


def reached(part: object, bodies: dict[str, Schema]) -> set[str]:
    """The names of the bodies that a part of the schema refers to, and those that they refer to."""
    found: set[str] = set()
    waiting = list(references(part))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += references(bodies[name])
    return found


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"].rsplit("/", 1)[-1]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def path_section(method: str, path: str, one: Schema) -> str:
    parts = [f"## {method.upper()} {path}", one["summary"]]
    if "requestBody" in one:
        kinds = one["requestBody"]["content"].items()
        parts.append(
            "Body: " + ", or ".join(f"{words(body['schema'])} as `{kind}`" for kind, body in kinds) + "."
        )
    lines = ["| status | meaning | body |", "|---|---|---|"]
    for status, answer in sorted(one["responses"].items()):
        if status == "422":  # FastAPI declares it; the server answers 400 instead
            continue
        kinds = ", ".join(
            f"{words(body['schema'])} (`{kind}`)" for kind, body in answer.get("content", {}).items()
        )
        meaning = answer["description"].replace("Successful Response", "The answer.")
        lines.append(f"| {status} | {meaning} | {kinds} |")
    return "\n\n".join([*parts, "\n".join(lines)]) + "\n"


def body_section(name: str, body: Schema) -> str:
    parts = [f"## {name}", *([" ".join(body["description"].split())] if "description" in body else [])]
    required = body.get("required", [])
    lines = ["| field | meaning | value | default |", "|---|---|---|---|"]
    for field, one in body.get("properties", {}).items():
        default = (
            "required"
            if field in required
            else f"`{one['default']}`"
            if one.get("default") is not None
            else ""
        )
        meaning = " ".join(dict.fromkeys(descriptions(one)))
        lines.append(f"| `{field}` | {meaning} | {words(one)} | {default} |".replace("<", "&lt;"))
    return "\n\n".join([*parts, "\n".join(lines)]) + "\n"


def descriptions(one: Schema) -> Iterator[str]:
    """What a field's schema and its alternatives say that it means."""
    for part in (one, *one.get("anyOf", [])):
        if "description" in part:
            yield part["description"]


def words(one: Schema) -> str:
    """What may stand there, in words, with its bounds."""
    if "$ref" in one:
        name = one["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in one or "oneOf" in one:
        return " or ".join(dict.fromkeys(words(part) for part in one.get("anyOf") or one["oneOf"]))
    if "const" in one:
        return f"`{one['const']}`"
    if "enum" in one:
        return ", ".join(f"`{value}`" for value in one["enum"])
    if one.get("type") == "array":
        return f"list{count(one, 'Items')}: {words(one['items'])}"
    if one.get("format") == "binary":
        return "file"
    written = _WORDS[one["type"]] if "type" in one else "any value"
    bounds = [
        f"{sign} {one[key]}"
        for key, sign in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="))
        if key in one
    ]
    bounds += [f"at most {one['maxLength']} characters"] if "maxLength" in one else []
    return re.sub(r" $", "", f"{written} {' and '.join(bounds)}")


def count(one: Schema, what: str) -> str:
    least, most = one.get(f"min{what}"), one.get(f"max{what}")
    if least == most:
        return "" if most is None else f" of {most}"
    return f" of at most {most}" if most is not None else f" of at least {least}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
