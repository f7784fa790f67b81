"""One target under atheris, in a process of its own: libFuzzer ends the process when it is done.

`python -m tests.hostile.fuzz.under_atheris TARGET CORPUS -options...`; called by engine.py.
"""

from __future__ import annotations

import sys


def main() -> None:
    import atheris

    readers = ["i2vgen_ms", "pickletools", "zipfile", "tests.hostile.fuzz.planted"]
    with atheris.instrument_imports(include=readers, enable_loader_override=False):
        from tests.hostile.fuzz.targets import PLANTED, TARGETS
    target = (TARGETS | PLANTED)[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
