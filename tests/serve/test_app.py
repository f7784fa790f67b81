"""The HTTP API: each route and each way to be refused, as a client sees them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
from collections.abc import AsyncIterator, Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from i2vgen_ms.pipelines import ClipWarning
from i2vgen_ms.serve import body as bodies
from i2vgen_ms.serve import description
from i2vgen_ms.service import Models
from tests.serve.conftest import Client, until
from tests.service.stages import VIDEO

PICTURE = base64.b64encode(b"a picture").decode()
SMALL = {"steps": 2}


def post(client: Client, **values: Any) -> Any:
    return client.post("/v1/jobs", json={"data": PICTURE, "arguments": SMALL, **values})


def problem(response: Any, status: int, kind: str) -> str:
    """The words of an error response, whose shape is always the same."""
    assert response.status_code == status, response.text
    (error,) = response.json().values()
    assert set(error) == {"type", "message"}
    assert error["type"] == kind
    assert response.headers["content-type"] == "application/json"
    return str(error["message"])


def test_from_a_picture_to_a_video(client: Client, models: Models) -> None:
    sent = post(client, kind="image-to-video", seed=5)
    assert sent.status_code == 202
    key = sent.json()["id"]
    assert sent.headers["location"] == f"/v1/jobs/{key}"
    done = until(client, key, "done")
    assert done["result"] == {"url": f"/v1/jobs/{key}/result", "bytes": len(VIDEO), "content_type": "video/mp4"}
    assert (done["seed"], done["progress"], done["error"], done["preview"]) == (5, 1.0, None, None)
    video = client.get(done["result"]["url"])
    assert (video.content, video.headers["content-type"]) == (VIDEO, "video/mp4")
    assert video.headers["content-length"] == str(len(VIDEO))
    part = client.get(done["result"]["url"], headers={"Range": "bytes=2-6"})
    assert (part.status_code, part.content) == (206, VIDEO[2:7])
    assert models.first.given == [{"source": b"a picture", "text": None, "steps": 2, "seed": 5}]


def test_a_form_says_the_same(client: Client, models: Models) -> None:
    fields = {"kind": "video-to-video", "text": "a boat", "seed": "3", "arguments": '{"steps": 1}'}
    key = client.post("/v1/jobs", data=fields, files={"file": ("c.mp4", b"a clip")}).json()["id"]
    until(client, key, "done")
    assert models.second.given == [{"source": b"a clip", "text": "a boat", "steps": 1, "seed": 3}]
    key = post(client, data=f"data:image/png;base64,{PICTURE}").json()["id"]  # as browsers make them
    until(client, key, "done")
    assert models.first.given[0]["source"] == b"a picture"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "the body is not JSON"),
        (b"[" * 9_000, "nested too deep"),
        (b"[" * 10_001, "the body has 10001 commas, colons and brackets, where a job needs a few; at most 10000"),
        (b"\xff\xfe", "the body is not JSON"),
        (b"[1]", "not a JSON object"),
        ({"image": PICTURE}, "there is no field 'image'"),
        ({}, "data: the bytes of a picture or a clip are missing"),
        ({"data": 3}, "data: the bytes of a picture"),
        ({"data": "/etc/passwd!"}, "data: this is not base64"),
        ({"data": "http://169.254.169.254/latest"}, "addresses are not fetched here"),
        ({"data": ""}, "the picture is empty"),
        ({"data": PICTURE, "kind": "audio"}, "kind: 'audio' is unknown"),
        ({"data": PICTURE, "kind": ["animate"]}, "kind: "),
        ({"data": PICTURE, "seed": "1"}, "seed must be a whole number"),
        ({"data": PICTURE, "seed": True}, "seed must be a whole number"),
        ({"data": PICTURE, "preview": 1}, "preview must be true or false"),
        ({"data": PICTURE, "arguments": [1]}, "arguments must be an object"),
        ({"data": PICTURE, "arguments": {"steps": 101}}, "steps is 101, and this server does at most 100"),
        ({"data": PICTURE, "arguments": {"steps": "20"}}, "steps='20'"),
        ({"data": PICTURE, "arguments": {"output": "/etc/cron.d/x"}}, "no argument 'output'"),
        ({"data": PICTURE, "kind": "animate", "arguments": SMALL}, "give first and second"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_wrong_with_a_request_is_said(client: Client, models: Models, body: Any, words: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = client.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    kinds = {"the picture is empty": "unreadable_media", "steps is 101, and this server does at most 100": "limit"}
    assert words in problem(answer, 400, kinds.get(words, "argument"))
    assert models.first.calls == 0


@pytest.mark.parametrize(
    ("fields", "files", "words"),
    [
        ({}, {}, "file: a picture or a clip is missing"),
        ({"file": "not a file"}, {"kind": b"x"}, "file: a picture or a clip is missing"),
        ({"seed": "one"}, {"file": b"x"}, "seed: 'one' is not JSON"),
        ({"colour": "red"}, {"file": b"x"}, "there is no field 'colour'"),
        ({"text": ["a", "b"]}, {"file": b"x"}, "stands there twice"),
        ({"text": "x" * 70_000}, {"file": b"x"}, "the form cannot be read"),
        ({}, {"file": b"x", "text": b"x"}, "the form cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_wrong_with_a_form_is_said(client: Client, fields: Any, files: Any, words: str) -> None:
    if not files:
        files = {"none": (None, "x")}  # so that it is a form with parts at all
        words = "there is no field 'none'"
    assert words in problem(client.post("/v1/jobs", data=fields, files=files), 400, "argument")


def test_every_mark_of_a_body_counts(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MARKS", 10)
    assert post(client, text="one, two").status_code == 202
    for mark in (",", ":", "[", "{"):
        words = problem(post(client, text=mark * 11), 400, "argument")
        assert "commas, colons and brackets, where a job needs a few; at most 10" in words


def test_a_place_is_taken_until_the_body_is_decoded(
    client_of: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(uploads=1)
    decoding, go, submit = threading.Event(), threading.Event(), client.service.submit

    def slow(request: Any) -> Any:
        decoding.set()
        assert go.wait(10)
        return submit(request)

    monkeypatch.setattr(client.service, "submit", slow)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(post(client)))
    thread.start()
    assert decoding.wait(10)
    assert "too many requests" in problem(post(client), 503, "busy")
    go.set()
    thread.join(10)
    assert [answer.status_code for answer in (*answers, post(client))] == [202, 202]


def test_what_a_request_says_is_not_said_again_at_length(client: Client) -> None:
    for arguments in ({"sampler": "x" * 5000}, {"crop": "y" * 5000}, {"z" * 5000: 1}):
        assert len(problem(post(client, arguments=arguments), 400, "argument")) <= 1000


def test_other_content_and_other_places(client: Client) -> None:
    assert "send application/json" in problem(client.post("/v1/jobs", content=b"x"), 415, "unsupported_media_type")
    problem(client.get("/v1/nothing"), 404, "not_found")
    problem(client.request("PUT", "/v1/jobs"), 405, "method_not_allowed")
    problem(client.get("/v1/jobs/none"), 404, "unknown_job")
    problem(client.get("/v1/jobs/none/result"), 404, "unknown_job")
    problem(client.delete("/v1/jobs/none"), 404, "unknown_job")
    problem(client.get("/v1/jobs/../../etc/passwd"), 404, "not_found")
    assert "preview" in problem(client.get("/v1/jobs/none?preview=7"), 400, "bad_request")


def test_a_result_is_not_there_yet_or_not_any_more(client: Client, models: Models) -> None:
    models.first.go.clear()
    key = post(client).json()["id"]
    until(client, key, "running")
    assert "the job is running" in problem(client.get(f"/v1/jobs/{key}/result"), 409, "not_done")
    assert client.delete(f"/v1/jobs/{key}").status_code == 202
    models.first.go.set()
    until(client, key, "cancelled")
    problem(client.get(f"/v1/jobs/{key}/result"), 410, "gone")
    key = post(client).json()["id"]
    until(client, key, "done")
    removed = client.delete(f"/v1/jobs/{key}")
    assert (removed.status_code, removed.json()["result"]) == (202, None)
    problem(client.get(f"/v1/jobs/{key}/result"), 410, "gone")


def test_a_result_that_is_removed_while_it_is_asked_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    key = post(client).json()["id"]
    until(client, key, "done")
    result = client.service.result

    def removed(asked: str) -> Any:
        path = result(asked)
        client.service.cancel(asked)  # by another client, or for its age
        return path

    monkeypatch.setattr(client.service, "result", removed)
    assert "removed" in problem(client.get(f"/v1/jobs/{key}/result"), 410, "gone")


def test_a_failed_job_tells_nothing_of_the_machine(client: Client, models: Models) -> None:
    models.first.error = FileNotFoundError(2, "No such file", "/models/of/the/house/weights.pth")
    key = post(client).json()["id"]
    error = until(client, key, "failed")["error"]
    assert error == {"type": "internal", "message": "the server could not do this; its log says why"}
    problem(client.get(f"/v1/jobs/{key}/result"), 410, "gone")


def test_warnings_stand_in_the_status(client: Client, models: Models) -> None:
    models.first.cautions = [ClipWarning("left out: 3 frames after frame 4")]
    key = post(client).json()["id"]
    assert until(client, key, "done")["warnings"] == [{"type": "clip", "message": "left out: 3 frames after frame 4"}]
    models.first.cautions = []
    assert until(client, post(client).json()["id"], "done")["warnings"] == []


def test_previews_are_jpegs(client: Client, models: Models) -> None:
    seen = threading.Event()
    models.first.pause = 0.05
    key = post(client, preview=True, arguments={"steps": 100}).json()["id"]
    while not seen.is_set():
        preview = client.get(f"/v1/jobs/{key}", params={"preview": "true"}).json()["preview"]
        if preview is not None:
            seen.set()
    assert client.get(f"/v1/jobs/{key}").json()["preview"] is None
    client.delete(f"/v1/jobs/{key}")
    assert preview["part"] == "image-to-video"
    pictures = [Image.open(io.BytesIO(base64.b64decode(frame))) for frame in preview["frames"]]
    assert [(picture.format, picture.size) for picture in pictures] == [("JPEG", (8, 8))] * 4


def test_a_full_queue_is_said_before_the_body_is_read(client_of: Callable[..., Client], models: Models) -> None:
    client = client_of(queue=1)
    models.first.go.clear()
    until(client, post(client).json()["id"], "running")
    assert post(client).status_code == 202
    for body in (json.dumps({"data": PICTURE}), "nobody reads this"):
        answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert "the queue is full" in problem(answer, 503, "busy")
        assert 1 <= int(answer.headers["retry-after"]) <= 600
    assert client.get("/health").status_code == 200


def test_bodies_have_a_limit(client_of: Callable[..., Client]) -> None:
    client = client_of(limits={"picture_bytes": 9, "video_bytes": 12})
    limit = 12 // 3 * 4 + (1 << 20)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b"x" * 4096

    for content in (b"x" * (limit + 1), pieces()):  # announced; in pieces
        answer = client.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
        assert f"{limit}" in problem(answer, 413, "too_large")
    longer = base64.b64encode(b"x" * 10).decode()
    assert "the picture has 10 bytes; at most 9" in problem(post(client, data=longer), 413, "media_limit")
    assert post(client, data=longer, kind="video-to-video", arguments=SMALL).status_code == 202
    problem(client.request("GET", "/health", content=b"x"), 413, "too_large")


def test_the_token(client_of: Callable[..., Client]) -> None:
    client = client_of(token="correct horse")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic correct horse"},
                    {"Authorization": "Bearer correct hors\xe9".encode("latin-1")}):  # fmt: skip
        for method, path in (
            ("POST", "/v1/jobs"),
            ("GET", "/v1/jobs/x"),
            ("DELETE", "/v1/jobs/x"),
            ("GET", "/metrics"),
        ):
            answer = client.request(method, path, headers=headers)
            assert "Bearer" in problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
    right = {"Authorization": "Bearer correct horse"}
    problem(client.get("/v1/jobs/x", headers=right), 404, "unknown_job")
    assert client.get("/metrics", headers=right).status_code == 200
    assert client.get("/health").status_code == client.get("/openapi.json").status_code == 200


def test_other_pages_and_other_names_are_refused(client_of: Callable[..., Client]) -> None:
    client = client_of(hosts=("localhost", "127.0.0.1", "[::1]"))
    for origin in ("http://evil.example", "null", "http://localhost.evil.example"):
        problem(client.get("/health", headers={"Origin": origin}), 403, "forbidden")
    assert client.get("/health", headers={"Origin": "http://localhost"}).status_code == 200
    for host, status in (("evil.example", 421), ("localhost:8000", 200), ("[::1]:8000", 200), ("127.0.0.1", 200)):
        assert client.get("/health", headers={"Host": host}).status_code == status


def test_health_and_metrics(client: Client, models: Models) -> None:
    until(client, post(client).json()["id"], "done")
    post(client, kind="audio")
    while client.service.stats().workers != (("cpu", "idle"),):
        pass
    health = client.get("/health").json()
    assert health["status"] == "ok"
    assert health["kinds"] == ["image-to-video", "video-to-video", "animate"]
    assert health["workers"] == [{"device": "cpu", "state": "idle"}]
    families = text_string_to_metric_families(client.get("/metrics").text)
    values = {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}
    assert values["i2vgen_ms_jobs_taken_total", "image-to-video"] == 1
    assert values["i2vgen_ms_jobs_refused_total", "argument"] == 1
    assert values["i2vgen_ms_jobs_finished_total", "image-to-video", "done"] == 1
    assert values["i2vgen_ms_job_seconds_count", "image-to-video"] == 1
    assert (values["i2vgen_ms_queue_length",], values["i2vgen_ms_queue_room",]) == (0, 8)
    assert values["i2vgen_ms_worker", "cpu", "idle"] == 1
    assert values["process_resident_memory_bytes",] > 0


def test_ending_is_said(client: Client) -> None:
    client.service.drain()
    assert "the service is ending" in problem(post(client), 503, "busy")
    health = client.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "ending")


def test_the_description_names_all(client: Client) -> None:
    described = client.get("/openapi.json").json()
    routes = {(method, path) for path, methods in described["paths"].items() for method in methods}
    assert routes == {
        ("post", "/v1/jobs"),
        ("get", "/v1/jobs/{id}"),
        ("delete", "/v1/jobs/{id}"),
        ("get", "/v1/jobs/{id}/result"),
        ("get", "/health"),
        ("get", "/metrics"),
    }
    body = described["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert "503" in described["paths"]["/v1/jobs"]["post"]["responses"]


def test_the_description_is_a_page_that_fetches_nothing(client: Client) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    found: list[tuple[str, dict[str, str | None]]] = []
    reader = HTMLParser()
    reader.handle_starttag = lambda tag, attributes: found.append((tag, dict(attributes)))  # type: ignore[method-assign]
    reader.feed(answer.text)
    tags = {tag for tag, _ in found}
    assert tags & {"script", "link", "img", "iframe", "object", "base", "form"} == set()
    anchors = {f"#{attributes['id']}" for _, attributes in found if "id" in attributes}
    links = {attributes["href"] for _, attributes in found if "href" in attributes}
    assert links <= anchors | {"openapi.json"}
    assert not any(name in ("src", "srcset", "style") or name.startswith("on") for _, named in found for name in named)
    assert "url(" not in answer.text
    style = answer.text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}';" in answer.headers["content-security-policy"]

    described = client.get("/openapi.json").json()
    for path, methods in described["paths"].items():
        for method in methods:
            assert f"<b>{method.upper()}</b> <code>{path}</code>" in answer.text
    for name, schema in described["components"]["schemas"].items():
        assert f'id="{name}"' in answer.text
        assert all(f"<code>{field}</code>" in answer.text for field in schema["properties"])
    for field in ("data", "file", "kind", "preview", "arguments"):
        assert f"<code>{field}</code>" in answer.text
    assert "Queue a job. 503 with Retry-After" in answer.text


def test_the_description_says_what_it_is_given_as_words() -> None:
    hostile = {"info": {"title": "<b>", "version": "1", "description": "<script>`x`"}, "paths": {}}
    shown = description.page(hostile)
    assert "&lt;script&gt;<code>x</code>" in shown
    assert "<title>&lt;b&gt; 1</title>" in shown
