"""Tries inputs on a target: with atheris where it is installed, else with a small loop of its own.

Both keep the inputs that reach lines of this package that none before has reached, and change those further. Each input
has its time, the whole has its memory. It knows nothing of what is read.
"""

from __future__ import annotations

import importlib.util
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

INPUT_SECONDS = 10
RSS_MIB = 2500
LONGEST = 16_384
ROOT = Path(__file__).resolve().parents[3]
_OURS = (str(ROOT / "i2vgen_ms") + os.sep, str(Path(__file__).with_name("planted.py")))
_TOKENS = (
    b"\x00",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"{",
    b"[",
    b'"',
    b"-1",
    b"1e9",
)


@dataclass
class Report:
    """What was done: the engine, how many inputs it tried, and what should not have come out, one text each."""

    target: str
    engine: str
    inputs: int = 0
    found: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.target:14} {self.engine:8} {self.inputs:10} inputs, {len(self.found)} found"


def engines() -> list[str]:
    """Those that work here, the better one first."""
    return (["atheris"] if importlib.util.find_spec("atheris") else []) + ["loop"]


def run(name: str, seconds: float, *, engine: str = "", findings: Path | None = None, seed: int = 0) -> Report:
    """Tries inputs on the target `name` for `seconds`; inputs that break it are kept in the folder `findings`."""
    engine = engine or engines()[0]
    if engine == "atheris":
        return _atheris(name, seconds, findings, seed)
    return _loop(name, seconds, findings, seed)


def _atheris(name: str, seconds: float, findings: Path | None, seed: int) -> Report:
    from tests.hostile.fuzz.targets import PLANTED, TARGETS

    report = Report(name, "atheris")
    with tempfile.TemporaryDirectory() as folder:
        corpus, kept = Path(folder, "corpus"), findings or Path(folder, "findings")
        corpus.mkdir()
        kept.mkdir(exist_ok=True)
        for number, sample in enumerate((TARGETS | PLANTED)[name].samples()):
            (corpus / str(number)).write_bytes(sample)
        command = [sys.executable, "-m", "tests.hostile.fuzz.under_atheris", name, str(corpus)]
        command += [f"-max_total_time={max(int(seconds), 1)}", f"-timeout={INPUT_SECONDS}", f"-rss_limit_mb={RSS_MIB}"]
        command += [f"-max_len={LONGEST}", f"-seed={seed + 1}", "-print_final_stats=1", f"-artifact_prefix={kept}/"]
        environment = {**os.environ, "TMPDIR": folder}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, env=environment)
    text = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
    counts = re.findall(r"stat::number_of_executed_units: (\d+)", text) or re.findall(r"^#(\d+)\s", text, re.MULTILINE)
    report.inputs = int(counts[-1]) if counts else 0
    if done.returncode != 0 or not counts:
        report.found.append(text[-6000:])
    return report


class _TooLong(BaseException):
    pass


def _loop(name: str, seconds: float, findings: Path | None, seed: int) -> Report:
    from tests.hostile.fuzz.targets import PLANTED, TARGETS

    target, report = (TARGETS | PLANTED)[name], Report(name, "loop")
    chance, corpus, seen = random.Random(seed), list(target.samples()), set[tuple[CodeType, int]]()
    end, kinds = time.monotonic() + seconds, set[str]()

    def stop(*_: Any) -> None:
        raise _TooLong(f"more than {INPUT_SECONDS} seconds")

    handler = signal.signal(signal.SIGALRM, stop)
    pending = list(corpus)
    try:
        while time.monotonic() < end:
            data = pending.pop() if pending else _mutated(chance, corpus)
            report.inputs += 1
            lines, problem = _tried(target.read, data)
            if problem is not None:
                kind = problem.strip().splitlines()[-1][:80]
                if kind not in kinds:
                    kinds.add(kind)
                    report.found.append(f"{problem}\ninput: {data[:200]!r}")
                    if findings is not None:
                        findings.mkdir(exist_ok=True)
                        (findings / f"{name}-{len(kinds)}").write_bytes(data)
            if not lines <= seen:
                seen |= lines
                corpus.append(data)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    return report


def _tried(read: Any, data: bytes) -> tuple[set[tuple[CodeType, int]], str | None]:
    """The lines of this package that the input reaches, and the trace of what should not have come out."""
    lines: set[tuple[CodeType, int]] = set()

    def line(frame: FrameType, event: str, _: Any) -> Any:
        lines.add((frame.f_code, frame.f_lineno))
        return line

    def call(frame: FrameType, event: str, _: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(_OURS) else None

    before = sys.gettrace()
    signal.setitimer(signal.ITIMER_REAL, INPUT_SECONDS)
    sys.settrace(call)
    try:
        read(data)
    except (Exception, _TooLong):
        return lines, traceback.format_exc()
    finally:
        sys.settrace(before)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return lines, None


def _mutated(chance: random.Random, corpus: list[bytes]) -> bytes:
    data = bytearray(chance.choice(corpus))
    for _ in range(2 ** chance.randrange(4)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = chance.randrange(256)
        elif kind == 2:
            data[at:at] = chance.choice(_TOKENS)
        elif kind == 3:
            del data[at : at + 2 ** chance.randrange(8)]
        elif kind == 4:
            other = chance.choice(corpus)
            start = chance.randrange(len(other) + 1)
            data[at : at + chance.randrange(64)] = other[start : start + chance.randrange(64)]
        else:
            data[at:at] = data[at : at + chance.randrange(64)]
    return bytes(data[:LONGEST])
