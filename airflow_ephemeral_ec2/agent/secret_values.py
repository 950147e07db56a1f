"""Secrets by reference: ``ssm:NAME`` and ``secretsmanager:NAME``, read with the job's role."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airflow_ephemeral_ec2.agent.failure import Failure
from airflow_ephemeral_ec2.contract import ERROR_INTERNAL, ERROR_SECRETS

if TYPE_CHECKING:
    from airflow_ephemeral_ec2.agent.aws import Aws

TARGETS = {"ssm": "AmazonSSM.GetParameter", "secretsmanager": "secretsmanager.GetSecretValue"}


def secret_value(aws: Aws, reference: str, patience: float) -> str:
    """Return the text behind a reference.

    Raises:
        Failure: no such secret, refused, or the service cannot be reached.

    """
    service, _, name = reference.partition(":")
    if service not in TARGETS:
        raise Failure(ERROR_SECRETS, f"{reference!r}: expected ssm:NAME or secretsmanager:NAME")
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": TARGETS[service]}
    question = {"Name": name, "WithDecryption": True} if service == "ssm" else {"SecretId": name}
    body = json.dumps(question).encode()
    try:
        answer = aws.ask(service, "POST", aws.url(service) + "/", headers, body, patience=patience)
    except Failure as e:
        kind = ERROR_SECRETS if e.kind == ERROR_INTERNAL else e.kind
        raise Failure(kind, f"{reference}: {e.message}") from e
    found = json.loads(answer.body)
    text = found.get("SecretString") or found.get("Parameter", {}).get("Value")
    if not text:
        raise Failure(ERROR_SECRETS, f"{reference}: it holds no text")
    return str(text)
