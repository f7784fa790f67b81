"""Fetches the files of one hub repository into the cache, through ModelScope's client.

What the client leaves open is done here: a hub that does not answer is found out within seconds, the names in the hub's
list must stay inside the folder, and the disk must have the space. The client resumes partial files and verifies
sizes and SHA-256 sums; what was verified is remembered, for the next download and for whoever loads the file. Knows
nothing of tasks or configurations.
"""

from __future__ import annotations

import fnmatch
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from i2vgen_ms.errors import HubError
from i2vgen_ms.hub.cache import describe, snapshot_folder
from i2vgen_ms.weights.memory import Memory

CONNECT_SECONDS, READ_SECONDS = 3.0, 6.0  # for the first question; the client has its own limits for the files
SPARE_BYTES = 64 << 20


def fetch(model: str, revision: str, *, ignore: Sequence[str] = ()) -> Iterator[Path]:
    """Brings the folder of `model` at `revision` up to date. Yields the folder after configuration.json and at the end.

    Raises HubError. An interrupted transfer leaves `NAME.incomplete` files, which the next one goes on with.
    """
    import requests
    from modelscope_hub import HubApi
    from modelscope_hub.config import HubConfig
    from modelscope_hub.errors import HubError as ClientError

    folder = snapshot_folder(model, revision)
    api = HubApi(HubConfig())  # not the process-wide one: the environment may have changed since
    _check_answers(HubConfig().endpoint or "", model, revision)
    try:
        api = HubApi(HubConfig(endpoint=api.resolve_endpoint_for_read(model)))
        files = [file for file in api.list_repo_files(model, "model", revision=revision) if not file.is_dir]
        files = [file for file in files if not any(fnmatch.fnmatch(file.path, pattern) for pattern in ignore)]
        files.sort(key=lambda file: file.path != "configuration.json")
        _check_names(model, [file.path for file in files])
        _check_space(model, folder, files)
        memory = Memory()
        for file in files:
            if not _verified(folder / file.path, file, memory):
                path = api.download_file(
                    model,
                    "model",
                    file.path,
                    revision=revision,
                    local_dir=folder,
                    expected_sha256=file.sha256,
                    file_size=file.size or None,
                )
                if file.sha256:
                    memory.expect(path, file.sha256)
            if file.path == "configuration.json":
                yield folder
    except (ClientError, requests.RequestException, OSError) as error:
        raise HubError(f"{model} at revision {revision!r}: {_trouble(error)}. {describe()}") from error
    yield folder


def _verified(path: Path, file: Any, memory: Memory) -> bool:
    """Whether the file at `path` is known to be the listed one, without reading it."""
    try:
        known = memory.recall(path.stat())
    except OSError:
        return False
    listed = (file.sha256 or "").lower()
    return known is not None and known.sha256 == listed == memory.expected(path)


def _check_answers(endpoint: str, model: str, revision: str) -> None:
    """Raises HubError unless the hub answers something better than a server error, after three attempts."""
    import requests

    reason = ""
    for attempt in range(3):
        time.sleep(0.3 * attempt)
        try:
            with requests.get(
                f"{endpoint}/openapi/v1/models/{model}", timeout=(CONNECT_SECONDS, READ_SECONDS), stream=True
            ) as answer:
                if answer.status_code < 500:
                    return
                reason = f"it answers with HTTP {answer.status_code}"
        except requests.RequestException as error:
            reason = _bottom(error)
            if isinstance(error, requests.Timeout):
                break
    raise HubError(
        f"the hub {endpoint} cannot be reached ({reason}), so {model} at revision {revision!r} cannot be downloaded: "
        f"check the network connection and MODELSCOPE_ENDPOINT, or use a model that is on this machine. {describe()}"
    )


def _trouble(error: BaseException) -> str:
    """What went wrong during a transfer and what to do, in one line."""
    import requests
    from modelscope_hub.errors import FileIntegrityError

    said = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, FileIntegrityError):
        return (
            f"a file is not what the hub's list says, again and again ({said}); nothing of it was kept: the hub's copy "
            "or something on the way damages it, so try another network or ask the model's owner"
        )
    if isinstance(error, (ConnectionError, requests.RequestException)):  # the client's own are the first
        return f"the connection to the hub broke off ({_bottom(error)}); run it again, it goes on where it stopped"
    status = getattr(error, "status_code", None) or 0
    if status >= 500:
        return f"the hub answers with HTTP {status}; run it again later, it goes on where it stopped"
    if status == 404:
        return "the hub has no such model, revision or file, or it is private; check their names"
    if isinstance(error, OSError) and error.strerror:
        return (
            f"{error.filename or 'a file of the cache'} cannot be written ({error.strerror}); free some space there, "
            "or point MODELSCOPE_CACHE to a folder that can be written"
        )
    return said


def _bottom(error: BaseException) -> str:
    """A few words about the cause of a failed request: what is wrapped innermost, which is what the system said."""
    import requests

    if isinstance(error, (requests.Timeout, TimeoutError)):
        return "no answer in time"
    where = "the proxy: " if isinstance(error, requests.exceptions.ProxyError) else ""
    seen = {id(error)}  # the client raises errors again that it kept, and then they are their own causes
    while (below := error.__cause__ or error.__context__) and id(below) not in seen:
        seen.add(id(below))
        error = below
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return where + str(said).splitlines()[0]


def _check_names(model: str, names: Iterable[str]) -> None:
    for name in names:
        path = PurePosixPath(name)
        inside = name.isprintable() and not (path.is_absolute() or ".." in path.parts or "\\" in name)
        if not inside or PureWindowsPath(name).drive or not path.parts:
            raise HubError(
                f"{model}: the hub lists a file named {name!r}, which could leave the model's folder; refused"
            )


def _check_space(model: str, folder: Path, files: Iterable[Any]) -> None:
    needed = 0
    for file in files:
        target = folder / file.path
        present = [path for path in (target, target.with_name(f"{target.name}.incomplete")) if path.exists()]
        needed += max(0, file.size - max((path.stat().st_size for path in present), default=0))
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed and needed + SPARE_BYTES > free:
        raise HubError(
            f"{model} needs {needed / 1e9:.2f} GB more, and the disk of {place} has {free / 1e9:.2f} GB free; "
            "free some space or point MODELSCOPE_CACHE to a larger disk"
        )
