"""The page in a real browser, with the bundled small models: what somebody does there, and what is seen.

Screenshots are left in output/screenshots.
"""

from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import numpy as np
import pytest

from i2vgen_ms import demo
from i2vgen_ms.cli import main
from i2vgen_ms.media.clip import read_clip
from tests.app.browser import ROOT, SCREENSHOTS, SWITCHES, Server, chromium, served

pytestmark = pytest.mark.browser
PATIENCE = 240_000  # ms
ITEMS = "#gallery .thumbnail-item, #gallery button.gallery-item"
ENDED = "#live [data-state=done], #live [data-state=failed], #live [data-state=cancelled]"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The command itself; it ends well, and leaves nothing behind."""
    chromium()
    folder = tmp_path_factory.mktemp("app")
    words = ("-m", "i2vgen_ms", "app", "--device", "cpu", "--port", "0", "--folder", str(folder / "results"))
    with served(folder, *words) as running:
        yield running
        assert running.end() == 0
        assert "Traceback" not in running.log.read_text()
        found = [path for name in ("results", "tmp") for path in (folder / name).rglob("*") if not path.is_dir()]
        places = ("results", f"tmp/i2vgen-ms-app-{os.getuid()}")
        assert {str(path.relative_to(folder)) for path in found} <= {f"{at}/.i2vgen-ms-service-lock" for at in places}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=list(SWITCHES))
        yield opened
        opened.close()


@pytest.fixture
def visit(server: Server, browser: Any) -> Iterator[Callable[..., Any]]:
    """`visit('?lang=zh', locale='zh-CN')`: the page in a tab of its own; it asks no other host for anything."""
    contexts: list[Any] = []
    foreign: list[str] = []

    def go(query: str = "?lang=en", locale: str = "en-US", size: tuple[int, int] = (1360, 1000)) -> Any:
        viewport = dict(zip(("width", "height"), size, strict=True))
        context = browser.new_context(viewport=viewport, locale=locale, accept_downloads=True)
        context.set_default_timeout(60_000)
        context.on("request", lambda request: foreign.append(request.url))
        contexts.append(context)
        page = context.new_page()
        page.goto(f"{server.address}/{query}")
        begun(page)
        return page

    yield go
    for context in contexts:
        context.close()
    assert [url for url in foreign if not url.startswith((server.address, "data:", "blob:"))] == []


def begun(page: Any) -> None:
    """Waits until the page is there and has heard from the server."""
    page.wait_for_selector("#make")
    page.wait_for_function("document.querySelector('#seed input').value !== '0'")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture of the user's own: one of ours in another format, which is not recognised."""
    from PIL import Image

    path = tmp_path / "my-picture.bmp"
    Image.open(demo.sample().path).save(path)
    return path


def shot(page: Any, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(800)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def fill(page: Any, name: str, value: object) -> None:
    page.fill(f"#{name} input", str(value))
    page.keyboard.press("Tab")


def drawer(page: Any, **values: object) -> None:
    """Opens the drawer, sets numbers in it (first_steps=3), and closes it again."""
    page.click("#advanced button >> nth=0")
    page.wait_for_timeout(500)  # its fields are made now
    for name, value in values.items():
        fill(page, name.replace("_", "-"), value)
    page.click("#advanced button >> nth=0")
    page.wait_for_timeout(300)


def upload(page: Any, path: Path) -> None:
    page.set_input_files("#picture input[type=file]", path)
    page.wait_for_selector("#picture img")


def ended(page: Any) -> str:
    """The state in which the work ended, as soon as it has."""
    page.wait_for_selector(ENDED, timeout=PATIENCE)
    return str(page.get_attribute("#live [data-state]", "data-state"))


def decoded(path: Path) -> tuple[int, int, int]:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24").shape for frame in container.decode(video=0)]
    return len(frames), frames[0][1], frames[0][0]


def downloaded(page: Any, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.click("#download")
    path = folder / str(waiting.value.suggested_filename)
    waiting.value.save_as(path)
    return path


def code(page: Any, name: str) -> str:
    """The lines of a code field, without their numbers."""
    return "\n".join(page.locator(f"#{name} .cm-line").all_inner_texts())


def apart(made: Path, wanted: Path) -> float:
    """The mean difference of two videos in levels of 255."""
    frames = [np.asarray(read_clip(path, max_frames=99).frames, np.float32) for path in (made, wanted)]
    assert frames[0].shape == frames[1].shape
    return float(np.abs(frames[0] - frames[1]).mean())


def test_a_picture_becomes_two_videos_and_all_of_it_is_seen(
    visit: Callable[..., Any], picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = visit()
    assert page.inner_text("h1") == "One picture becomes a video"
    assert not page.is_visible("#refine")
    shot(page, "idle")
    upload(page, picture)
    drawer(page, first_steps=20, first_num_frames=12, second_steps=2)
    fill(page, "seed", 5)
    page.click("#make")

    previews: set[str] = set()
    shares: set[int] = set()
    left = ""
    while not page.locator(ENDED).count():
        # All at one moment: the next one may show something else.
        image, share, words = page.evaluate(
            "() => { const live = document.querySelector('#live'), one = live.querySelector('img.i2v-moving'),"
            " bar = live.querySelector('[role=progressbar]');"
            " return [one && one.src, bar && bar.getAttribute('aria-valuenow'), live.innerText]; }"
        )
        previews |= {image} if image else set()
        shares |= {int(share)} if share else set()
        left = left or next(iter(re.findall(r"Step \d+ of 20\s+\d+ % · \d+ s left", words)), "")
        if len(previews) == 2:
            shot(page, "working")
        page.wait_for_timeout(50)
    assert len(previews) >= 2, "the preview does not move"
    assert len(shares) >= 3
    assert left
    assert ended(page) == "done"
    assert "12 frames of 128 × 64, seed 5" in page.inner_text("#live")
    first = downloaded(page, tmp_path)
    assert (first.name, decoded(first)) == ("stage1-5.mp4", (12, 128, 64))
    shot(page, "stage1")

    page.fill("#text textarea", "a green dotted circle growing over a rose background")
    page.click("#refine")
    page.wait_for_selector("#live [data-state=working]")
    assert ended(page) == "done"
    assert "12 frames of 256 × 128, seed 5" in page.inner_text("#live")
    second = downloaded(page, tmp_path)
    assert (second.name, decoded(second)) == ("stage2-5.mp4", (12, 256, 128))
    page.wait_for_selector("#compare img")
    before = page.get_attribute("#compare img >> nth=0", "src")
    page.fill("#frame input[type=number]", "2")
    page.press("#frame input[type=number]", "Enter")
    page.locator("#frame input[type=range]").evaluate(
        "one => { one.value = 2; for (const kind of ['input', 'pointerup', 'mouseup', 'touchend', 'change'])"
        " one.dispatchEvent(new Event(kind, {bubbles: true})); }"
    )
    page.wait_for_function(f"document.querySelector('#compare img').getAttribute('src') !== {before!r}")
    page.click("#again button >> nth=0")
    page.wait_for_selector("#script .cm-line")
    shot(page, "done")

    # What is copied makes the same files again.
    place = tmp_path / "elsewhere"
    place.mkdir()
    shutil.copy(picture, place)
    monkeypatch.chdir(place)
    for line in code(page, "command").splitlines():
        program, *words = shlex.split(line)
        assert program == "i2vgen-ms"
        assert main.main(words) == 0
    for made in (first, second):
        assert apart(place / made.name, made) == 0
        assert (place / made.name).read_bytes() == made.read_bytes()
    (place / first.name).unlink()
    (place / second.name).unlink()
    exec(compile(code(page, "script"), "copied", "exec"), {})
    assert (place / second.name).read_bytes() == second.read_bytes()

    # The gallery: both videos, and the settings of the one that is chosen.
    items = page.locator(ITEMS)
    assert items.count() == 2
    assert "small-video-to-video" in page.inner_text("#settings")
    items.nth(0).click()
    page.wait_for_function("document.querySelector('#settings').innerText.includes('small-image-to-video')")
    assert re.search(r"Steps\s+20", page.inner_text("#settings"))
    assert not page.is_visible("#compare")
    assert "video-to-video" not in code(page, "command")


def test_a_bundled_picture_brings_its_text_and_cancelling_stops(visit: Callable[..., Any]) -> None:
    page = visit()
    page.click("#samples button >> nth=3")
    page.wait_for_selector("#picture img")
    drawer(page, first_steps=100)
    page.click("#make")
    page.wait_for_selector("#live img.i2v-moving", timeout=PATIENCE)
    assert page.is_disabled("#make")
    page.click("#cancel")
    assert ended(page) == "cancelled"
    assert "Cancelled" in page.inner_text("#live")
    assert not page.is_visible("#cancel")
    assert page.is_enabled("#make")
    shot(page, "cancelled")
    drawer(page, first_steps=1)
    page.click("#make")
    page.wait_for_selector("#live [data-state=working]")
    assert ended(page) == "done"
    assert page.input_value("#text textarea") == demo.samples()[3].text
    page.click("#again button >> nth=0")
    page.wait_for_selector("#command .cm-line")
    assert "growing.png" in code(page, "command")


def test_a_closed_page_gives_its_place_to_the_next(visit: Callable[..., Any]) -> None:
    for values in ({"first_steps": 100, "first_num_frames": 64}, {"first_steps": 1, "first_num_frames": 2}):
        page = visit()
        page.click("#samples button >> nth=0")
        page.wait_for_selector("#picture img")
        drawer(page, **values)
        page.click("#make")
        page.wait_for_selector("#live [data-state=working] [role=progressbar]")
        if values["first_steps"] == 100:
            page.wait_for_timeout(1000)
            page.context.close()
    page.wait_for_selector("#live [data-state=done]", timeout=120_000)  # the other one would take more


def test_seeds_are_rolled_kept_and_renewed(visit: Callable[..., Any]) -> None:
    page = visit()
    page.click("#samples button >> nth=1")
    page.wait_for_selector("#picture img")
    drawer(page, first_steps=1, first_num_frames=1)

    def make() -> str:
        known = page.locator(ITEMS).count()
        page.click("#make")
        page.wait_for_function(f"document.querySelectorAll({ITEMS!r}).length > {known}", timeout=PATIENCE)
        page.wait_for_selector("#make:enabled")
        assert ended(page) == "done"
        return str(page.input_value("#seed input"))

    assert make() != make()
    before = page.input_value("#seed input")
    page.click("#dice")
    page.wait_for_function(f"document.querySelector('#seed input').value !== {before!r}")
    rolled = page.input_value("#seed input")
    assert page.is_checked("#keep input")
    assert make() == make() == rolled


def test_what_goes_wrong_is_said_in_words(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit()
    page.click("#make")
    assert ended(page) == "failed"
    assert "There is no picture yet" in page.inner_text("#live")
    words = tmp_path / "words.png"
    words.write_text("these are words, and no picture")
    upload(page, words)
    page.click("#make")
    page.wait_for_function("document.querySelector('#live').innerText.includes('can be read')")
    said = page.inner_text("#live")
    assert "Choose a PNG" in said
    assert "is not a picture" in page.inner_text("#live .i2v-detail")
    assert "Traceback" not in said
    assert "/tmp" not in said
    page.wait_for_selector("#picture img", state="detached")  # it would be drawn as a broken one
    shot(page, "error")
    page.click("#samples button >> nth=0")
    page.wait_for_function("document.querySelector('#picture img')?.src.includes('circle')")
    drawer(page, first_width=1900, first_height=1080, first_num_frames=64)
    page.click("#make")
    page.wait_for_function("document.querySelector('#live').innerText.includes('more than is made here')")
    assert "this server does at most" in page.inner_text("#live")
    drawer(page, first_width=128, first_height=64, first_num_frames=4, first_steps=5000)
    page.click("#make")
    page.wait_for_function("document.querySelector('#live').innerText.includes('steps is 5000')")
    drawer(page, first_steps=1)
    large = tmp_path / "large.png"
    large.write_bytes(demo.sample().path.read_bytes() + bytes(17 * 2**20))
    page.click("#picture [aria-label='Clear'], #picture button[title='Clear'], #picture .icon-button-wrapper button")
    page.set_input_files("#picture input[type=file]", large)
    page.wait_for_selector("#picture img")
    page.click("#make")
    page.wait_for_function("document.querySelector('#live').innerText.includes('This is too large')")
    assert "at most 16777216 are taken" in page.inner_text("#live .i2v-detail")
    large.write_bytes(bytes(65 * 2**20))
    page.click("#picture .icon-button-wrapper button")
    page.set_input_files("#picture input[type=file]", large)
    page.wait_for_selector(".toast-body, [data-testid=toast-body]")
    assert re.search(r"size|large", page.inner_text(".toast-body, [data-testid=toast-body]"))


def test_a_page_that_is_loaded_again_has_its_videos_and_what_is_being_made(visit: Callable[..., Any]) -> None:
    page = visit()
    page.click("#samples button >> nth=0")
    page.wait_for_selector("#picture img")
    drawer(page, first_steps=1, first_num_frames=4)
    fill(page, "seed", 11)
    page.click("#make")
    assert ended(page) == "done"
    page.reload()
    begun(page)
    assert ended(page) == "done"
    assert "4 frames of 128 × 64, seed 11" in page.inner_text("#live")
    assert page.locator(ITEMS).count() == 1
    assert re.search(r"seed\s+11\s", page.inner_text("#settings"))
    page.fill("#text textarea", "a circle " * 40)  # more words than the encoder reads
    drawer(page, second_steps=1)
    page.click("#refine")
    page.wait_for_selector("#live [data-state=working]")
    assert ended(page) == "done"
    assert "Not all of the input reaches the video" in page.inner_text("#live .i2v-note")
    assert "these words are cut" in page.inner_text("#live .i2v-note .i2v-detail")
    shot(page, "note")

    page.click("#samples button >> nth=0")
    page.wait_for_selector("#picture img")
    drawer(page, first_steps=60, first_num_frames=4)
    page.click("#make")
    page.wait_for_selector("#live [role=progressbar][aria-valuenow]:not([aria-valuenow='0'])", timeout=PATIENCE)
    page.reload()
    begun(page)
    page.wait_for_selector("#live [data-state=working]")
    assert page.is_disabled("#make")
    assert page.locator(ITEMS).count() == 2
    beside = page.context.new_page()
    beside.goto(page.url)
    begun(beside)
    beside.wait_for_selector("#live [data-state=working]")
    beside.close()
    page.click("#cancel")
    assert ended(page) == "cancelled"
    assert visit().locator(ITEMS).count() == 0, "another browser has none of it"


def test_the_page_speaks_chinese(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit("", locale="zh-CN")
    assert page.inner_text("h1") == "让一张图片变成视频"
    assert page.inner_text("#make") == "生成视频"
    shot(page, "idle-zh")
    page.click("#make")
    assert ended(page) == "failed"
    assert "还没有图片" in page.inner_text("#live")
    words = tmp_path / "words.png"
    words.write_text("these are words, and no picture")
    upload(page, words)
    page.click("#make")
    page.wait_for_function("document.querySelector('#live').innerText.includes('文件已损坏')")
    assert page.get_attribute("#live .i2v-detail", "lang") == "en"
    shot(page, "error-zh")
    words.write_bytes(bytes(17 * 2**20))
    page.wait_for_selector("#picture img", state="detached")
    upload(page, words)
    page.click("#make")
    page.wait_for_function("document.querySelector('#live').innerText.includes('文件太大')")
    assert "请换一张小一些的图片" in page.inner_text("#live")
    page.reload()
    begun(page)
    page.click("#samples button >> nth=2")
    page.wait_for_selector("#picture img")
    drawer(page, first_steps=12, second_steps=2)
    page.click("#make")
    page.wait_for_selector("#live img.i2v-moving", timeout=PATIENCE)
    shot(page, "working-zh")
    assert ended(page) == "done"
    page.click("#refine")
    page.wait_for_selector("#live [data-state=working]")
    assert ended(page) == "done"
    page.wait_for_selector("#compare img")
    page.click("#again button >> nth=0")
    shot(page, "done-zh")
    page.click("#language >> text=English")
    page.wait_for_function("document.querySelector('#make').innerText === 'Make the video'")
    page.wait_for_function("document.querySelector('#live').innerText.includes('Stage 2 is done')")
    page.wait_for_function("document.querySelector('#settings').innerText.includes('Sampler')")
    assert visit("?lang=zh").inner_text("#refine, #make") == "生成视频"


def test_a_narrow_window_shows_all_of_it(visit: Callable[..., Any]) -> None:
    for language in ("en", "zh"):
        page = visit(f"?lang={language}", size=(390, 844))
        fits(page)
        shot(page, f"narrow-idle-{language}")
        page.click("#samples button >> nth=0")
        page.wait_for_selector("#picture img")
        drawer(page, first_steps=2, second_steps=1, first_num_frames=4)
        page.click("#advanced button >> nth=0")
        page.click("#make")
        page.wait_for_selector("#live [data-state=working]")
        assert ended(page) == "done"
        page.click("#refine")
        page.wait_for_selector("#live [data-state=working]")
        assert ended(page) == "done"
        page.wait_for_selector("#compare img")
        page.click("#again button >> nth=0")
        fits(page)
        shot(page, f"narrow-done-{language}")


def fits(page: Any) -> None:
    """Nothing is wider than the window, or is cut at its edge."""
    page.wait_for_timeout(500)
    wide = page.evaluate(
        "() => [...document.querySelectorAll('.gradio-container *')].filter(one => {"
        " const box = one.getBoundingClientRect();"
        " return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1)"
        " && !one.closest('.cm-editor, .image-frame, #compare, svg') && getComputedStyle(one).visibility !== 'hidden';"
        " }).map(one => one.tagName + '.' + one.className).slice(0, 5)"
    )
    assert wide == []


def ask(server: Server, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    at = urlsplit(server.address)
    connection = http.client.HTTPConnection(str(at.hostname), at.port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def test_nothing_of_this_machine_is_told_and_other_names_are_not_answered(server: Server) -> None:
    status, headers, body = ask(server, "/")
    assert (status, headers["x-content-type-options"]) == (200, "nosniff")
    assert "default-src 'self'" in headers["content-security-policy"]
    assert str(ROOT).encode() not in body
    assert ask(server, "/", Host="evil.example")[0] == 400
    for path in ("/etc/passwd", str(ROOT / "setup.cfg"), str(demo.sample().path), "http://127.0.0.1:1/x"):
        assert ask(server, f"/gradio_api/file={path}")[0] in (403, 404), path
    assert ask(server, "/gradio_api/proxy=http://127.0.0.1:1/x")[0] >= 400
    assert ask(server, "/monitoring")[0] >= 400
    assert ask(server, "/gradio_api/deep_link?session_hash=x")[0] == 404
    info = ask(server, "/gradio_api/info")[2].decode()
    assert '"named_endpoints":{}' in info.replace(" ", "")


def test_the_app_of_a_studio_starts(tmp_path: Path, browser: Any) -> None:
    port = "17861"
    words = (str(ROOT / "examples" / "app.py"),)
    with served(tmp_path / "studio", *words, GRADIO_SERVER_NAME="0.0.0.0", GRADIO_SERVER_PORT=port) as running:
        assert running.address.endswith(f":{port}")
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#make")
        page.close()
        assert running.end() == 0
