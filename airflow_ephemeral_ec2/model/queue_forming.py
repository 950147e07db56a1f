"""All that a decision needs, from entries, queue state and orders: the same for whoever decides."""

from collections.abc import Iterable, Mapping, Sequence

from airflow_ephemeral_ec2.model.admission import Queue
from airflow_ephemeral_ec2.model.arrivals import limits_in_force, name_pool, rename_pool
from airflow_ephemeral_ec2.model.queue import QueueEntry, QueueState
from airflow_ephemeral_ec2.model.queue_orders import QueueOrder, find_holds, find_promoted
from airflow_ephemeral_ec2.model.spec import Limits


def form_queue(
    entries: Sequence[QueueEntry],
    state: QueueState,
    orders: Iterable[QueueOrder],
    obstacles: Mapping[str, str],
) -> tuple[Queue, dict[str, Limits]]:
    """
    Form the queue and find the limits of its pools.

    :param state: has a state for each entry (``merge_arrivals``)
    :param obstacles: entry name -> what of its own it waits for, holds not included
    """
    orders = list(orders)
    pools = {name: rename_pool(found.pool, state.accounts) for name, found in state.entries.items()}
    pools |= {entry.name: name_pool(entry, state.accounts) for entry in entries}
    queue = Queue(
        entries=entries,
        states=state.entries,
        pools=pools,
        blocked={**obstacles, **find_holds(entries, orders)},
        promoted=find_promoted(entries, orders),
    )
    return queue, limits_in_force(state, entries)
