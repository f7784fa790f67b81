"""Stands for a package that does not import."""

raise RuntimeError("this module is broken on purpose")


class Broken:
    """Never reached."""
