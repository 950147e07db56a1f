"""``depends_on``: unknown names, disabled jobs, cycles."""

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from airflow_ephemeral_ec2.config_table.messages import quote, unknown_word
from airflow_ephemeral_ec2.config_table.rows import Row
from airflow_ephemeral_ec2.exceptions import Problem

_Jobs = Mapping[str, Row]


def check_dependencies(rows: tuple[Row, ...]) -> Iterator[Problem]:
    by_payer: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_payer.setdefault(row.spec.payer, {})[row.spec.job] = row
    for jobs in by_payer.values():
        for row in jobs.values():
            yield from _check_names(row, jobs)
        for cycle in find_cycles({name: row.spec.depends_on for name, row in jobs.items()}):
            message = f"cycle: {' -> '.join(cycle)}; each waits for the next"
            yield jobs[cycle[0]].problem("depends_on", message)


def _check_names(row: Row, jobs: _Jobs) -> Iterator[Problem]:
    names = row.spec.depends_on
    for index, name in enumerate(names):
        if name not in jobs:
            known = tuple(job for job in jobs if job != row.spec.job)
            message = f"{quote(name)}: {unknown_word(name, known, 'job')}"
            yield row.problem("depends_on", message, index)
        elif name in names[:index]:
            yield row.problem("depends_on", f"{quote(name)}: written twice", index)
        elif row.spec.enabled and not jobs[name].spec.enabled:
            message = f"false: {row.spec.job} depends on it; disable {row.spec.job} too or change its depends_on"
            yield jobs[name].problem("enabled", message)


def find_cycles(graph: Mapping[str, tuple[str, ...]]) -> list[tuple[str, ...]]:
    """List cycles that have no edge in common, each from its first job: ``a -> b -> a``."""
    left = {name: [n for n in needs if n in graph] for name, needs in graph.items()}
    order = list(graph)
    cycles: list[tuple[str, ...]] = []
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            # graphlib lists each job before the one that depends on it, the first also last.
            found: list[str] = list(reversed(error.args[1][:-1]))
            start = min(range(len(found)), key=lambda index: order.index(found[index]))
            cycle = found[start:] + found[:start]
            left[cycle[0]].remove(cycle[1 % len(cycle)])
            cycles.append((*cycle, cycle[0]))
        else:
            return cycles
