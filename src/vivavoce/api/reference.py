"""GET /openapi.json, and /docs: the same to read, a page that asks nothing of anybody else."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import msgspec
from aiohttp import web

from vivavoce.api.openapi import Schema

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #888; --code: #8881 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
code { font: .9em ui-monospace, monospace; background: var(--code); padding: .1em .3em }
details { border-top: 1px solid var(--line); padding: .6rem 0 }
summary { cursor: pointer } summary b { display: inline-block; min-width: 3.5rem }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 }
td, th { border-top: 1px solid var(--line); padding: .3rem .6rem; vertical-align: top }
th { text-align: left; font-weight: 600 } .dim { color: var(--dim) }
"""
_SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class Reference:
    """Serves a description, made once."""

    def __init__(self, description: Schema) -> None:
        self._json = msgspec.json.encode(description)
        self._page = page(description).encode()

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/openapi.json", self.openapi)
        app.router.add_get("/docs", self.docs)

    async def openapi(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._json, content_type="application/json")

    async def docs(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=self._page, content_type="text/html", charset="utf-8", headers=_SAFE
        )


def page(description: Schema) -> str:
    """HTML without a script, and without a link to elsewhere."""
    return "".join(_page(description))


def _page(description: Schema) -> Iterator[str]:
    info = description["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
    yield f"<p>{_text(info['description'])}</p>"
    yield '<p class="dim">For programs: <a href="/openapi.json">/openapi.json</a></p>'
    tags: dict[str, list[str]] = {}
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            shown = "".join(_operation(method, path, operation))
            tags.setdefault(operation["tags"][0], []).append(shown)
    for tag, operations in tags.items():
        yield f"<h2>{escape(tag)}</h2>{''.join(operations)}"
    yield "<h2>Objects</h2>"
    for name, schema in sorted(description["components"]["schemas"].items()):
        yield from _component(name, schema)
    yield "</body></html>"


def _operation(method: str, path: str, operation: Schema) -> Iterator[str]:
    yield f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code> "
    yield f"{_text(operation['summary'])}</summary>"
    if about := operation.get("description"):
        yield f"<p>{_text(about)}</p>"
    rows = [
        (f"<code>{escape(one['name'])}</code>", one["in"], _text(one["description"]))
        for one in operation.get("parameters", ())
    ]
    yield from _table(("parameter", "in", ""), rows)
    body = operation.get("requestBody", {}).get("content", {})
    for media_type, content in body.items():
        yield f"<p>Takes <code>{escape(media_type)}</code>: {_kind(content.get('schema', {}))}</p>"
        yield from _properties(content.get("schema", {}))
    answers = [
        (f"<code>{status}</code>", _text(answer["description"]), _kinds(answer.get("content", {})))
        for status, answer in operation["responses"].items()
    ]
    yield from _table(("answer", "", ""), answers)
    yield "</details>"


def _component(name: str, schema: Schema) -> Iterator[str]:
    yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
    if about := schema.get("description"):
        yield f"<p>{_text(about)}</p>"
    if "properties" not in schema:
        yield f"<p>{_kind(schema)}</p>"
    yield from _properties(schema)
    yield "</details>"


def _properties(schema: Schema) -> Iterator[str]:
    required = schema.get("required", ())
    rows = [
        (
            f"<code>{escape(name)}</code>{' *' if name in required else ''}",
            _kind(kind),
            _text(kind.get("description", "")),
        )
        for name, kind in schema.get("properties", {}).items()
    ]
    yield from _table(("field (* needed)", "", ""), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """`rows` are HTML."""
    if rows:
        yield f"<table><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"
        for row in rows:
            yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        yield "</table>"


def _kinds(content: Schema) -> str:
    return "<br>".join(
        f"<code>{escape(media_type)}</code> {_kind(one.get('schema', {}))}"
        for media_type, one in content.items()
    )


def _kind(schema: Any) -> str:
    """What a value may be, as HTML."""
    match schema:
        case {"$ref": str(ref)}:
            name = escape(ref.rpartition("/")[2])
            return f'<a href="#{name}"><code>{name}</code></a>'
        case {"anyOf": list(options)} | {"oneOf": list(options)}:
            return " or ".join(map(_kind, options))
        case {"enum": list(values)}:
            shown = (escape(msgspec.json.encode(value).decode()) for value in values)
            return " or ".join(f"<code>{value}</code>" for value in shown)
        case {"type": "array", "items": items}:
            return f"list of {_kind(items)}"
        case {"type": kind}:
            return escape(str(kind))
        case _:
            return ""


def _text(words: str) -> str:
    """Prose in which `this` is code."""
    plain = escape(words).split("`")
    return "".join(f"<code>{part}</code>" if odd % 2 else part for odd, part in enumerate(plain))
