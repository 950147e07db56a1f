"""All services behind one port; every API action is counted by name."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from benchmarks.endpoint.ec2 import FakeEC2, refuse
from benchmarks.endpoint.instances import Instance, Instances
from benchmarks.endpoint.other_services import FakeTasks, answer_ssm, answer_sts, reply
from benchmarks.endpoint.s3 import FakeS3
from benchmarks.endpoint.throttle import Throttle

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from benchmarks.endpoint.wire import Request, Response

_SCOPE = re.compile(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/aws4_request")
BUCKET = "records"


class Endpoint:
    """Tells the services apart by the scope that each request is signed for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._launches: list[tuple[float, str]] = []
        """(``time.monotonic()``, client token) of each RunInstances that was answered."""
        self._throttle = Throttle()
        self._s3 = FakeS3(BUCKET)
        self._tasks = FakeTasks()
        self._instances = Instances(loop.call_later)
        self._ec2 = FakeEC2(self._instances)

    def answer(self, request: Request) -> Response:
        if request.path.startswith("/-/"):
            return reply(self._control(request.path[3:], json.loads(request.body or b"{}")))
        scope = _SCOPE.search(request.headers.get("authorization", ""))
        if scope is None:
            return refuse(400, "MissingAuthenticationToken", "Request is missing Authentication")
        match scope[1]:
            case "s3":
                action = FakeS3.action_of(request)
                self._calls[f"s3:{action}"] += 1
                return self._s3.answer(action, request)
            case "ec2":
                return self._answer_ec2(request)
            case "sts":
                action = _form(request).get("Action", "")
                self._calls[f"sts:{action}"] += 1
                return answer_sts(action)
            case "batch":
                self._calls["batch:DescribeJobs"] += 1
                return self._tasks.batch(request.path, json.loads(request.body))
        return self._answer_json(scope[1], request)

    def _answer_json(self, service: str, request: Request) -> Response:
        action = request.headers.get("x-amz-target", "").rpartition(".")[2]
        self._calls[f"{service}:{action}"] += 1
        body = json.loads(request.body or b"{}")
        if service == "ssm":
            return answer_ssm(action, body)
        if service == "ecs":
            return self._tasks.ecs(action, body)
        return reply({"__type": "UnknownOperationException", "message": service}, 400)

    def _answer_ec2(self, request: Request) -> Response:
        params = _form(request)
        action = params.get("Action", "")
        self._calls[f"ec2:{action}"] += 1
        if not self._throttle.allows(action, is_narrowed=_is_narrowed(params)):
            self._refused[f"ec2:{action}"] += 1
            return refuse(503, "RequestLimitExceeded", "Request limit exceeded.")
        answer = self._ec2.answer(action, params)
        if action == "RunInstances" and answer.status == 200:
            self._launches.append((time.monotonic(), params.get("ClientToken", "")))
        return answer

    # -- control ---------------------------------------------------------------------------

    def _control(self, command: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answers = {
            "counts": self._count,
            "load": lambda body: self._load(Path(body["path"])),
            "throttle": self._set_throttle,
            "pace": self._set_pace,
            "die": self._plan_deaths,
            "deaths": lambda _: {"at": self._instances.terminated_at | self._tasks.ended_at},
            "launches": self._list_launches,
        }
        if command not in answers:
            return {"error": f"unknown: {command}"}
        return answers[command](body)

    def _count(self, _: Mapping[str, Any]) -> dict[str, Any]:
        counts = {"calls": dict(self._calls), "refused": dict(self._refused)}
        return {**counts, "keys_read": len(self._s3.keys_read)}

    def _set_throttle(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self._throttle = Throttle(body["buckets"])
        return {}

    def _set_pace(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Begin without instances, with other durations."""
        self._instances = Instances(self._loop.call_later, **body)
        self._ec2 = FakeEC2(self._instances)
        return {}

    def _plan_deaths(self, body: Mapping[str, Any]) -> dict[str, Any]:
        for death in body["deaths"]:
            self._loop.call_later(death["after"], self._die, death)
        return {}

    def _list_launches(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"launches": self._launches, "instances": len(self._instances.by_id)}

    def _load(self, path: Path) -> dict[str, Any]:
        """Lay objects and instances, a JSON line each."""
        count = 0
        with path.open() as lines:
            for line in lines:
                item = json.loads(line)
                if "key" in item:
                    self._s3.put(item["key"], item["body"].encode())
                else:
                    self._instances.add(Instance(**item))
                count += 1
        return {"loaded": count}

    def _die(self, death: Mapping[str, Any]) -> None:
        """Write what the machine leaves behind, then let it end: in this order, as an agent does."""
        for key, body in death.get("objects", {}).items():
            self._s3.put(key, body.encode())
        name = death["name"]
        if name in self._instances.by_id:
            self._instances.die(name)
        else:
            self._tasks.end(name)


def _form(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode(), keep_blank_values=True))


def _is_narrowed(params: Mapping[str, str]) -> bool:
    return any(name in params for name in ("MaxResults", "Filter.1.Name", "InstanceId.1"))
