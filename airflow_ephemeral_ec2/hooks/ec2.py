"""EphemeralEC2Hook: the Airflow connection behind bucket, fleet and controller."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from airflow_ephemeral_ec2.exceptions import AccessError, AwsError, AwsUnavailableError
from airflow_ephemeral_ec2.hooks.aws_errors import EXPIRED_TOKEN, aws_call
from airflow_ephemeral_ec2.hooks.clients import Clients, speed_up_timestamps
from airflow_ephemeral_ec2.hooks.controller import Controller
from airflow_ephemeral_ec2.hooks.fleet import Fleet
from airflow_ephemeral_ec2.hooks.job_store import JobStore
from airflow_ephemeral_ec2.hooks.lifetime_schedule import find_backstop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from botocore.config import Config

    from airflow_ephemeral_ec2.settings import Settings

log = logging.getLogger(__name__)
DEFAULT_CONNECTION = "aws_default"


@contextlib.contextmanager
def _by_airflow(what: str) -> Iterator[None]:
    """
    Take whatever Airflow raises for "not known now": a person may be editing the connection.

    :raises AwsUnavailableError: without its words, which may hold what stands in the connection
    """
    try:
        yield
    except (AirflowNotFoundException, AwsError, BotoCoreError, ClientError):
        raise
    except Exception as error:
        detail = f"{type(error).__name__}: Airflow failed."
        raise AwsUnavailableError(what, detail, "If it lasts, correct the connection.") from error


class EphemeralEC2Hook(AwsBaseHook):
    """
    Disposable EC2 instances through an Airflow connection of type ``aws``.

    :param aws_conn_id: Airflow connection; its extras (role, endpoint, region) are honoured
    :param region_name: AWS region
    """

    def __init__(
        self, aws_conn_id: str | None = "aws_default", region_name: str | None = None
    ) -> None:
        super().__init__(aws_conn_id=aws_conn_id, region_name=region_name, client_type="ec2")

    def fingerprint(self) -> str | None:
        """
        Name what the connection is now, without revealing it; None when Airflow does not find it.

        Airflow says "not found" also when it could not look: its API server was busy, a secrets
        backend failed (``_get_connection`` of ``airflow.sdk.execution_time.context``).

        :raises AwsUnavailableError: Airflow could not be asked
        """
        try:
            with _by_airflow(f"look up Airflow connection {self.aws_conn_id!r}"):
                uri = self.get_connection(self.aws_conn_id).get_uri() if self.aws_conn_id else ""
        except AirflowNotFoundException:
            return None
        return hashlib.sha256(uri.encode()).hexdigest()

    def make_clients(self, *, is_defined: bool = False) -> Clients:
        """
        Make one boto3 client per service.

        :param is_defined: Airflow has just found the connection
        :raises AccessError: the connection does not exist
        :raises AwsUnavailableError: Airflow makes nothing of what stands in it, for now
        """
        what = f"use Airflow connection {self.aws_conn_id!r}"
        # A connection with a role assumes it here, and may be refused.
        with _by_airflow(what), aws_call(what):
            # The amazon provider takes boto3's own search for any missing connection. That is fine
            # for the default; a connection that somebody named must be the one that is used, and so
            # must one that was there a moment ago.
            is_meant = is_defined or self.aws_conn_id != DEFAULT_CONNECTION
            if is_meant and self.aws_conn_id is not None and not self.conn_config:
                raise AccessError(
                    f"Airflow connection {self.aws_conn_id!r}",
                    "is not defined.",
                    "Create it (type aws), or name another one in the table's aws_conn_id.",
                )
            session = self.get_session(region_name=self.region_name)
            if session.get_credentials() is None:
                # Clients that are made without never look for them again.
                raise NoCredentialsError
            speed_up_timestamps(session)
            key = (self.aws_conn_id or "", self.region_name or "")
            session.events.register("after-call", functools.partial(_note_expiry, key))
            endpoints = self.conn_config

        def source(service: str, config: Config) -> Any:  # noqa: ANN401 - boto3's own type
            extra = endpoints.botocore_config
            with _by_airflow(what):
                return session.client(
                    service,
                    config=extra.merge(config) if extra else config,
                    endpoint_url=endpoints.get_service_endpoint_url(service),
                    verify=self.verify,
                )

        return Clients(source)


LIST_EVERY = 3
"""Passes of which one lists the queue: at 4 s a pass, an entry of another process is seen in 12 s."""
CLIENTS_SECONDS = 600.0
"""How often a connection is looked up again, so that a triggerer sees its new keys."""
DOUBT_SECONDS = 30.0
"""How often it is while Airflow says that it is not defined, or cannot say."""
BELIEVED_SECONDS = 600.0
"""For so long a connection must be missing before its clients are given up."""


@dataclass
class _Known:
    """The clients of a connection and region, and what the connection was when they were made."""

    clients: Clients
    fingerprint: str | None
    look_again_at: float
    missing_since: float | None
    made_at: float
    is_expired: bool = False

    def still_hold(self, found: str | None, now: float) -> bool:
        """Say whether the clients are good for what was found now; None: no such connection."""
        self.missing_since = None if found else self.missing_since or now
        is_missing = self.missing_since is not None and now - self.missing_since < BELIEVED_SECONDS
        if is_missing and self.fingerprint:
            # Without the connection boto3 would take what keys it finds: another account's, perhaps.
            self.look_again_at = now + DOUBT_SECONDS
            return True
        if self.is_expired or found != self.fingerprint:
            return False
        self.look_again_at = now + (DOUBT_SECONDS if is_missing else CLIENTS_SECONDS)
        return True


_known: dict[tuple[str, str], _Known] = {}
_lock = threading.Lock()
_turns: dict[tuple[str, str], threading.Lock] = {}


def connect(aws_conn_id: str, region: str) -> Clients:
    """
    Return the clients of a connection and region, shared by the process.

    They are made once, and again only when the connection has changed: a set of clients costs
    half a second and some 50 MB.

    :raises AccessError: the connection does not exist
    :raises AwsUnavailableError: Airflow could not be asked for it, and never was
    """
    key = (aws_conn_id, region)
    with _lock:
        # One that is slow to answer, as a role may be that nobody can assume, holds up no other.
        turn = _turns.setdefault(key, threading.Lock())
    with turn:
        known, now = _known.get(key), time.monotonic()
        if known is not None and now < known.look_again_at:
            return known.clients
        hook = EphemeralEC2Hook(aws_conn_id=aws_conn_id, region_name=region)
        try:
            found = hook.fingerprint()
        except AwsUnavailableError as error:
            if known is None:
                raise
            log.warning("cannot see whether it has changed, will look again: %s", error)
            known.look_again_at = now + DOUBT_SECONDS
            return known.clients
        if known is not None and known.still_hold(found, now):
            return known.clients
        clients = hook.make_clients(is_defined=found is not None)
        pause = CLIENTS_SECONDS if found else DOUBT_SECONDS
        with _lock:
            _known[key] = _Known(clients, found, now + pause, None if found else now, now)
        return clients


def doubt_clients() -> None:
    """Look all connections up again when they are next asked for: AWS has refused one."""
    with _lock:
        for known in _known.values():
            known.look_again_at = 0.0


def _note_expiry(key: tuple[str, str], parsed: Mapping[str, Any], **_: object) -> None:
    """
    Make the clients anew whose session token has expired, whatever they were asked.

    botocore renews what it knows the end of; of keys that somebody writes into a file it does not.
    """
    if parsed.get("Error", {}).get("Code") not in EXPIRED_TOKEN:
        return
    with _lock:
        known = _known.get(key)
        # Clients that are new and refused all the same are not made again for each call.
        if known is not None and time.monotonic() - known.made_at > DOUBT_SECONDS:
            known.is_expired, known.look_again_at = True, 0.0


def renew_clients() -> None:
    """Make all clients anew when they are next asked for: credentials have expired."""
    with _lock:
        for known in _known.values():
            known.is_expired, known.look_again_at = True, 0.0


def open_store(settings: Settings) -> JobStore:
    """Open the bucket of record through its connection."""
    clients = connect(settings.aws_conn_id, settings.region)
    return JobStore(clients.s3, settings.bucket, settings.environment)


def open_fleet(settings: Settings, aws_conn_id: str, region: str) -> Fleet:
    """Reach the machines of this environment through a row's connection and region."""
    return Fleet(connect(aws_conn_id, region), settings.environment, region)


def open_controller(settings: Settings) -> Controller:
    """Make a controller for this process."""
    store = open_store(settings)

    def refresh() -> None:
        store.s3 = connect(settings.aws_conn_id, settings.region).s3

    return Controller(
        store,
        functools.partial(open_fleet, settings),
        renew_clients,
        find_backstop(settings),
        list_every=LIST_EVERY,
        refresh=refresh,
        home=(settings.aws_conn_id, settings.region),
    )
