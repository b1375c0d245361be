"""`python -m tests.parts`: build what is missing and list the real parts; exit 1 when a required one is missing."""

from __future__ import annotations

import sys

from tests.parts import engine, lines, oci_tools, part, required

oci_tools.build_oras()
if "engines" in required():
    engine.build_second()
print("\n".join(lines()))
sys.exit(any(not part(name).real for name in required()))
