"""What goes wrong between a registry, a disk and a lock, each made on purpose. docs/reliability.md is their table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., None])


def fault(*, what: str, how: str, happens: str, left: str, **arguments: Any) -> Callable[[Test], Test]:
    """One row of the table, proved by the test below it. A test that several rows stand above runs once for each.

    `what` goes wrong, `how` the test makes it so, what `happens` then, and what is `left` on the disk. The rest are
    arguments of the test. Everything is written out, so that the table can be read without running anything.
    """
    assert all((what, how, happens, left))

    def mark(test: Test) -> Test:
        # Decorators run from the last to the first; the rows keep the order in which they are written.
        test.__dict__["faults"] = [(what, arguments), *test.__dict__.get("faults", [])]
        return test

    return mark
