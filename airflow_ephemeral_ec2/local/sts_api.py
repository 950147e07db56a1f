"""AssumeRole: moto's answer, with a lifetime that can be capped, known to our gatekeeper."""

from datetime import UTC
from typing import Any

from moto.sts.models import STSBackend

from airflow_ephemeral_ec2.local.sessions import Session, SessionBook

_MOTO_ASSUME_ROLE = STSBackend.assume_role


class LocalStsApi:
    """Patches moto's STS in this process."""

    def __init__(self, sessions: SessionBook) -> None:
        self._sessions = sessions

    def install(self) -> None:
        api = self

        def assume_role(self: Any, **wanted: Any) -> Any:  # noqa: ANN401 - moto is not typed
            return api.assume_role(self, **wanted)

        setattr(STSBackend, "assume_role", assume_role)  # noqa: B010 - mypy accepts no patching

    def assume_role(self, backend: Any, **wanted: Any) -> Any:  # noqa: ANN401
        duration = self._sessions.seconds(float(wanted["duration"]))
        role = _MOTO_ASSUME_ROLE(backend, **{**wanted, "duration": duration})
        self._sessions.add(
            Session(
                access_key=role.access_key_id,
                secret_key=role.secret_access_key,
                token=role.session_token,
                role_arn=role.role_arn,
                session_name=role.session_name,
                expires_at=role.expiration.replace(tzinfo=UTC),
            )
        )
        return role
