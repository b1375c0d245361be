"""Decisions: pure functions and frozen dataclasses, standard library only, no I/O."""
