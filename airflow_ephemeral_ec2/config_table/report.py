"""Problems as people read them."""

from collections.abc import Iterable

from airflow_ephemeral_ec2.exceptions import Problem


def format_problems(problems: Iterable[Problem], *, checked: int) -> str:
    """Align problems in columns and end with how many there are in how many jobs."""
    lines = [
        (
            f"{problem.path}:{problem.line}" if problem.line else problem.path,
            problem.column,
            problem.message,
        )
        for problem in problems
    ]
    first, second = (_width([line[index] for line in lines]) for index in (0, 1))
    text = [f"{place:<{first}}{column:<{second}}{message}" for place, column, message in lines]
    errors = f"{len(lines)} error{'' if len(lines) == 1 else 's'}" if lines else "no errors"
    text.append(f"{errors} in {checked} job{'' if checked == 1 else 's'}; no AWS call made")
    return "\n".join(text)


def _width(words: list[str]) -> int:
    """Two blanks at least, and columns that stay put when a word grows by one letter."""
    longest = max((len(word) for word in words), default=0)
    return 0 if longest == 0 else (longest + 2 + 3) // 4 * 4
