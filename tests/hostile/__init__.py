"""Inputs, faults and crowds that try to break the five promises of SECURITY.md; `pytest -m hostile` runs them.

One module a group. Each case ends in one typed error with words a person can act on, within bounds of time and memory,
and leaves the process as it was: `state.py` says what that means, `conftest.py` holds every case to it and prints the
table.
"""
