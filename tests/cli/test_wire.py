"""A wire that can be cut, between plain sockets."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from select import select

import pytest

from cli.wire import CHUNK_BYTES, HELD_MAX_BYTES, Carried, Wire, wire_to

WAIT_S = 60.0


@contextmanager
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT_S)
        yield server


def port_of(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


def dial(wire: Wire) -> socket.socket:
    return socket.create_connection(("127.0.0.1", wire.port), timeout=WAIT_S)


def accept(server: socket.socket) -> socket.socket:
    sock, _ = server.accept()
    sock.settimeout(WAIT_S)
    return sock


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def test_bytes_arrive_unchanged_and_are_counted_by_direction() -> None:
    with listener() as server, wire_to(port_of(server)) as wire, dial(wire) as near, accept(server) as far:
        for _ in range(2):
            near.sendall(b"ask")
            assert receive(far, 3) == b"ask"
            far.sendall(b"answer")
            assert receive(near, 6) == b"answer"
        before = wire.carried
        assert (before.bytes_out, before.bytes_back, before.flights) == (6, 12, 4)
        near.sendall(b"more")
        assert receive(far, 4) == b"more"
        assert wire.carried.since(before) == Carried(4, 0, 1)
        assert before.bytes == 18


def test_a_cut_ends_what_is_connected_and_lets_nobody_in() -> None:
    with listener() as server, wire_to(port_of(server)) as wire:
        with dial(wire) as near, accept(server) as far:
            wire.cut()
            assert near.recv(1) == far.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            dial(wire)


def test_a_restored_wire_listens_where_it_did() -> None:
    with listener() as server, wire_to(port_of(server), is_cut=True) as wire:
        port = wire.port
        with pytest.raises(ConnectionRefusedError):
            dial(wire)
        for _ in range(2):
            wire.restore()
            assert wire.port == port
            with dial(wire) as near, accept(server) as far:
                near.sendall(b"x")
                assert receive(far, 1) == b"x"
            wire.cut()


def test_what_is_sent_before_a_close_arrives() -> None:
    data = bytes(range(256)) * (2 * CHUNK_BYTES // 256)
    with listener() as server, wire_to(port_of(server)) as wire, dial(wire) as near, accept(server) as far:

        def send() -> None:
            near.sendall(data)
            near.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert receive(far, len(data) + 1) == data
        sender.join()


def test_who_takes_nothing_makes_the_wire_take_no_more() -> None:
    with listener() as server, wire_to(port_of(server)) as wire, dial(wire) as near, accept(server) as far:
        near.setblocking(False)
        sent = 0
        while select([], [near], [], 0.2)[1]:  # until nothing is taken any more
            sent += near.send(bytes(CHUNK_BYTES))
        assert sent < 64 * HELD_MAX_BYTES
        near.setblocking(True)
        assert len(receive(far, sent)) == sent


def test_a_wire_to_nobody_closes_what_it_accepts() -> None:
    with listener() as server:
        port = port_of(server)
    with wire_to(port) as wire, dial(wire) as near:
        assert near.recv(1) == b""


def test_a_closed_wire_can_be_closed_again() -> None:
    wire = Wire(1)
    wire.close()
    wire.close()
    with pytest.raises(RuntimeError):
        wire.cut()
