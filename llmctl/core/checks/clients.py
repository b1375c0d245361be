"""Checks of the clients."""

from __future__ import annotations

from llmctl.core.checks.finding import Check

CHECKS: tuple[Check, ...] = ()
