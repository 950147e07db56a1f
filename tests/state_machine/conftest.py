"""The table of what was reached, after the tests."""

from tests.state_machine.coverage import ALL
from tests.state_machine.world import REACHED


def pytest_terminal_summary(terminalreporter):
    if REACHED.total() > len(ALL):
        # The plain steps of test_found alone reach little, and need not.
        for what in ALL:
            REACHED.setdefault(what, 0)
    if REACHED:
        terminalreporter.section("state machine: reached")
        for what, count in sorted(REACHED.items()):
            terminalreporter.write_line(f"{count:>8,}  {what}")
