"""`python -m i2vgen_ms` is the command `i2vgen-ms`."""

from i2vgen_ms.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
