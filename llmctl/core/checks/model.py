"""Checks of the model."""

from __future__ import annotations

from llmctl.core.checks.finding import Check

CHECKS: tuple[Check, ...] = ()
