"""EC2's query protocol for the actions that waiting and launching need."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from benchmarks.endpoint.instances import BY_API, Instance, Instances, UnknownFilterError
from benchmarks.endpoint.wire import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
MAX_FILTERS, MAX_VALUES = 50, 200
KEPT_PAGES = 1_000


class FakeEC2:
    """Answers with what the instances are; refuses what it does not know."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances
        self._rest: dict[str, list[Instance]] = {}
        """NextToken -> instances that are still to be shown."""

    def answer(self, action: str, params: Mapping[str, str]) -> Response:
        try:
            match action:
                case "DescribeInstances":
                    return self._describe(params)
                case "DescribeInstanceStatus":
                    return self._statuses(params)
                case "RunInstances":
                    return self._run(params)
                case "TerminateInstances":
                    return self._terminate(params)
                case "GetConsoleOutput":
                    return self._console(params)
        except UnknownFilterError as error:
            return refuse(400, "InvalidParameterValue", f"The filter '{error}' is invalid")
        return refuse(400, "InvalidAction", f"not in this endpoint: {action}")

    # -- describe --------------------------------------------------------------------------

    def _describe(self, params: Mapping[str, str]) -> Response:
        ids, filters = numbered(params, "InstanceId"), read_filters(params)
        if ids and "MaxResults" in params:
            return refuse(400, "InvalidParameterCombination", "MaxResults with InstanceId")
        if len(filters) > MAX_FILTERS or any(len(v) > MAX_VALUES for v in filters.values()):
            return refuse(400, "FilterLimitExceeded", "at most 50 filters of 200 values")
        unknown = [i for i in ids if i not in self._instances.by_id]
        if unknown:
            text = f"The instance ID '{unknown[0]}' does not exist"
            return refuse(400, "InvalidInstanceID.NotFound", text)
        if ids:
            filters = {**filters, "instance-id": ids}
        size = int(params.get("MaxResults", "0"))
        if "MaxResults" in params and not 5 <= size <= 1_000:
            return refuse(400, "InvalidParameterValue", "MaxResults: 5 to 1000")
        found = self._page_source(params, filters)
        if found is None:
            return refuse(400, "InvalidParameterValue", "Unable to parse token")
        shown, rest = (found[:size], found[size:]) if size else (found, [])
        return respond("DescribeInstances", _reservations(shown) + self._keep(rest))

    def _page_source(
        self, params: Mapping[str, str], filters: Mapping[str, list[str]]
    ) -> list[Instance] | None:
        if "NextToken" in params:
            return self._rest.pop(params["NextToken"], None)
        return self._instances.find(filters)

    def _keep(self, rest: list[Instance]) -> bytes:
        if not rest:
            return b""
        while len(self._rest) >= KEPT_PAGES:
            del self._rest[next(iter(self._rest))]
        token = secrets.token_hex(16)
        self._rest[token] = rest
        return f"<nextToken>{token}</nextToken>".encode()

    def _statuses(self, params: Mapping[str, str]) -> Response:
        filters, ids = read_filters(params), numbered(params, "InstanceId")
        wanted = filters.get("system-status.status")
        if set(filters) - {"system-status.status"} or ids:
            return refuse(400, "InvalidParameterValue", "only system-status.status")
        # Every host of this endpoint is well.
        found = [] if wanted and "ok" not in wanted else self._instances.find({})
        items = "".join(
            f"<item><instanceId>{i.instance_id}</instanceId><systemStatus><status>ok</status>"
            "</systemStatus></item>"
            for i in found
            if i.state == "running"
        )
        body = f"<instanceStatusSet>{items}</instanceStatusSet>".encode()
        return respond("DescribeInstanceStatus", body)

    def _console(self, params: Mapping[str, str]) -> Response:
        instance_id = params["InstanceId"]
        if instance_id not in self._instances.by_id:
            return refuse(400, "InvalidInstanceID.NotFound", "no such instance")
        body = f"<instanceId>{instance_id}</instanceId>".encode()
        return respond("GetConsoleOutput", body)

    # -- change ----------------------------------------------------------------------------

    def _run(self, params: Mapping[str, str]) -> Response:
        if (params.get("MinCount"), params.get("MaxCount")) != ("1", "1"):
            return refuse(400, "InvalidParameterValue", "this endpoint launches one at a time")
        subnet = params.get("SubnetId") or params.get("NetworkInterface.1.SubnetId", "")
        tags = {}
        for number in range(1, 51):
            key = params.get(f"TagSpecification.1.Tag.{number}.Key")
            if key is None:
                break
            tags[key] = params.get(f"TagSpecification.1.Tag.{number}.Value", "")
        instance = self._instances.launch(
            params["InstanceType"], subnet, params.get("ClientToken", ""), tags
        )
        body = (
            f"<reservationId>r-{instance.instance_id[2:]}</reservationId>"
            "<ownerId>123456789012</ownerId><groupSet/>"
        ).encode()
        return respond(
            "RunInstances", body + b"<instancesSet>" + instance.item + b"</instancesSet>"
        )

    def _terminate(self, params: Mapping[str, str]) -> Response:
        ids = numbered(params, "InstanceId")
        unknown = [i for i in ids if i not in self._instances.by_id]
        if unknown:
            return refuse(400, "InvalidInstanceID.NotFound", unknown[0])
        items = ""
        for instance_id in ids:
            before = self._instances.by_id[instance_id].state
            self._instances.die(instance_id, BY_API)
            now = self._instances.by_id[instance_id].state
            items += (
                f"<item><instanceId>{instance_id}</instanceId>"
                f"<currentState><code>32</code><name>{now}</name></currentState>"
                f"<previousState><code>16</code><name>{before}</name></previousState></item>"
            )
        return respond("TerminateInstances", f"<instancesSet>{items}</instancesSet>".encode())


def _reservations(instances: list[Instance]) -> bytes:
    return b"<reservationSet>" + b"".join(i.reservation for i in instances) + b"</reservationSet>"


def numbered(params: Mapping[str, str], name: str) -> list[str]:
    """Read ``Name.1``, ``Name.2``, ..."""
    found = []
    while (value := params.get(f"{name}.{len(found) + 1}")) is not None:
        found.append(value)
    return found


def read_filters(params: Mapping[str, str]) -> dict[str, list[str]]:
    """Read ``Filter.1.Name``, ``Filter.1.Value.1``, ..."""
    filters: dict[str, list[str]] = {}
    number = 1
    while (name := params.get(f"Filter.{number}.Name")) is not None:
        filters[name] = numbered(params, f"Filter.{number}.Value")
        number += 1
    return filters


def respond(action: str, body: bytes) -> Response:
    head = (
        f'<?xml version="1.0" encoding="UTF-8"?><{action}Response xmlns="{NAMESPACE}">'
        "<requestId>00000000-0000-0000-0000-000000000000</requestId>"
    )
    return Response(200, head.encode() + body + f"</{action}Response>".encode())


def refuse(status: int, code: str, message: str) -> Response:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error>'
        f"<Code>{code}</Code><Message>{escape(message)}</Message></Error></Errors>"
        "<RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"
    )
    return Response(status, body.encode())
