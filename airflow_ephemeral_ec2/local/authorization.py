"""Who is asking, and may they? Signature, expiry and IAM policies of one request."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from moto.iam.models import iam_backends

from airflow_ephemeral_ec2.local.api_request import ApiRequest
from airflow_ephemeral_ec2.local.iam_policy import is_allowed
from airflow_ephemeral_ec2.local.sessions import ADMIN_ACCESS_KEY, Session, SessionBook
from airflow_ephemeral_ec2.local.signature import signature_problem


@dataclass(frozen=True)
class Refusal:
    """An error answer of AWS."""

    status: int
    code: str
    message: str


@dataclass(frozen=True)
class Principal:
    """Who signed; ``session`` is None for the administrator."""

    arn: str
    session: Session | None = None


@dataclass(frozen=True)
class Gatekeeper:
    """Lets the administrator pass and asks IAM about everybody else."""

    sessions: SessionBook
    account: str

    def admit(self, request: ApiRequest) -> Principal | Refusal:
        """Check one request; actions that nobody may do without permission are refused."""
        if request.access_key == ADMIN_ACCESS_KEY:
            return Principal(f"arn:aws:iam::{self.account}:user/local")
        session = self.sessions.find(request.access_key)
        if session is None:
            return _unknown_key(request)
        return self._identify(request, session) or self._authorize(request, session)

    @staticmethod
    def may(session: Session, action: str, resource: str, context: Mapping[str, str]) -> bool:
        """Ask about an action that is not the request's own."""
        known = {**_context(session), **context}
        return is_allowed(_policies(session), action, (resource,), known)

    @staticmethod
    def _identify(request: ApiRequest, session: Session) -> Refusal | None:
        if request.headers.get("x-amz-security-token") != session.token:
            code = "InvalidToken" if request.is_s3 else "InvalidClientTokenId"
            return Refusal(403, code, "The security token included in the request is invalid.")
        now = datetime.now(UTC)
        if session.is_expired(now):
            status = 400 if request.is_s3 else 403
            return Refusal(status, "ExpiredToken", "The provided token has expired.")
        problem = signature_problem(request, session.secret_key, now)
        return Refusal(403, problem, f"Refused: {problem}.") if problem else None

    def _authorize(self, request: ApiRequest, session: Session) -> Principal | Refusal:
        action = f"{request.service}:{request.action}"
        principal = Principal(session.arn, session)
        if action == "sts:GetCallerIdentity":
            return principal
        context = _context(session) | _request_context(request)
        names = resource_names(request, self.account)
        if not is_allowed(_policies(session), action, names, context):
            return _denied(request, session.arn, action)
        if action == "sts:AssumeRole" and not _trusts(names[0], session):
            return _denied(request, session.arn, action)
        return principal


def resource_names(request: ApiRequest, account: str) -> tuple[str, ...]:
    """Return the names that IAM knows the request's resource by."""
    if request.is_s3:
        path = f"{request.bucket}/{request.key}" if request.key else request.bucket
        return (f"arn:aws:s3:::{path}",) if path else ("*",)
    place = f"{request.region}:{account}"
    if request.service == "sts":
        return (request.form.get("RoleArn", "*"),)
    if request.service == "ssm":
        name = str(_json_body(request).get("Name", "*"))
        return (f"arn:aws:ssm:{place}:parameter/{name.lstrip('/')}",)
    if request.service == "secretsmanager":
        name = str(_json_body(request).get("SecretId", "*"))
        if name.startswith("arn:"):
            return (name, name.rpartition("-")[0])
        # AWS adds six random characters; policies end in -?????? or -*.
        base = f"arn:aws:secretsmanager:{place}:secret:{name}"
        return (base, f"{base}-abcdef")
    if request.service == "sqs":
        # https://sqs.REGION.amazonaws.com/ACCOUNT/NAME
        url = str(_json_body(request).get("QueueUrl", ""))
        return (f"arn:aws:sqs:{place}:{url.rpartition('/')[2] or '*'}",)
    ids = request.values("InstanceId") if request.service == "ec2" else []
    return tuple(f"arn:aws:ec2:{place}:instance/{one}" for one in ids) or ("*",)


def _context(session: Session) -> dict[str, str]:
    context = {"aws:PrincipalArn": session.role_arn}
    if session.instance_arn:
        context["ec2:SourceInstanceARN"] = session.instance_arn
        context["ec2:InstanceId"] = session.instance_arn.rpartition("/")[2]
    return context


def _request_context(request: ApiRequest) -> dict[str, str]:
    context = {"aws:RequestedRegion": request.region}
    if request.is_s3:
        if "if-none-match" in request.headers:
            context["s3:if-none-match"] = request.headers["if-none-match"]
        if request.action == "ListBucket":
            context["s3:prefix"] = request.query_values.get("prefix", "")
    return context


def _policies(session: Session) -> list[dict[str, Any]]:
    backend = iam_backends[session.account]["aws"]
    try:
        role = backend.get_role(session.role_name)
    except Exception:  # noqa: BLE001 - a deleted role has no rights, whatever moto raises
        return []
    documents: list[object] = list(role.policies.values())
    for policy in role.managed_policies.values():
        documents += [one.document for one in policy.versions if one.is_default]
    return [parse_document(text) for text in documents]


def _trusts(role_arn: str, session: Session) -> bool:
    backend = iam_backends[session.account]["aws"]
    try:
        role = backend.get_role_by_arn(role_arn)
    except Exception:  # noqa: BLE001 - as above
        return False
    accepted = {session.role_arn, session.arn, f"arn:aws:iam::{session.account}:root", "*"}
    statements = parse_document(role.assume_role_policy_document).get("Statement", [])
    for statement in statements if isinstance(statements, list) else [statements]:
        principal = statement.get("Principal")
        named = principal.get("AWS", []) if isinstance(principal, Mapping) else principal
        names = named if isinstance(named, list) else [named]
        if statement.get("Effect") == "Allow" and accepted & set(names):
            return True
    return False


def parse_document(text: object) -> dict[str, Any]:
    """Read a policy as moto keeps it: a mapping, JSON, or JSON in a URL's encoding."""
    if isinstance(text, Mapping):
        return dict(text)
    raw = str(text)
    document = json.loads(raw if raw.lstrip().startswith("{") else unquote(raw))
    return document if isinstance(document, dict) else {}


def _json_body(request: ApiRequest) -> dict[str, Any]:
    try:
        body = json.loads(request.body or b"{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _unknown_key(request: ApiRequest) -> Refusal:
    if not request.access_key:
        code = "AccessDenied" if request.is_s3 else "MissingAuthenticationToken"
        return Refusal(403, code, "Access Denied: the request is not signed.")
    advice = (
        f"The access key {request.access_key!r} does not exist here. The administrator's key of "
        f"the local EC2 is {ADMIN_ACCESS_KEY!r}, its secret too."
    )
    codes = {"s3": "InvalidAccessKeyId", "ec2": "AuthFailure"}
    return Refusal(403, codes.get(request.service, "InvalidClientTokenId"), advice)


def _denied(request: ApiRequest, arn: str, action: str) -> Refusal:
    code = {"s3": "AccessDenied", "ec2": "UnauthorizedOperation"}.get(request.service)
    status = 400 if request.service in {"ssm", "secretsmanager"} else 403
    default = "AccessDeniedException" if status == 400 else "AccessDenied"
    message = f"User: {arn} is not authorized to perform: {action}"
    return Refusal(status, code or default, message)
