"""The table of what was reached, after the tests."""

from tests.state_machine.world import REACHED


def pytest_terminal_summary(terminalreporter):
    if REACHED:
        terminalreporter.section("state machine: reached")
        for what, count in sorted(REACHED.items()):
            terminalreporter.write_line(f"{count:>8,}  {what}")
