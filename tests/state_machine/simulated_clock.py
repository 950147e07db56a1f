"""Time that passes only when the test says so."""

from email.utils import formatdate

START = 1_780_000_000.0


class SimulatedClock:
    """Seconds since 1970 as AWS has them."""

    def __init__(self):
        self.now = START

    def read(self):
        return self.now

    @property
    def metadata(self):
        """What every answer of AWS carries."""
        return {"HTTPHeaders": {"date": formatdate(self.now, usegmt=True)}, "HTTPStatusCode": 200}
