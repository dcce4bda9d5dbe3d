"""Ports of loopback for servers that tests start."""

import random
import socket


def free_port() -> int:
    """A free port below those that the kernel hands to clients: one of these may be given away before the server
    listens, and a client that waits for a restart may be given the server's port and connect to itself."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)  # not the seeded generator of a test
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
