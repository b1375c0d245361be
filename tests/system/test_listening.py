"""At which addresses something listens on a port."""

from __future__ import annotations

import socket

import pytest

from llmctl.system import process


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::")],
)
def test_the_address_is_the_one_that_was_bound(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        try:
            listening.bind((address, 0))
        except OSError as error:
            pytest.skip(f"{address} cannot be bound here: {error}")
        port = int(listening.getsockname()[1])
        assert process.listening_addresses(port) == ()
        listening.listen()
        assert process.listening_addresses(port) == (address,)
