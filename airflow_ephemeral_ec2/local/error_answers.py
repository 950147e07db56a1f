"""Answers of AWS's protocols: what came from moto, and errors of our own making."""

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from xml.sax.saxutils import escape

from airflow_ephemeral_ec2.local.api_request import ApiRequest

_REQUEST_ID = "00000000-0000-4000-8000-000000000000"
_XML_CODE = re.compile(rb"<Code>([^<]*)</Code>")
_INSTANCE = re.compile(rb"<instanceId>(i-[0-9a-f]+)</instanceId>")


@dataclass(frozen=True)
class Reply:
    """One HTTP answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def phrase(self) -> str:
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return "Unknown"

    @property
    def error_code(self) -> str | None:
        """AWS's error code, where this is an error."""
        if self.status < 400:
            return None
        found = _XML_CODE.search(self.body)
        if found:
            return found.group(1).decode()
        try:
            return str(json.loads(self.body)["__type"]).rpartition("#")[2]
        except (ValueError, KeyError, TypeError):
            return str(self.status)

    @property
    def instance_ids(self) -> list[str]:
        found = [one.decode() for one in _INSTANCE.findall(self.body)]
        return list(dict.fromkeys(found))


def render_error(request: ApiRequest, status: int, code: str, message: str) -> Reply:
    """Write an error in the protocol that the caller speaks."""
    if request.method == "HEAD":
        return Reply(status, [("Content-Length", "0")], b"")
    if "x-amz-target" in request.headers:
        body = json.dumps({"__type": code, "message": message}).encode()
        return Reply(status, [("Content-Type", "application/x-amz-json-1.1")], body)
    error = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    text = (
        f"<ErrorResponse><Error>{error}</Error><RequestId>{_REQUEST_ID}</RequestId></ErrorResponse>"
    )
    if request.is_s3:
        place = escape(request.path)
        text = f"<Error>{error}<Resource>{place}</Resource><RequestId>{_REQUEST_ID}</RequestId></Error>"
    elif request.service == "ec2":
        text = (
            f"<Response><Errors><Error>{error}</Error></Errors>"
            f"<RequestID>{_REQUEST_ID}</RequestID></Response>"
        )
    body = b'<?xml version="1.0" encoding="UTF-8"?>\n' + text.encode()
    return Reply(status, [("Content-Type", "application/xml")], body)
