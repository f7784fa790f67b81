"""`i2vgen-ms serve` as it stands, seen with a real browser: its description asks no other host for anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.browser import SCREENSHOTS, SWITCHES, chromium, served

pytestmark = pytest.mark.browser


def test_the_description_asks_no_other_host(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    executable, asked = chromium(), []
    words = ("-m", "i2vgen_ms", "serve", "--device", "cpu", "--port", "0", "--folder", str(tmp_path / "results"))
    with served(tmp_path / "serve", *words) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(SWITCHES))
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"{server.address}/docs")
        assert "POST" in page.inner_text("h3 >> nth=0")
        # The style is let through by the policy, and nothing is refused.
        assert page.evaluate("getComputedStyle(document.querySelector('table')).borderCollapse") == "collapse"
        assert [one for one in said if "favicon" not in one and "404" not in one] == []
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / "docs.png", full_page=True)
        page.click("text=openapi.json")
        assert '"openapi"' in page.content()
        browser.close()
        assert {url.removeprefix(server.address) for url in asked} <= {"/docs", "/openapi.json", "/favicon.ico"}
        assert "bundled small models" in server.log.read_text()
        assert server.end() == 0
