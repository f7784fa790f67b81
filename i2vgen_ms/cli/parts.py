"""`i2vgen-ms parts [SLOT]`: the catalogue as text. Imports no part and no torch."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """One optional slot."""
    parser.add_argument("slot", nargs="?", metavar="SLOT", help="one slot, for example samplers; all without it")


def run(options: argparse.Namespace) -> int:
    """Prints a block a slot: name, one line about it, and who brings it where that is another package."""
    from i2vgen_ms import catalogue

    for slot in [options.slot] if options.slot else catalogue.slots():
        entries = catalogue.names(slot)
        width = max((len(name) for name in entries), default=0)
        print(slot)
        for name, entry in entries.items():
            provider = "" if entry.provider == catalogue.OWN else f"  [{entry.provider}]"
            print(f"  {name:<{width}}  {entry.about}{provider}")
    return 0
