"""GET /docs/guides: the documentation as pages."""

import re
from pathlib import Path

import aiohttp
from aiohttp import web

from tests import idle_clock
from tests.server import scripted, serving
from vivavoce.api.guides import GUIDES, GuideRoutes, rendered

LINK = re.compile(r'(?:href|src)="([^"]+)"')


def test_every_guide_is_a_page_whose_links_and_pictures_are_there() -> None:
    async def main() -> None:
        async with serving(scripted()) as server, aiohttp.ClientSession(server.http) as http:
            first = await http.get("/docs/guides")
            assert str(first.url).endswith("/docs/guides/console.md")
            pages = {path.name: path for path in GUIDES.glob("*.md")}
            texts = {}
            for name in pages:
                answer = await http.get(f"/docs/guides/{name}")
                assert (answer.status, answer.content_type) == (200, "text/html")
                texts[name] = await answer.text()
            for name, text in texts.items():
                for link in LINK.findall(text):
                    if "://" in link:
                        continue
                    path, _, anchor = link.partition("#")
                    target = texts.get(path or name)
                    if target is None:
                        found = await http.get(path if path[0] == "/" else f"/docs/guides/{path}")
                        assert found.status == 200, (name, link)
                    elif anchor:
                        assert f'id="{anchor}"' in target, (name, link)

    idle_clock.run(main())


def test_heading_has_an_anchor_and_markup_of_html_is_text() -> None:
    html = rendered("## `GET /v1/models`, and more\n\n<b>bold</b> [one](../examples/a.html)")
    assert html == (
        '<h2 id="get-v1models-and-more"><code>GET /v1/models</code>, and more</h2>\n'
        "<p>&lt;b&gt;bold&lt;/b&gt; one</p>\n"
    )


def test_without_the_folder_there_are_no_guides(tmp_path: Path) -> None:
    routes = GuideRoutes(tmp_path / "none")
    app = web.Application()
    routes.add_to(app)
    assert len(app.router.routes()) == 6  # each GET has its HEAD
