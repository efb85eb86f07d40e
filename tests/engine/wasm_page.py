"""docs/demo/index.html in headless Chromium, from its file: scores, drawing by mouse and keys, examples. See wasm.sh.

Usage: python tests/engine/wasm_page.py [PICTURES]
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page, Route, sync_playwright

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "docs" / "demo"
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests" / "support"), str(DEMO)]
from conftest import TOLERANCE, run_reference  # noqa: E402
from demo_page import embedded  # noqa: E402

from tdcompress.data.digits import load_split  # noqa: E402

OWN = "https://own.test/"  # answered by this program: nothing is sent
WIDTHS = (500, 1280)
DRAWN = (
    [(0.5 + 0.22 * math.sin(turn), 0.5 - 0.34 * math.cos(turn)) for turn in np.linspace(0, 2 * math.pi, 25)],
    [(0.5, 0.12), (0.5, 0.88)],
    [(0.3, 0.25), (0.5, 0.13), (0.7, 0.3), (0.3, 0.85), (0.75, 0.85)],
    [(0.3, 0.2), (0.6, 0.15), (0.7, 0.3), (0.45, 0.48), (0.7, 0.65), (0.6, 0.85), (0.3, 0.8)],
    [(0.6, 0.88), (0.6, 0.12), (0.25, 0.62), (0.8, 0.62)],
    [(0.72, 0.14), (0.33, 0.14), (0.3, 0.45), (0.6, 0.45), (0.72, 0.65), (0.6, 0.85), (0.28, 0.85)],
    [(0.62, 0.12), (0.38, 0.4), (0.32, 0.7), (0.5, 0.87), (0.68, 0.72), (0.55, 0.55), (0.35, 0.65)],
    [(0.22, 0.18), (0.78, 0.18), (0.55, 0.5), (0.42, 0.88)],
    [
        (0.6, 0.2),
        (0.45, 0.13),
        (0.37, 0.28),
        (0.5, 0.46),
        (0.65, 0.68),
        (0.5, 0.87),
        (0.36, 0.7),
        (0.52, 0.48),
        (0.62, 0.3),
        (0.55, 0.15),
    ],
    [(0.65, 0.45), (0.45, 0.5), (0.35, 0.3), (0.5, 0.13), (0.66, 0.25), (0.63, 0.5), (0.5, 0.88)],
)
"""A line of each digit, through points of the unit square."""


def open_page(browser: Browser, width: int, scheme: str) -> Page:
    """The page, loaded, which may ask for nothing but itself and may log no error."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: sys.exit(f"the page failed: {error}"))
    url = (DEMO / "index.html").as_uri()
    page.goto(url)
    page.wait_for_function("globalThis.demo !== undefined", timeout=30_000)
    assert asked == [url], asked
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"wider than {width} pixels"
    return page


def answer(page: Page) -> str:
    return page.inner_text("#digit")


def draw(page: Page, line: Sequence[tuple[float, float]]) -> str:
    """What it answers to a line."""
    page.click("#clear")
    page.locator("#board").scroll_into_view_if_needed()
    box = page.locator("#board").bounding_box()
    assert box is not None
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in line]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=3)
    page.mouse.up()
    return answer(page)


def check_scores(page: Page) -> float:
    """All test digits; the largest difference from onnxruntime, of the largest score."""
    _, test = load_split()
    pixels = test.pixels.numpy().reshape(-1, 64)
    got = np.array(page.evaluate("images => images.map(pixels => Array.from(demo.scores(pixels)))", pixels.tolist()))
    x = ((pixels.reshape(-1, 1, 8, 8) - np.float32(4.888)) / np.float32(6.018)).astype(np.float32)
    (want,) = run_reference((DEMO / "digits.onnx").read_bytes(), {"input": x})
    assert got.shape == want.shape == (359, 10)
    worst = float(np.abs(got - want).max() / np.abs(want).max())
    assert worst <= TOLERANCE, worst
    assert (got.argmax(axis=1) == want.argmax(axis=1)).all()
    return worst


def check_use(page: Page) -> None:
    """Mouse, keys, examples."""
    assert answer(page) == "?"
    read = [draw(page, line) for line in DRAWN]
    assert read == [str(digit) for digit in range(10)], read
    assert "microseconds an image" in page.inner_text("#time")
    page.click("#clear")
    assert answer(page) == "?"
    page.focus("#board")
    page.keyboard.press("Space")
    for _ in range(12):
        page.keyboard.press("ArrowDown")
    assert answer(page) == "1"
    page.keyboard.press("Escape")
    assert answer(page) == "?"
    shown = []
    for _ in range(10):
        page.click("#example")
        shown.append(answer(page))
    assert shown == [str(digit) for digit in range(10)], shown


def check_damage(page: Page) -> None:
    """A damaged plan and a wrong array are told in words."""
    said = page.evaluate(
        """async () => {
            const said = [];
            const text = (id) => document.getElementById(id).textContent;
            const bytes = (id) => Uint8Array.from(atob(text(id)), (letter) => letter.charCodeAt(0));
            const plan = bytes("plan");
            plan[plan.length >> 1] ^= 1;
            try { await demo.model.constructor.load(bytes("module"), plan); } catch (error) { said.push(error.message); }
            try { demo.model.run([new Float32Array(63)]); } catch (error) { said.push(error.message); }
            try { demo.model.run(); } catch (error) { said.push(error.message); }
            return said;
        }"""
    )
    assert said == [
        "the plan file is damaged; compile or copy it again",
        "input: give a Float32Array of 64 numbers",
        "give a list of as many typed arrays as the model has inputs, 1: input",
    ], said


def check_own_page(browser: Browser) -> None:
    """The page that docs/wasm.md shows, with the digits as its model."""
    (shown,) = re.findall(r"```html\n(.*?)```", (ROOT / "docs" / "wasm.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    files = {
        "": ("text/html", shown.encode()),
        "tdcompress.js": ("text/javascript", (DEMO / "tdcompress.js").read_bytes()),
        "tdcompress.wasm": ("application/wasm", embedded("module")),
        "model.tdc": ("application/octet-stream", embedded("plan")),
    }

    def serve(route: Route) -> None:
        kind, body = files[route.request.url.removeprefix(OWN)]
        route.fulfill(body=body, content_type=kind)

    page = browser.new_page()
    page.route(OWN + "**", serve)
    with page.expect_console_message() as said:
        page.goto(OWN)
    (want,) = run_reference((DEMO / "digits.onnx").read_bytes(), {"input": np.zeros((1, 1, 8, 8), np.float32)})
    assert said.value.text == str(want.argmax()), said.value.text
    page.close()


def main(pictures: Path | None) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                page = open_page(browser, width, scheme)
                worst = check_scores(page)
                check_use(page)
                check_damage(page)
                if pictures is not None:
                    draw(page, DRAWN[2])
                    page.screenshot(path=pictures / f"{width}-{scheme}.png", full_page=True)
                page.close()
        check_own_page(browser)
        print(
            f"wasm: the page in Chromium {browser.version} agrees with onnxruntime on 359 digits; largest difference {worst:.1e}"
        )
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
