"""Shipping output in bounded memory, whatever the store does."""

import os
import threading
import time

from airflow_ephemeral_ec2.agent.failure import Failure
from airflow_ephemeral_ec2.agent.log_streamer import BUFFER, CHUNK, TAIL, LogStreamer

MIB = 1 << 20


class Shelf:
    """Takes chunks; refuses them while ``down``."""

    def __init__(self, *, down: bool = False) -> None:
        self.chunks: list[bytes] = []
        self.down = down
        self.first = threading.Event()

    def put(self, sequence: int, body: bytes) -> None:
        if self.down:
            raise Failure("network", "S3 is away")
        assert sequence == len(self.chunks) + 1
        self.chunks.append(body)
        self.first.set()

    @property
    def text(self) -> bytes:
        return b"".join(self.chunks)


def test_output_arrives_in_order_and_complete():
    shelf = Shelf()
    log = LogStreamer(shelf.put, 64 * MIB)

    for number in range(1000):
        log.feed(b"line %d\n" % number)
    log.close(5)

    assert shelf.text == b"".join(b"line %d\n" % number for number in range(1000))
    assert log.counts() == {
        "chunks": len(shelf.chunks), "bytes": len(shelf.text), "dropped_bytes": 0,
    }  # fmt: skip


def test_the_first_line_arrives_while_the_job_runs():
    shelf = Shelf()
    log = LogStreamer(shelf.put, MIB)

    log.feed(b"started\n")

    assert shelf.first.wait(1.5)
    log.close(5)


def test_chunks_are_at_most_a_mebibyte():
    shelf = Shelf()
    log = LogStreamer(shelf.put, 64 * MIB)

    log.feed(b"x" * (3 * MIB + 5))
    log.close(5)

    assert max(map(len, shelf.chunks)) == CHUNK
    assert len(shelf.text) == 3 * MIB + 5


def test_no_output_makes_no_chunk():
    shelf = Shelf()

    log = LogStreamer(shelf.put, MIB)
    log.close(5)

    assert shelf.chunks == []


def test_past_the_limit_the_end_is_kept_and_the_middle_counted():
    shelf = Shelf()
    log = LogStreamer(shelf.put, MIB)

    total = 0
    for number in range(300):
        line = b"%06d" % number + b"." * 65_530
        log.feed(line)
        total += len(line)
    log.feed(b"Traceback: the reason\n")
    total += 22
    log.close(5)

    assert log.bytes <= MIB
    assert log.bytes + log.dropped_bytes == total
    assert shelf.text.startswith(b"000000...")
    assert shelf.text.endswith(b"Traceback: the reason\n")
    assert b"bytes of output were dropped here" in shelf.text


def test_a_store_that_is_away_never_holds_the_job_up():
    shelf = Shelf(down=True)
    log = LogStreamer(shelf.put, 1024 * MIB)
    log.feed(b"x")
    deadline = time.monotonic() + 5
    while log._healthy:
        assert time.monotonic() < deadline
        time.sleep(0.01)

    start = time.monotonic()
    for _ in range(40):
        log.feed(b"y" * MIB)

    assert time.monotonic() - start < 2
    assert len(log._buffer) <= BUFFER + TAIL
    log.close(0.1)
    assert log.counts() == {"chunks": 0, "bytes": 0, "dropped_bytes": 40 * MIB + 1}


def test_output_of_an_outage_arrives_when_the_store_is_back():
    shelf = Shelf(down=True)
    log = LogStreamer(shelf.put, MIB)
    log.feed(b"during the outage\n")

    shelf.down = False
    log.close(10)

    assert shelf.text == b"during the outage\n"


def test_a_pipe_is_read_to_its_end():
    shelf = Shelf()
    log = LogStreamer(shelf.put, MIB)
    receive, send = os.pipe()
    reader = log.follow(receive)

    os.write(send, b"from the job\n")
    os.close(send)
    reader.join(5)
    log.close(5)

    assert shelf.text == b"from the job\n"


def test_a_job_is_not_held_up_when_the_limit_is_reached():
    shelf = Shelf()
    log = LogStreamer(shelf.put, 2 * MIB)

    start = time.monotonic()
    for _ in range(40):
        log.feed(b"y" * MIB)

    assert time.monotonic() - start < 3
    log.close(5)
