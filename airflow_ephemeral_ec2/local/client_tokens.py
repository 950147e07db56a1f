"""
What a ``ClientToken`` means for RunInstances: replay, mismatch, or a new launch.

Source: EC2 API reference, "Ensuring idempotency in Amazon EC2 API requests": a token is scoped to
the availability zone when subnet or zone is given; equal token and parameters return the same
instance; other parameters are ``IdempotentParameterMismatch``; a terminated instance is
``IdempotentInstanceTerminated``. A refused launch (capacity) binds the token to its parameters too.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

_NOT_COMPARED = frozenset({"Action", "Version", "ClientToken", "DryRun"})


class Answer(StrEnum):
    """What a request gets; errors carry EC2's code."""

    LAUNCH = "launch"
    REPLAY = "replay"
    MISMATCH = "IdempotentParameterMismatch"
    TERMINATED = "IdempotentInstanceTerminated"


@dataclass
class TokenUse:
    """What a token was used for first."""

    digest: str
    reservation_id: str = ""
    instance_ids: tuple[str, ...] = ()


def parameters_digest(parameters: Mapping[str, str]) -> str:
    """Fingerprint of everything that must stay equal in a replay."""
    pairs = sorted((k, v) for k, v in parameters.items() if k not in _NOT_COMPARED)
    return hashlib.sha256(repr(pairs).encode()).hexdigest()


def judge_token(use: TokenUse | None, digest: str, is_live: Callable[[str], bool]) -> Answer:
    """Decide what a request with this token gets; ``is_live`` knows instances by id."""
    if use is None:
        return Answer.LAUNCH
    if use.digest != digest:
        return Answer.MISMATCH
    if not use.instance_ids:
        return Answer.LAUNCH
    if all(is_live(instance_id) for instance_id in use.instance_ids):
        return Answer.REPLAY
    return Answer.TERMINATED


@dataclass
class TokenBook:
    """All tokens ever used, by (token, region or zone)."""

    uses: dict[tuple[str, str], TokenUse] = field(default_factory=dict)

    def find(self, token: str, scope: str) -> TokenUse | None:
        return self.uses.get((token, scope))

    def bind(self, token: str, scope: str, digest: str) -> TokenUse:
        return self.uses.setdefault((token, scope), TokenUse(digest))
