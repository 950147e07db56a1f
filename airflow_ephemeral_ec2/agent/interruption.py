"""Spot: ask the instance metadata every 5 s whether EC2 takes this machine back.

Source: "Spot Instance interruption notices", EC2 user guide: poll every 5 s, two minutes' notice.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.agent.failure import Transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ephemeral_ec2.agent.imds import Imds

INTERVAL = 5.0


def watch_for_spot_notice(
    imds: Imds, notify: Callable[[], object], ended: threading.Event, interval: float = INTERVAL
) -> None:
    """Call ``notify`` once, from a thread, when the notice is there; stop at ``ended``."""

    def watch() -> None:
        while not ended.wait(interval):
            with contextlib.suppress(Transient):
                if imds.spot_notice():
                    notify()
                    return

    threading.Thread(target=watch, daemon=True).start()
