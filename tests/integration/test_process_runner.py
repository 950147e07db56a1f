"""The runner of processes by itself, where the cloud around it would hide the moment."""

import threading
import time

from airflow_ephemeral_ec2.local.instance_states import Event
from airflow_ephemeral_ec2.local.process_runner import ProcessRunner
from airflow_ephemeral_ec2.local.runner import Guest


def test_a_command_that_comes_too_late_does_not_hide_the_end(tmp_path):
    """Two kills in a row, the second into a pipe that nobody reads any more."""
    powered_off, go_on, gone = threading.Event(), threading.Event(), threading.Event()

    def report(event):
        if event is Event.POWER_OFF:
            powered_off.set()
            go_on.wait(30)
        elif event is Event.GONE:
            gone.set()

    runner = ProcessRunner(tmp_path, grace=0.1)
    try:
        user_data = b"#!/bin/sh\npoweroff\n"
        guest = Guest("i-0late", user_data, "http://127.0.0.1:1", "", "us-east-1", 1024**3, {})
        running = runner.start(guest, report)
        assert powered_off.wait(30)
        deadline = time.monotonic() + 30
        while (runner.folder / "i-0late").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(50):  # the supervisor itself ends a moment after its guest's folder
            running.kill()
            time.sleep(0.01)

        go_on.set()

        assert gone.wait(10)
        assert running.ended
    finally:
        go_on.set()
        runner.close()
