"""Finding and downloading models, against a hub on the loopback interface with ModelScope's real client."""

from __future__ import annotations

import json
import os
import socket
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from i2vgen_ms import hub
from i2vgen_ms.errors import HubError
from i2vgen_ms.hub import cache, transfer
from tests.plugin.loopback_hub import LoopbackHub

MODEL = "damo/Image-to-Video"
WEIGHTS = {"ckpt_clip": "clip.bin", "ckpt_unet": "unet.pth", "ckpt_autoencoder": "vae.ckpt"}


def make_folder(folder: Path, task: str = "image-to-video", size: int = 3000) -> Path:
    folder.mkdir(parents=True)
    kinds = {"image-to-video": ("image-to-video-model", "image-to-video-task-pipeline")}
    model, pipeline = kinds.get(task, ("other", "other"))
    values = {
        "framework": "pytorch",
        "task": task,
        "model": {"type": model, "model_args": {**WEIGHTS, "seed": 666}, "model_cfg": {}},
        "pipeline": {"type": pipeline},
    }
    (folder / "configuration.json").write_text(json.dumps(values))
    (folder / "README.md").write_text("# a model")
    for i, name in enumerate(WEIGHTS.values()):
        (folder / name).write_bytes(bytes([65 + i]) * (size + i))
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty cache, and an endpoint at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("MODELSCOPE_DOMAIN", raising=False)
    monkeypatch.delenv("I2VGEN_MS_OFFLINE", raising=False)
    return tmp_path


@pytest.fixture
def server(place, monkeypatch):
    with LoopbackHub({(MODEL, "v1.1.0"): make_folder(place / "origin")}) as running:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", running.endpoint)
        yield running


def same_files(one: Path, other: Path) -> bool:
    names = {path.name for path in one.iterdir()}
    return names == {path.name for path in other.iterdir()} and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )


def test_a_folder_is_itself(place):
    assert hub.resolve(make_folder(place / "here")) == place / "here"


def test_download_then_no_request(server, place):
    folder = hub.resolve(MODEL, "v1.1.0")
    assert folder == place / "cache/models/damo--Image-to-Video/snapshots/v1.1.0"
    assert same_files(folder, place / "origin")
    server.log.clear()
    assert hub.resolve(MODEL, "v1.1.0") == folder
    assert hub.resolve(MODEL) == folder  # the only one
    assert server.log == []
    assert [str(entry) for entry in hub.cached()] == ["damo/Image-to-Video (v1.1.0)"]


def test_modelscopes_own_client_finds_what_we_downloaded(server):
    from modelscope_hub import HubApi
    from modelscope_hub.config import HubConfig

    folder = hub.download(MODEL, "v1.1.0")
    found = HubApi(HubConfig()).download_repo(MODEL, "model", revision="v1.1.0", local_files_only=True)
    assert Path(found) == folder


def test_download_brings_a_changed_file(server, place):
    folder = hub.download(MODEL, "v1.1.0")
    (place / "origin/unet.pth").write_bytes(b"new" * 500)
    hub.download(MODEL, "v1.1.0")
    assert (folder / "unet.pth").read_bytes() == b"new" * 500


def test_download_resumes(server, place):
    folder = cache.snapshot_folder(MODEL, "v1.1.0")
    folder.mkdir(parents=True)
    (folder / "unet.pth.incomplete").write_bytes(b"B" * 1000)
    hub.download(MODEL, "v1.1.0")
    assert same_files(folder, place / "origin")
    assert not list(folder.glob("*.incomplete"))


def test_a_body_that_ends_early_is_completed(server, place):
    server.cut_after = 1200
    assert same_files(hub.download(MODEL, "v1.1.0"), place / "origin")


def test_a_server_error_passes(server, place):
    server.failures = 2
    assert same_files(hub.download(MODEL, "v1.1.0"), place / "origin")


def test_an_interrupted_download_is_not_cached(server, place, monkeypatch):
    folder = hub.download(MODEL, "v1.1.0")
    (folder / "vae.ckpt").unlink()
    assert hub.find(MODEL, "v1.1.0") is None
    with pytest.raises(HubError, match=r"v1\.1\.0, incomplete: vae\.ckpt missing"):
        hub.resolve(MODEL, "v1.1.0", local_files_only=True)
    assert same_files(hub.resolve(MODEL, "v1.1.0"), place / "origin")


def test_wrong_sum(server, monkeypatch):
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0.0)
    server.wrong_sum = True
    with pytest.raises(HubError, match=r"damo/Image-to-Video at revision .v1\.1\.0."):
        hub.download(MODEL, "v1.1.0")
    assert hub.find(MODEL, "v1.1.0") is None


@pytest.mark.parametrize("name", ["../../escaped.txt", "/etc/escaped", "a/../../b", "C:\\x", "..", "x\ny"])
def test_a_name_that_leaves_the_folder_is_refused(server, place, name):
    server.extra_files = [{"Path": name, "Name": "x", "Type": "blob", "Size": 1, "Sha256": None}]
    with pytest.raises(HubError, match="refused"):
        hub.download(MODEL, "v1.1.0")
    assert not list(place.rglob("*escaped*"))
    assert not cache.snapshot_folder(MODEL, "v1.1.0").exists()


def test_disk_space_is_checked_first(server, monkeypatch):
    usage = SimpleNamespace(free=transfer.SPARE_BYTES + 5000)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(HubError, match=r"needs 0\.00 GB more.*MODELSCOPE_CACHE"):
        hub.download(MODEL, "v1.1.0")
    assert not cache.snapshot_folder(MODEL, "v1.1.0").exists()


def test_unknown_model_and_revision(server):
    with pytest.raises(HubError, match="damo/Nothing"):
        hub.resolve("damo/Nothing")
    with pytest.raises(HubError, match=r"v9.*In the cache"):
        hub.resolve(MODEL, "v9")


def test_another_task_stops_after_its_configuration(server, place):
    server.models["damo/other", "master"] = make_folder(place / "other", task="text-classification")
    with pytest.raises(hub.NotOursError):
        hub.resolve("damo/other")
    assert not [line for line in server.log if "FilePath=unet.pth" in line]
    assert not hub.is_ours("damo/other")


def test_hub_down_says_what_is_cached_within_seconds(place):
    make_folder(cache.snapshot_folder(MODEL, "v1.0.0"))
    start = time.monotonic()
    with pytest.raises(HubError, match=r"cannot be reached.*damo/Image-to-Video \(v1\.0\.0\)"):
        hub.resolve(MODEL, "v1.1.0")
    assert time.monotonic() - start < 5
    assert hub.resolve(MODEL, "v1.0.0").name == "v1.0.0"


DOWN = (
    "the hub {} cannot be reached ({}), so damo/Image-to-Video at revision 'v1.1.0' cannot be downloaded: check the "
    "network connection and MODELSCOPE_ENDPOINT, or use a model that is on this machine. "
)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("nobody listens", "Connection refused"),
        ("no such name", "Name or service not known"),
        ("no such proxy", "the proxy: Connection refused"),
        ("hangs up", "Remote end closed connection without response"),
        ("fails", "it answers with HTTP 500"),
        ("is silent", "no answer in time"),
    ],
)
def test_hub_down_is_one_sentence_that_says_what_to_do(server, monkeypatch, how, reason):
    """Not the nested texts of the client's exceptions: the cause alone, and every word of the rest is ours."""
    if how in ("nobody listens", "no such proxy"):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
        monkeypatch.setenv(*(("http_proxy", nobody) if "proxy" in how else ("MODELSCOPE_ENDPOINT", nobody)))
    if how in ("no such name", "no such proxy"):
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://hub.invalid")
        monkeypatch.setattr(socket, "getaddrinfo", partial(resolved, socket.getaddrinfo))
    monkeypatch.setattr(transfer, "READ_SECONDS", 0.3)
    if how in ("hangs up", "is silent"):
        monkeypatch.setattr(server, "_answer", partial(misbehave, how))
    server.failures = 3 if how == "fails" else 0
    with pytest.raises(HubError) as error:
        hub.resolve(MODEL, "v1.1.0")
    endpoint = os.environ["MODELSCOPE_ENDPOINT"]
    assert str(error.value) == DOWN.format(endpoint, reason) + cache.describe()


def resolved(real, host, *given, **named):
    """Names are resolved without asking a name server."""
    if host == "hub.invalid":
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return real(host, *given, **named)


def misbehave(how, request, *, body):
    """Instead of an answer of the hub."""
    if how == "is silent":
        time.sleep(0.6)
    request.close_connection = True


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("hangs up", "the connection to the hub broke off (Remote end closed connection without response); run it"),
        ("fails", "the hub answers with HTTP 500; run it again later, it goes on where it stopped. In the cache"),
    ],
)
def test_a_hub_that_goes_down_on_the_way(server, place, monkeypatch, how, words):
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_RETRY_TIMES", 0)
    steps = transfer.fetch(MODEL, "v1.1.0")
    next(steps)
    if how == "fails":
        server.failures = 10**6
    else:
        monkeypatch.setattr(server, "_answer", partial(misbehave, how))
    with pytest.raises(HubError) as error:
        next(steps)
    assert str(error.value).startswith(f"damo/Image-to-Video at revision 'v1.1.0': {words}")


def test_what_the_hub_does_not_have(server):
    with pytest.raises(HubError, match=r"damo/Nothing at revision 'v2': the hub has no such model, revision or file"):
        hub.resolve("damo/Nothing", "v2")


def test_a_hub_that_never_answers(place, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(transfer, "READ_SECONDS", 0.3)
        start = time.monotonic()
        with pytest.raises(HubError, match="cannot be reached"):
            hub.resolve(MODEL, "v1.1.0")
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_offline_asks_nobody(server, monkeypatch, how):
    if how == "variable":
        monkeypatch.setenv("I2VGEN_MS_OFFLINE", "1")
    with pytest.raises(HubError, match="forbids to ask the hub"):
        hub.resolve(MODEL, "v1.1.0", local_files_only=how == "argument")
    if how == "variable":
        with pytest.raises(HubError, match="I2VGEN_MS_OFFLINE"):
            hub.download(MODEL, "v1.1.0")
    assert server.log == []


@pytest.mark.parametrize(
    "layout", ["models/damo/Image-to-Video", "hub/models/damo/Image-to-Video", "damo/Image-to-Video"]
)
def test_caches_of_older_clients(place, layout):
    folder = make_folder(place / "cache" / layout)
    (folder / ".mv").write_text("Revision:v1.1.0,CreatedAt:1700000000")
    assert hub.resolve(MODEL, "v1.1.0") == folder
    with pytest.raises(HubError, match=r"\(v1\.1\.0\)"):  # not served for another revision
        hub.resolve(MODEL, "v1.0.0", local_files_only=True)


def test_a_cache_of_unknown_revision_is_used_only_without_a_hub_and_says_so(place):
    folder = make_folder(place / "cache/hub/models/damo/Image-to-Video")
    assert hub.find(MODEL, "v1.1.0") is None
    with pytest.warns(hub.HubWarning, match="another revision"):
        assert hub.resolve(MODEL, "v1.1.0") == folder


def test_the_default_branch_before_others(place):
    for revision in ("v1.0.0", "master", "v1.1.0"):
        make_folder(cache.snapshot_folder(MODEL, revision))
    assert hub.resolve(MODEL).name == "master"


def test_several_revisions_and_none_wanted(place):
    for revision in ("v1.0.0", "v1.1.0"):
        make_folder(cache.snapshot_folder(MODEL, revision))
    with pytest.raises(HubError, match=r"v1\.0\.0.*v1\.1\.0"):
        hub.resolve(MODEL, local_files_only=True)


def test_bundled_ids(place, monkeypatch):
    monkeypatch.setattr(cache.data, "configuration_folder", lambda: place / "configuration")
    make_folder(place / "configuration/small")
    bare = make_folder(place / "configuration/bare")
    (bare / "unet.pth").unlink()
    assert hub.resolve("i2vgen-ms/small") == place / "configuration/small"
    with pytest.raises(HubError, match="i2vgen-ms/small"):
        hub.resolve("i2vgen-ms/bare")


@pytest.mark.parametrize("name", ["nonsense", "./no/such/folder", "../x", "a/b/c", "", "damo/Image to Video", "x\0/y"])
def test_neither_a_folder_nor_an_id(place, name):
    with pytest.raises(HubError):
        hub.resolve(name)


def test_a_revision_stays_inside(place):
    with pytest.raises(HubError, match="not the name of a revision"):
        hub.resolve(MODEL, "../../..")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"task": 3}', '{"task": "image-to-video", "model": 3}', '{"task": ["image-to-video"]}']
)
def test_a_damaged_cache_is_no_cache(place, text):
    folder = cache.snapshot_folder(MODEL, "v1.1.0")
    folder.mkdir(parents=True)
    (folder / "configuration.json").write_text(text)
    assert len(hub.cached()) <= 1
    assert not hub.is_ours("damo/other")
