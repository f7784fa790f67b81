"""Jobs from the queue to the file: done, refused, cancelled, failed, waited too long, kept too long."""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from i2vgen_ms import errors
from i2vgen_ms.media.audio import AudioWarning
from i2vgen_ms.pipelines import ClipWarning
from i2vgen_ms.service import Models, RequestLimits, Service, ServiceSettings
from i2vgen_ms.service.job import Failure
from i2vgen_ms.service.store import Store
from tests.service.conftest import until
from tests.service.stages import VIDEO, FakeStage, asked, both

Serving = Callable[..., Service]


def test_a_job_is_done_and_says_how_far_it_is(serving: Serving, models: Models) -> None:
    service = serving(preview_seconds=0.001)
    models.first.go.clear()
    key = service.submit(asked(preview=True, seed=7)).id
    running = until(service, key, "running")
    assert (running.stage, running.waiting, running.seconds_left, running.preview) == ("starting", None, None, None)
    with pytest.raises(errors.NotDoneError, match="the job is running"):
        service.result(key)
    models.first.go.set()
    done = until(service, key, "done")
    assert (done.seed, done.progress, done.failure, done.size) == (7, 1.0, None, len(VIDEO))
    assert (done.part, done.stage, done.step, done.steps) == ("image-to-video", "decoding", 1, 1)
    assert service.result(key).read_bytes() == VIDEO
    assert models.first.given == [{"source": b"picture", "text": None, "steps": 2, "seed": 7}]


def test_previews_are_those_of_the_latest_step(serving: Serving, models: Models) -> None:
    service, stage = serving(preview_seconds=0.001, preview_frames=3), models.first
    seen: list[Any] = []
    call = stage.__class__.__call__

    def watched(self: Any, *source: Any, progress: Any, **given: Any) -> Any:
        def told(event: Any) -> Any:
            answer = progress(event)
            seen.append(service.status(key).preview)
            time.sleep(0.02)
            return answer

        return call(self, *source, progress=told, **given)

    models.first.__class__ = type("Watched", (FakeStage,), {"__call__": watched})
    stage.go.clear()
    key = service.submit(asked(preview=True, first={"steps": 3})).id
    stage.go.set()
    assert until(service, key, "done").preview is None  # the video is there instead
    assert [(preview.number, preview.step) for preview in seen] == [(1, 1), (2, 2), (3, 3), (3, 3)]
    np.testing.assert_array_equal(seen[1].frames, np.full((3, 8, 8, 3), 170))
    seen.clear()
    key = service.submit(asked(first={"steps": 3})).id
    until(service, key, "done")
    assert seen == [None] * 4  # nobody asked


def test_a_full_queue_refuses_at_once_and_keeps_its_order(serving: Serving, models: Models) -> None:
    service = serving(queue=2)
    models.first.go.clear()
    first = service.submit(asked()).id
    until(service, first, "running")
    waiting = [service.submit(asked(seed=seed)) for seed in (1, 2)]
    assert [status.waiting for status in waiting] == [0, 1]
    before = time.monotonic()
    for refuse in (service.refuse, lambda: service.submit(asked())):
        with pytest.raises(errors.BusyError, match="the queue is full: 2 jobs are waiting; try again in 10") as caught:
            refuse()
        assert caught.value.retry_after == 10
    assert time.monotonic() - before < 0.5
    assert service.stats().healthy  # to be full is not to be ill
    models.first.go.set()
    for status in waiting:
        until(service, status.id, "done")
    assert [given.get("seed") for given in models.first.given] == [None, 1, 2]


def test_cancelling(serving: Serving, models: Models) -> None:
    service = serving()
    models.first.go.clear()
    running, queued = (service.submit(asked(first={"steps": 50})).id for _ in range(2))
    until(service, running, "running")
    assert service.cancel(queued).state == "cancelled"
    assert service.cancel(running).state == "running"  # until the step is over
    models.first.go.set()
    stopped = until(service, running, "cancelled")
    assert (stopped.stage, stopped.step, stopped.steps) == ("sampling", 1, 50)
    assert models.first.calls == 1
    for key in (running, queued):
        with pytest.raises(errors.GoneError, match="the job is cancelled: there is no result"):
            service.result(key)
    done = service.submit(asked()).id
    path = (until(service, done, "done"), service.result(done))[1]
    assert service.cancel(done).state == "done"
    assert not path.exists()
    with pytest.raises(errors.GoneError, match="kept for a while"):
        service.result(done)
    with pytest.raises(errors.UnknownJobError):
        service.cancel("nobody's")


def test_cancelling_at_the_very_end_leaves_no_file(serving: Serving, models: Models) -> None:
    service = serving()

    def late(self: Any, *source: Any, **given: Any) -> Any:
        made = FakeStage.__call__(self, *source, **given)
        service.cancel(keys[0])
        return made

    models.first.__class__ = type("Late", (FakeStage,), {"__call__": late})
    models.first.go.clear()
    keys = [service.submit(asked()).id]
    models.first.go.set()
    assert until(service, keys[0], "done", "cancelled").state == "cancelled"
    assert list(service._store.folder.glob("*.mp4")) == []


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (errors.UnreadableMediaError("the data given (7 bytes) is no picture"), "unreadable_media", "no picture"),
        (errors.OutOfMemoryError("lower the steps"), "out_of_memory", "lower the steps"),
        (errors.OutputError("cannot write /models/of/the/house"), "internal", "its log says why"),
        (ZeroDivisionError("/etc/passwd"), "internal", "its log says why"),
        (MemoryError(), "internal", "its log says why"),
    ],
)
def test_a_failure_is_said_in_words_and_the_worker_goes_on(
    serving: Serving, models: Models, caplog: pytest.LogCaptureFixture, error: Exception, kind: str, words: str
) -> None:
    service = serving()
    models.first.error = error
    with caplog.at_level(logging.ERROR, "i2vgen_ms"):
        failed = until(service, service.submit(asked()).id, "failed")
    assert failed.failure is not None
    assert failed.failure.type == kind
    assert words in failed.failure.message
    assert "/" not in failed.failure.message
    assert (kind == "internal") == any(failed.id in record.getMessage() for record in caplog.records)
    models.first.error = None
    assert until(service, service.submit(asked()).id, "done").failure is None


def test_every_job_has_its_own_warnings(serving: Serving, models: Models) -> None:
    other = both()
    service = serving(other)
    words = "left out: 3 frames, of /models/of/the/house/clip.mp4"
    models.first.cautions = [ClipWarning(words), ClipWarning(words), AudioWarning("the sound is left out")]
    for stage in (models.first, other.first):
        stage.go.clear()
    keys = [service.submit(asked()).id for _ in range(2)]
    for stage in (models.first, other.first):
        assert stage.begun.wait(10)
    for stage in (models.first, other.first):
        stage.go.set()
    found = sorted((until(service, key, "done").warnings for key in keys), key=len)
    told = Failure("clip", "left out: 3 frames, of ..."), Failure("audio", "the sound is left out")
    assert found == [(), told]
    alone = serving()
    assert until(alone, alone.submit(asked()).id, "done").warnings == told  # again, although Python would say it once


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_whose_thread_dies_is_replaced(
    serving: Serving, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("i2vgen_ms.service.service.TICK", 0.02)
    monkeypatch.setattr(logging.getLogger("i2vgen_ms"), "disabled", True)
    service = serving()
    models.first.error = SystemExit("a thread that is told to end")
    killed = service.submit(asked()).id
    assert until(service, killed, "failed").failure.type == "internal"
    models.first.error = None
    assert until(service, service.submit(asked()).id, "done").failure is None
    worker = service._workers[0]
    idle = worker.thread
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(idle.ident), ctypes.py_object(SystemExit))
    key = service.submit(asked()).id  # wakes it up
    assert until(service, key, "done", "failed")
    end = time.monotonic() + 5
    while idle.is_alive() or worker.state != "idle":
        assert time.monotonic() < end
        time.sleep(0.01)
    assert until(service, service.submit(asked()).id, "done").failure is None


def test_a_device_on_which_all_fails_is_not_healthy(
    serving: Serving, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("i2vgen_ms"), "disabled", True)
    service = serving()
    models.first.error = RuntimeError("CUDA error: an illegal memory access was encountered")
    for _ in range(3):
        until(service, service.submit(asked()).id, "failed")
    end = time.monotonic() + 5
    while service.stats().healthy:
        assert time.monotonic() < end
    assert service.stats().workers == (("cpu", "failing"),)
    models.first.error = None
    until(service, service.submit(asked()).id, "done")
    assert service.stats().healthy


def test_who_waits_too_long_is_told(serving: Serving, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i2vgen_ms.service.service.TICK", 0.02)
    service = serving(wait_seconds=0.1)
    models.first.go.clear()
    running, waiting = (service.submit(asked()).id for _ in range(2))
    failed = until(service, waiting, "failed")
    assert failed.failure.type == "wait"
    assert "seconds in the queue without being started" in failed.failure.message
    assert service.status(running).state == "running"  # what was started is never interrupted
    models.first.go.set()
    until(service, running, "done")


def test_results_are_kept_for_so_long_and_so_many(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i2vgen_ms.service.service.TICK", 0.02)
    service = serving(keep_results=2)
    keys = [service.submit(asked()).id for _ in range(4)]
    until(service, keys[-1], "done")
    folder = service.result(keys[-1]).parent
    end = time.monotonic() + 5
    while len(list(folder.glob("*.mp4"))) > 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert [service.status(key).size for key in keys] == [None, None, len(VIDEO), len(VIDEO)]
    other = serving(keep_seconds=0.1)
    key = other.submit(asked()).id
    until(other, key, "done")
    while other.status(key).size is not None:
        assert time.monotonic() < end
        time.sleep(0.01)
    with pytest.raises(errors.GoneError):
        other.result(key)


def test_two_workers_share_a_queue(serving: Serving, models: Models) -> None:
    other = both()
    service = serving(other)
    models.first.go.clear()
    other.first.go.clear()
    keys = [service.submit(asked()).id for _ in range(2)]
    for key in keys:
        until(service, key, "running")
    other.first.go.set()
    models.first.go.set()
    for key in keys:
        until(service, key, "done")
    assert (models.first.calls, other.first.calls) == (1, 1)
    with pytest.raises(errors.ArgumentError, match="the same kinds"):
        Service([both(), Models(first=FakeStage())])


def test_ending(models: Models, tmp_path: Path) -> None:
    service = Service([models], ServiceSettings(folder=tmp_path))
    models.first.go.clear()
    running, waiting = (service.submit(asked(first={"steps": 3})).id for _ in range(2))
    until(service, running, "running")
    service.drain()
    assert service.status(waiting).failure.message == "the service is ending"
    with pytest.raises(errors.BusyError, match="the service is ending"):
        service.submit(asked())
    assert not service.stats().healthy
    models.first.go.set()
    until(service, running, "done")
    assert service.result(running).read_bytes() == VIDEO
    service.close()
    assert [path.name for path in tmp_path.iterdir()] == [".i2vgen-ms-service-lock"]

    late = Service([models], ServiceSettings(folder=tmp_path))
    models.first.pause = 0.02
    key = late.submit(asked(first={"steps": 100})).id
    until(late, key, "running")
    late.close(grace=0.1)
    assert late.status(key).state == "cancelled"
    assert [path.name for path in tmp_path.iterdir()] == [".i2vgen-ms-service-lock"]


def test_what_a_killed_service_left_is_removed_and_nothing_else(serving: Serving, tmp_path: Path) -> None:
    results = tmp_path / "results"
    killed = Store(results)
    left = killed.path("left.mp4")
    left.write_bytes(b"left")
    killed._lock.close()  # as the end of a process does
    kept = []
    for name, lock, words in (
        ("service-accounts", "lock", b""),
        ("i2vgen-ms-service-mine", "lock", b""),
        ("i2vgen-ms-service-other", "i2vgen-ms.lock", b""),
        ("i2vgen-ms-service-words", "i2vgen-ms.lock", b"words of somebody else"),
    ):
        folder = results / name
        folder.mkdir()
        (folder / lock).write_bytes(words)
        kept.append(folder)
    one, two = serving(), serving()  # side by side
    assert not left.exists()
    folders = {service._store.folder for service in (one, two)}
    assert set(results.glob("*service-*")) == {*folders, *kept, results / ".i2vgen-ms-service-lock"}
    assert os.stat(one._store.folder).st_mode & 0o077 == 0
    for folder in kept:
        shutil.rmtree(folder)


def test_settings_are_positive_numbers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ServiceSettings\.queue must be positive, not 0"):
        ServiceSettings(queue=0)
    with pytest.raises(ValueError, match=r"RequestLimits\.steps must be positive, not nan"):
        RequestLimits(steps=float("nan"))
    (tmp_path / "file").touch()
    with pytest.raises(errors.OutputError, match="results cannot be kept in"):
        Service([both()], ServiceSettings(folder=tmp_path / "file" / "below"))
