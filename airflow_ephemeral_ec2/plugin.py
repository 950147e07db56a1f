"""What Airflow takes from plugins only: the timetables of payer DAGs."""

from airflow.plugins_manager import AirflowPlugin

from airflow_ephemeral_ec2.timetables.on_request import OnRequestTimetable


class EphemeralEC2Plugin(AirflowPlugin):
    """Registers the timetables, so that the scheduler and the API server can read payer DAGs."""

    name = "ephemeral_ec2"
    timetables = [OnRequestTimetable]  # noqa: RUF012 - as Airflow wants it
