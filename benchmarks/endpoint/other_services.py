"""The few actions of STS, SSM, ECS and Batch that triggers ask for."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.endpoint.wire import Response

IMAGE = "ami-0abcdef1234567890"


@dataclass
class FakeTasks:
    """ECS tasks and Batch jobs: name -> the time of its end; all of them run until then."""

    ended_at: dict[str, float] = field(default_factory=dict)

    def end(self, name: str) -> None:
        self.ended_at.setdefault(name, time.monotonic())

    def ecs(self, action: str, body: dict[str, Any]) -> Response:
        match action:
            case "DescribeTasks":
                tasks = [self._task(arn) for arn in body["tasks"]]
                return reply({"tasks": tasks, "failures": []})
            case "DescribeServices":
                return reply({"services": [], "failures": []})
        return reply({"__type": "UnknownOperationException", "message": action}, 400)

    def _task(self, arn: str) -> dict[str, Any]:
        status = "STOPPED" if arn in self.ended_at else "RUNNING"
        container = {"name": "job", "lastStatus": status, "taskArn": arn}
        if status == "STOPPED":
            container["exitCode"] = 0  # type: ignore[assignment]  # as ECS writes it
        return {
            "taskArn": arn,
            "clusterArn": "arn:aws:ecs:us-east-1:123456789012:cluster/bench",
            "taskDefinitionArn": "arn:aws:ecs:us-east-1:123456789012:task-definition/job:1",
            "lastStatus": status,
            "desiredStatus": status,
            "launchType": "FARGATE",
            "cpu": "256",
            "memory": "512",
            "containers": [container],
        }

    def batch(self, path: str, body: dict[str, Any]) -> Response:
        if path != "/v1/describejobs":
            return reply({"message": f"not in this endpoint: {path}"}, 404)
        return reply({"jobs": [self._job(name) for name in body["jobs"]]})

    def _job(self, name: str) -> dict[str, Any]:
        return {
            "jobId": name,
            "jobName": name,
            "jobQueue": "arn:aws:batch:us-east-1:123456789012:job-queue/bench",
            "jobDefinition": "arn:aws:batch:us-east-1:123456789012:job-definition/job:1",
            "status": "SUCCEEDED" if name in self.ended_at else "RUNNING",
            "startedAt": 1_700_000_000_000,
            "createdAt": 1_700_000_000_000,
        }


def answer_ssm(action: str, body: dict[str, Any]) -> Response:
    if action != "GetParameter":
        return reply({"__type": "UnknownOperationException", "message": action}, 400)
    parameter = {"Name": body["Name"], "Type": "String", "Value": IMAGE, "Version": 1}
    return reply({"Parameter": parameter})


def answer_sts(action: str) -> Response:
    """GetCallerIdentity; a connection without a role asks for nothing else."""
    if action != "GetCallerIdentity":
        text = f"<ErrorResponse><Error><Code>InvalidAction</Code><Message>{action}</Message></Error></ErrorResponse>"
        return Response(400, text.encode())
    body = (
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        "<GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/bench</Arn>"
        "<UserId>AIDA</UserId><Account>123456789012</Account></GetCallerIdentityResult>"
        "</GetCallerIdentityResponse>"
    )
    return Response(200, body.encode())


def reply(value: dict[str, Any], status: int = 200) -> Response:
    return Response(status, json.dumps(value).encode(), "application/x-amz-json-1.1")
