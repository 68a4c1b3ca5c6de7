"""Fixtures of every test of the explorer."""

from explored_run import client, copied_run, explored, reading

__all__ = ["client", "copied_run", "explored", "reading"]
