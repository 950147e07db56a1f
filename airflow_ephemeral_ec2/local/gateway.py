"""The one door: every request is identified, permitted, delayed or broken, answered and logged."""

import io
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from airflow_ephemeral_ec2.local.account_limits import AccountLimits
from airflow_ephemeral_ec2.local.api_log import ApiLog
from airflow_ephemeral_ec2.local.api_request import ApiRequest
from airflow_ephemeral_ec2.local.authorization import Gatekeeper, Principal, Refusal
from airflow_ephemeral_ec2.local.client_tokens import Answer
from airflow_ephemeral_ec2.local.control import Control
from airflow_ephemeral_ec2.local.distortions import DISTORTIONS
from airflow_ephemeral_ec2.local.ec2_api import LocalEc2Api
from airflow_ephemeral_ec2.local.error_answers import Reply, render_error
from airflow_ephemeral_ec2.local.faults import CAPACITY_CODES, Fault, FaultBook

_LOCKS = tuple(threading.Lock() for _ in range(64))
DATE_OVERRIDE = "Local-Ec2-Date"
"""The server writes its own Date; this header replaces it on the way out."""
_WRITES = frozenset({"PUT", "POST", "DELETE"})


@dataclass(frozen=True)
class Gateway:
    """WSGI middleware in front of moto."""

    moto: WSGIApplication
    control: Control
    gatekeeper: Gatekeeper
    faults: FaultBook
    ec2: LocalEc2Api
    log: ApiLog
    limits: AccountLimits

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = str(environ.get("PATH_INFO", ""))
        if path.startswith("/local-ec2/"):
            reply = self.control.answer(environ["REQUEST_METHOD"], path, read_body(environ))
        elif path.startswith("/moto-api"):
            reply = Reply(404, [], b"moto's own API is closed here\n")
        else:
            reply = self._answer(environ)
        start_response(f"{reply.status} {reply.phrase}", reply.headers)
        return [reply.body]

    def _answer(self, environ: WSGIEnvironment) -> Reply:
        began = time.monotonic()
        request = read_request(environ)
        principal = self.gatekeeper.admit(request)
        fault: Fault | None = None
        if isinstance(principal, Refusal):
            reply = render_error(request, principal.status, principal.code, principal.message)
        elif self._is_cut_off(principal):
            _hang_up(environ)
            return Reply(503, [], b"")
        else:
            fault = self._fault(request, principal) or self._over_limit(request)
            reply = self._perform(environ, request, principal, fault)
        self._log(request, principal, reply, time.monotonic() - began, fault)
        if fault and fault.drop:
            _hang_up(environ)
        return reply

    def _is_cut_off(self, principal: Principal) -> bool:
        session = principal.session
        return session is not None and self.ec2.fleet.is_cut_off(session.instance_arn)

    def _perform(
        self,
        environ: WSGIEnvironment,
        request: ApiRequest,
        principal: Principal,
        fault: Fault | None,
    ) -> Reply:
        if fault is None:
            return self._execute(environ, request, principal)
        time.sleep(fault.delay)
        broken = Reply(0, [], b"") if fault.drop else None
        if fault.code:
            broken = render_error(request, fault.http, fault.code, fault.message)
        if broken is None:
            if fault.twice:
                self._execute(environ, request, principal)
                environ["wsgi.input"] = io.BytesIO(request.body)
            return _distort(self._execute(environ, request, principal), fault)
        if fault.after:
            self._execute(environ, request, principal)
        return broken

    def _over_limit(self, request: ApiRequest) -> Fault | None:
        """Refuse what goes over the account's limits, where some were set."""
        if request.service != "ec2":
            return None
        refusal = self.limits.throttle(request.action)
        if refusal is None and request.action == "RunInstances":
            with self.ec2.fleet.lock:
                account, region = self.gatekeeper.account, request.region
                if self.ec2.is_new(dict(request.form), account, region):
                    wanted, used, is_spot = self.ec2.vcpus(dict(request.form))
                    refusal = self.limits.quota(wanted, used, is_spot=is_spot)
        return refusal

    def _fault(self, request: ApiRequest, principal: Principal) -> Fault | None:
        values = dict(request.form) | {"Bucket": request.bucket, "Key": request.key}
        values |= {"method": request.method, "by": principal.arn}
        if request.action == "RunInstances":
            account = self.gatekeeper.account
            values |= self.ec2.place_of(dict(request.form), account, request.region)
        fault = self.faults.peek(request.service, request.action, values)
        if fault is None:
            return None
        if fault.code in CAPACITY_CODES and request.action == "RunInstances":
            # A replay finds its instance whatever the capacity; a refusal binds the token.
            with self.ec2.fleet.lock:
                account, region = self.gatekeeper.account, request.region
                if self.ec2.bind(dict(request.form), account, region) is not Answer.LAUNCH:
                    return None
        self.faults.use(fault)
        return fault

    def _execute(
        self, environ: WSGIEnvironment, request: ApiRequest, principal: Principal
    ) -> Reply:
        if request.service == "ec2":
            with self.ec2.fleet.lock:
                return call_application(self.moto, environ, request)
        if request.is_s3 and request.method in _WRITES:
            # Conditional writes must look and write as one step, as S3 does.
            with _LOCKS[hash((request.bucket, request.key)) % len(_LOCKS)]:
                return call_application(self.moto, environ, request)
        reply = call_application(self.moto, environ, request)
        if request.is_s3 and reply.status == 404 and request.key:
            return self._hide_absence(request, principal) or reply
        return reply

    def _hide_absence(self, request: ApiRequest, principal: Principal) -> Reply | None:
        """S3 says 403, not 404, to those who may not list the bucket."""
        session = principal.session
        bucket = f"arn:aws:s3:::{request.bucket}"
        if session is None or self.gatekeeper.may(
            session, "s3:ListBucket", bucket, {"s3:prefix": request.key}
        ):
            return None
        return render_error(request, 403, "AccessDenied", "Access Denied")

    def _log(
        self,
        request: ApiRequest,
        principal: Principal | Refusal,
        reply: Reply,
        seconds: float,
        fault: Fault | None,
    ) -> None:
        fields: dict[str, Any] = {
            "service": request.service,
            "action": request.action,
            "params": request.identifiers(),
            "status": reply.status,
            "code": reply.error_code,
            "by": principal.arn if isinstance(principal, Principal) else request.access_key,
            "seconds": round(seconds, 4),
        }
        if request.action == "RunInstances":
            fields["instance_ids"] = reply.instance_ids
            fields["instance_id"] = next(iter(reply.instance_ids), None)
        if fault:
            fields["fault"] = {"code": fault.code, "after": fault.after, "drop": fault.drop}
        self.log.write(**fields)


def _distort(reply: Reply, fault: Fault) -> Reply:
    headers, body = reply.headers, reply.body
    if fault.distortion:
        body = DISTORTIONS[fault.distortion](body)
        headers = [(n, v) for n, v in headers if n.lower() != "content-length"]
    if fault.shifts_date:
        moment = formatdate(time.time() + fault.shifts_date, usegmt=True)
        headers = [*headers, (DATE_OVERRIDE, moment)]
    return Reply(reply.status, headers, body)


def read_body(environ: WSGIEnvironment) -> bytes:
    """Read the whole body, whatever its framing."""
    stream = environ["wsgi.input"]
    if environ.get("wsgi.input_terminated"):
        return bytes(stream.read())
    return bytes(stream.read(int(environ.get("CONTENT_LENGTH") or 0)))


def read_request(environ: WSGIEnvironment) -> ApiRequest:
    """Take the request out of WSGI, and put the body back for moto."""
    body = read_body(environ)
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ.pop("wsgi.input_terminated", None)
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_") or name in {"CONTENT_TYPE", "CONTENT_LENGTH"}
    }
    target = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "")
    path, _, query = target.partition("?")
    method = str(environ["REQUEST_METHOD"])
    return ApiRequest(method, path or str(environ["PATH_INFO"]), query, headers, body)


def call_application(
    application: WSGIApplication, environ: WSGIEnvironment, request: ApiRequest
) -> Reply:
    """Call moto and hold its whole answer."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start(status: str, headers: list[tuple[str, str]], _: object = None) -> Callable[..., Any]:
        started.append((status, headers))
        return lambda _: None

    try:
        body = b"".join(application(environ, start))
    except Exception:  # noqa: BLE001 - whatever moto raises, the server goes on and says so
        traceback.print_exc()
        text = f"The local EC2 cannot do {request.service}:{request.action} like this."
        return render_error(request, 501, "NotImplemented", text)
    status, headers = started[-1]
    return Reply(int(status.split()[0]), headers, body)


def _hang_up(environ: WSGIEnvironment) -> None:
    connection = environ.get("werkzeug.socket")
    if connection is not None:
        connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError
