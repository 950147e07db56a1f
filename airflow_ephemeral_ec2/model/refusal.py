"""A definitive refusal of one placement: written down, so that no crash asks for it again."""

from typing import Literal, Self

from airflow_ephemeral_ec2.model.plan import LaunchRecord
from airflow_ephemeral_ec2.model.spec import Spec


class Refusal(Spec):
    """What EC2 has said to one placement of an attempt, as the bucket keeps it."""

    version: Literal[1] = 1
    jobkey: str
    attempt: int
    nonce: str
    placement: str
    code: str
    message: str
    at: float
    """Seconds since 1970, by the bucket's clock."""

    @classmethod
    def of(cls, record: LaunchRecord, index: int, code: str, message: str, at: float) -> Self:
        """Note what was said to a placement of a launch record."""
        return cls(
            jobkey=record.jobkey,
            attempt=record.attempt,
            nonce=record.nonce,
            placement=str(record.placements[index]),
            code=code,
            message=message,
            at=at,
        )

    def is_of(self, record: LaunchRecord, index: int) -> bool:
        """Whether it names this placement of this attempt."""
        named = (self.jobkey, self.attempt, self.nonce, self.placement)
        wanted = (record.jobkey, record.attempt, record.nonce, str(record.placements[index]))
        return named == wanted
