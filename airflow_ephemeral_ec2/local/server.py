"""Puts the local EC2 together, serves it, and takes everything down again."""

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, make_server

from airflow_ephemeral_ec2.local.account_limits import AccountLimits
from airflow_ephemeral_ec2.local.api_log import ApiLog
from airflow_ephemeral_ec2.local.authorization import Gatekeeper
from airflow_ephemeral_ec2.local.control import Control
from airflow_ephemeral_ec2.local.ec2_api import LocalEc2Api
from airflow_ephemeral_ec2.local.fault_kinds import load_faults
from airflow_ephemeral_ec2.local.faults import FaultBook
from airflow_ephemeral_ec2.local.fleet import Fleet, find_backend
from airflow_ephemeral_ec2.local.gateway import DATE_OVERRIDE, Gateway
from airflow_ephemeral_ec2.local.instance_states import Event
from airflow_ephemeral_ec2.local.options import Options
from airflow_ephemeral_ec2.local.process_runner import ProcessRunner
from airflow_ephemeral_ec2.local.schedules import ScheduleClock
from airflow_ephemeral_ec2.local.seeding import Seed, parse_seed, seed
from airflow_ephemeral_ec2.local.sessions import ADMIN_ACCESS_KEY, SessionBook
from airflow_ephemeral_ec2.local.sts_api import LocalStsApi


class QuietHandler(MotoRequestHandler):
    """The API log has every call; stderr does not repeat it."""

    def end_headers(self) -> None:
        """Let a clock that is off replace the server's own."""
        name = f"{DATE_OVERRIDE}: ".encode()
        lines: list[bytes] = getattr(self, "_headers_buffer", [])
        if any(line.startswith(name) for line in lines):
            kept = [line for line in lines if not line.lower().startswith(b"date: ")]
            lines[:] = [line.replace(name, b"Date: ") for line in kept]
        super().end_headers()

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002, ANN401
        if type == "error":
            super().log(type, message, *args)


class LocalServer:
    """One local cloud in this process; moto's state is global, so there is one per process."""

    def __init__(self, options: Options) -> None:
        self.options = options
        options.home.mkdir(parents=True, exist_ok=True)
        self.log = ApiLog(options.api_log)
        self.runner = ProcessRunner(
            options.home, options.delays.stop_grace, options.max_file_bytes, options.state_file
        )
        sessions = SessionBook(options.credential_lifetime)
        self.fleet = Fleet(self.log, self.runner, sessions, options.delays, options.visible)
        faults = FaultBook()
        ec2 = LocalEc2Api(self.fleet)
        ec2.install()
        LocalStsApi(sessions).install()
        ScheduleClock(ACCOUNT, self._end_scheduled)
        limits = AccountLimits()
        control = Control(self.fleet, faults, ACCOUNT, self.facts, limits)
        if options.faults:
            control.apply(load_faults(options.faults))
        gateway = Gateway(
            moto=DomainDispatcherApplication(create_backend_app),
            control=control,
            limits=limits,
            gatekeeper=Gatekeeper(sessions, ACCOUNT),
            faults=faults,
            ec2=ec2,
            log=self.log,
        )
        self._http: BaseWSGIServer = make_server(
            options.host, options.port, gateway, threaded=True, request_handler=QuietHandler
        )
        self.fleet.api_url = f"http://127.0.0.1:{self._http.server_port}"

    def facts(self) -> dict[str, object]:
        """Return what a client has to know."""
        host = self.options.host
        shown = "127.0.0.1" if host in {"0.0.0.0", ""} else host  # noqa: S104 - only compared
        return {
            "url": f"http://{shown}:{self._http.server_port}",
            "pid": os.getpid(),
            "home": str(self.options.home),
            "instances": str(self.runner.folder),
            "api_log": str(self.options.api_log),
            "account": ACCOUNT,
            "access_key_id": ADMIN_ACCESS_KEY,
            "secret_access_key": ADMIN_ACCESS_KEY,
        }

    def prepare(self) -> None:
        """Seed, and load what the first call would otherwise wait for."""
        text = self.options.seed.read_text(encoding="utf-8") if self.options.seed else "{}"
        wanted: Seed = parse_seed(json.loads(text))
        find_backend(ACCOUNT, wanted.region)
        seed(wanted, ACCOUNT)
        threading.Thread(target=self.runner.python_folder, daemon=True).start()

    def _end_scheduled(self, region: str, name: str, instance_ids: Sequence[str]) -> None:
        """End what a schedule of EventBridge names; what is not there is no harm."""
        with self.fleet.lock:
            known = [one for one in instance_ids if one in self.fleet.members]
            for instance_id in known:
                self.fleet.members[instance_id].machine.happen(Event.TERMINATE)
        self.log.write(
            event="schedule", name=name, region=region, instance_ids=list(instance_ids), ended=known
        )

    def serve(self) -> None:
        """Serve until SIGTERM or SIGINT, then end every instance."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        if self.options.end_with_stdin:
            threading.Thread(target=self._await_stdin, daemon=True).start()
        self._announce()
        try:
            self._http.serve_forever()
        finally:
            self.close()

    def close(self) -> None:
        left = self.fleet.living()
        self.fleet.close()
        if self.options.state_file:
            self.options.state_file.unlink(missing_ok=True)
        self.log.write(event="stopped", pid=os.getpid(), ended_with_server=left)

    def _stop(self, *_: object) -> None:
        threading.Thread(target=self._http.shutdown, daemon=True).start()

    def _await_stdin(self) -> None:
        while os.read(0, 4_096):
            pass
        self._http.shutdown()

    def _announce(self) -> None:
        facts = json.dumps(self.facts())
        self.log.write(event="ready", pid=os.getpid())
        if self.options.state_file:
            _write_atomically(self.options.state_file, facts + "\n")
        sys.stdout.write(facts + "\n")
        sys.stdout.flush()


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
