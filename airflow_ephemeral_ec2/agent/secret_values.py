"""Secrets by reference: ``ssm:NAME`` and ``secretsmanager:NAME``, read with the job's role."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.agent.failure import Failure
from airflow_ephemeral_ec2.contract import ERROR_SECRETS

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.agent.aws import Aws

SERVICES = {
    "ssm": ("AmazonSSM.GetParameter", "Name", ("Parameter", "Value")),
    "secretsmanager": ("secretsmanager.GetSecretValue", "SecretId", ("SecretString",)),
}


def secret_value(aws: Aws, reference: str, patience: float) -> str:
    """Return the text behind a reference.

    Raises:
        Failure: no such secret, refused, or the service cannot be reached.

    """
    service, _, name = reference.partition(":")
    if service not in SERVICES:
        raise Failure(ERROR_SECRETS, f"{reference!r}: expected ssm:NAME or secretsmanager:NAME")
    target, field, path = SERVICES[service]
    question: dict[str, object] = {field: name}
    if service == "ssm":
        question["WithDecryption"] = True
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": target}
    body = json.dumps(question).encode()
    try:
        answer = aws.ask(service, "POST", aws.url(service) + "/", headers, body, patience=patience)
        found = json.loads(answer.body)
        for step in path:
            found = found[step]
    except (KeyError, ValueError) as e:
        raise Failure(ERROR_SECRETS, f"{reference}: it holds no text") from e
    except Failure as e:
        raise Failure(e.kind, f"{reference}: {e.message}") from e
    return str(found)
