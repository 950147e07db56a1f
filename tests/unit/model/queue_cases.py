"""Queues that hypothesis thinks of, and the plainest counts of what they hold."""

from collections import Counter
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from airflow_ephemeral_ec2.model.admission import Queue, admit, rank
from airflow_ephemeral_ec2.model.limit_names import limits_of
from airflow_ephemeral_ec2.model.queue import EntryState, Stage
from airflow_ephemeral_ec2.model.spec import Limits
from tests.unit.model.queue_entries import make_entry
from tests.unit.model.queue_sample import NOW

POOLS = ("us-east-1/1", "eu-west-1/1")


@dataclass(frozen=True)
class Case:
    """A queue, and the limits of its pools."""

    queue: Queue
    limits: dict

    def decide(self):
        return admit(self.queue, self.limits, NOW)

    @property
    def entries(self):
        return {entry.name: entry for entry in self.queue.entries}

    def rank(self, name):
        state = self.queue.states[name]
        return rank(self.entries[name], state.sequence, self.queue.promoted.get(name))

    def own(self, name):
        return limits_of(self.entries[name], self.limits[self.queue.pools[name]])

    def is_in_the_way_of(self, other, one):
        """Whether another run's job is the same as this one, or reads or writes what it does."""
        a, b = self.entries[one], self.entries[other]
        if (a.payer, a.business_date) != (b.payer, b.business_date):
            return False
        if not (a.run_key and b.run_key) or a.run_key == b.run_key:
            return False
        if not (a.cross_run_order and b.cross_run_order):
            return False
        if a.job == b.job:
            return a.array_size != b.array_size or a.array_index == b.array_index
        reads = b.job in a.depends_on and not a.order_override
        return reads or b.job in a.dependents

    def is_in_line(self, name, decision):
        """Whether it waits for nothing of its own, and is not larger than a limit."""
        wait = decision.waiting.get(name)
        return wait is not None and wait.because != "never" and name not in self.queue.blocked

    def shares_pool(self, one, other):
        return self.queue.pools[one] == self.queue.pools[other]

    def out(self, name):
        return self.queue.states[name].stage is not Stage.WAITING


maybe_limit = st.none() | st.integers(1, 16)
all_limits = st.builds(
    Limits,
    vcpus=maybe_limit,
    on_demand=maybe_limit,
    spot=maybe_limit,
    payers=st.dictionaries(st.sampled_from(["acme", "pea"]), st.integers(1, 16)),
    jobs=st.dictionaries(st.sampled_from(["member", "claims"]), st.integers(1, 16)),
    fill_gaps=st.booleans(),
)

tight_limits = st.builds(Limits, vcpus=st.integers(8, 12))
"""One limit, so that many queues have gaps."""


CHAIN = {
    "member": ((), ("claims", "other")),
    "claims": (("member",), ("other",)),
    "other": (("claims",), ()),
}
"""Job -> what it depends on, and what reads what it writes."""
PARTS = [{}, {}, *({"array_size": 2, "array_index": n} for n in (0, 1))]


@st.composite
def _entry(draw, number):
    job, run_key = (
        draw(st.sampled_from(sorted(CHAIN))),
        draw(st.sampled_from(["", "run1", "run2", "run3"])),
    )
    depends_on, dependents = CHAIN[job]
    return make_entry(
        f"{number:04d}",
        job,
        payer=draw(st.sampled_from(["acme", "pea", "zeta"])),
        priority=draw(st.sampled_from([100, 500, 900])),
        business_date=draw(st.sampled_from(["2026-02-28", "2026-03-01"])),
        is_backfill=draw(st.booleans()),
        vcpus=draw(st.integers(1, 8)),
        capacity_type=draw(st.sampled_from(["on-demand", "spot", "spot-then-on-demand"])),
        max_runtime=draw(st.sampled_from([60, 3_600, 36_000])),
        run_key=run_key,
        cross_run_order=draw(st.sampled_from([True, True, True, False])),
        dag_id=run_key and f"dag of {run_key}",
        depends_on=depends_on,
        dependents=dependents,
        order_override=draw(st.sampled_from(["", "", "", "loaded by hand"])),
        **draw(st.sampled_from(PARTS)),
    )


@st.composite
def _state(draw, entry, sequence):
    stage = draw(st.sampled_from([Stage.WAITING] * 3 + [Stage.ADMITTED, Stage.LAUNCHED]))
    if stage is Stage.WAITING:
        return EntryState(sequence=sequence)
    is_launched = stage is Stage.LAUNCHED
    return EntryState(
        sequence=sequence,
        stage=stage,
        vcpus=entry.vcpus,
        market=draw(st.sampled_from(entry.markets)) if is_launched else "",
        is_ending=is_launched and draw(st.booleans()),
        admitted_at=NOW - 100,
        launched_at=NOW - draw(st.integers(0, 5_000)) if is_launched else None,
    )


@st.composite
def cases(draw, limits=all_limits, pools=POOLS):
    count = draw(st.integers(1, 7))
    entries = [draw(_entry(number)) for number in range(count)]
    order = draw(st.permutations(range(1, count + 1)))
    states = {
        entry.name: draw(_state(entry, sequence))
        for entry, sequence in zip(entries, order, strict=True)
    }
    names = st.sampled_from([entry.name for entry in entries])
    queue = Queue(
        entries=entries,
        states=states,
        pools={entry.name: draw(st.sampled_from(pools)) for entry in entries},
        blocked=draw(st.dictionaries(names, st.just("held"), max_size=2)),
        promoted=draw(st.dictionaries(names, st.integers(0, 3), max_size=2)),
    )
    return Case(queue, {pool: draw(limits) for pool in POOLS})


def put_together(case):
    """Let all entries be of one payer and date, in different runs."""
    same = {"payer": "acme", "business_date": "2026-03-01"}
    entries = [entry.model_copy(update=same) for entry in case.queue.entries]
    return replace(case, queue=replace(case.queue, entries=entries))


def count_taken(case, admitted):
    """Count by pool and limit what is out, in the plainest way."""
    taken = {pool: Counter() for pool in POOLS}
    for entry in case.queue.entries:
        state = case.queue.states[entry.name]
        if state.stage is Stage.WAITING and entry.name not in admitted:
            continue
        pool = case.queue.pools[entry.name]
        for name in names_of(entry, state):
            taken[pool][name] += entry.vcpus
    return taken


def names_of(entry, state):
    """Name the limits that an entry counts against, in the plainest way."""
    markets = (state.market,) if state.market else entry.markets
    own = [f"vCPU of payer {entry.payer}", f"vCPU of job {entry.job}", "vCPU"]
    return [*(f"{market} vCPU" for market in markets), *own]


def find_room(case, decision, head):
    """Find when the head has room, should all that is before it run as long as it may."""
    wait, ends = decision.waiting[head], []
    for entry in case.queue.entries:
        state, is_before = case.queue.states[entry.name], case.rank(entry.name) < case.rank(head)
        counts = wait.resource in names_of(entry, state) and case.shares_pool(head, entry.name)
        if counts and case.out(entry.name):
            latest = (state.launched_at or state.admitted_at) + entry.max_lifetime
            ends.append((NOW if state.is_ending else max(latest, NOW), entry.vcpus))
        elif counts and is_before and entry.name in decision.admitted:
            ends.append((NOW + entry.max_lifetime, entry.vcpus))
    most = case.own(head)[wait.resource] - case.entries[head].vcpus
    fits = (end for end, _ in ends if sum(vcpus for last, vcpus in ends if last > end) <= most)
    return min(fits)


near = st.sampled_from([-600, -600, -30, -30, -1, 0, 1, 30, 59, 60, 61, 600])
"""Seconds beside the last moment at which a filler may be gone."""
machines = st.lists(
    st.tuples(st.integers(1, 4), st.integers(900, 5_000), st.booleans()), min_size=1, max_size=4
)
"""vCPU, seconds until its longest lifetime is over, whether it shuts down."""
fillers = st.lists(st.tuples(st.integers(1, 2), st.integers(-9, 3), near), min_size=1, max_size=5)
"""vCPU, which machine's end it is measured by (below 0: the head's time), and how close it is."""


@st.composite
def gaps(draw):
    """Draw machines with known ends, a head that does not fit, and fillers close to its time."""
    out, small, free = draw(machines), draw(fillers), draw(st.integers(0, 4))
    limit = free + sum(vcpus for vcpus, *_ in out)
    head = min(free + draw(st.integers(1, 8)), limit)
    ends = sorted((0 if is_ending else left, vcpus) for vcpus, left, is_ending in out)
    room_at = min(
        end for end, _ in ends if sum(vcpus for last, vcpus in ends if last <= end) + free >= head
    )
    entries = [make_entry("head", vcpus=head, priority=900)]
    states = [EntryState(sequence=1)]
    for vcpus, left, is_ending in out:
        entries.append(make_entry(f"out{len(entries)}", vcpus=vcpus, max_runtime=6_000))
        began = NOW + left - entries[-1].max_lifetime
        facts = {"vcpus": vcpus, "market": "on-demand", "is_ending": is_ending}
        states.append(EntryState(sequence=9, stage=Stage.LAUNCHED, launched_at=began, **facts))
    for n, (vcpus, which, beside) in enumerate(small):
        at = room_at if which < 0 < room_at else out[which % len(out)][1]
        entries.append(_short_lived(f"small{n}", vcpus, at - 60 + beside))
        states.append(EntryState(sequence=10 + n))
    names = [entry.name for entry in entries]
    queue = Queue(entries, dict(zip(names, states, strict=True)), dict.fromkeys(names, POOLS[0]))
    return Case(queue, {POOLS[0]: Limits(vcpus=limit), POOLS[1]: Limits()})


def _short_lived(name, vcpus, lifetime):
    """Make an entry of exactly this lifetime, in seconds: 300 of them are every machine's."""
    runtime = max(lifetime - 300, 1)
    return make_entry(name, vcpus=vcpus, boot_timeout=0, stop_grace=0, max_runtime=runtime)
