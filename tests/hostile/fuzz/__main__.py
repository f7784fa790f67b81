"""`python -m tests.hostile.fuzz --seconds 300 [--target NAME] [--findings FOLDER]`: tries inputs, prints what came."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.hostile.fuzz import engine
from tests.hostile.fuzz.targets import TARGETS


def main() -> int:
    """0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="for each target")
    parser.add_argument("--target", choices=TARGETS, action="append", help="may be given several times; all of them")
    parser.add_argument("--engine", choices=engine.engines(), default=engine.engines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, help="a folder for the inputs that should not have come through")
    given = parser.parse_args()
    found = 0
    for name in given.target or TARGETS:
        report = engine.run(name, given.seconds, engine=given.engine, findings=given.findings, seed=given.seed)
        sys.stdout.write(f"{report}\n" + "".join(f"{text}\n" for text in report.found))
        sys.stdout.flush()
        found += len(report.found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
