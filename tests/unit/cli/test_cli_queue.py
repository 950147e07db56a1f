"""``ephemeral-ec2 queue``: what it shows is what the controller would decide, from the bucket alone."""

import itertools
import json
import subprocess
import sys

import pytest

from airflow_ephemeral_ec2.cli import queue as queue_command
from airflow_ephemeral_ec2.hooks.queue_reader import QueueReader
from airflow_ephemeral_ec2.model.arrivals import merge_arrivals
from airflow_ephemeral_ec2.model.order import DatedKey
from airflow_ephemeral_ec2.model.queue import PACED, Lease, QueueState, Stage, Unavailable
from airflow_ephemeral_ec2.model.queue_orders import OrderTarget, QueueOrder
from airflow_ephemeral_ec2.model.spec import Limits
from tests.unit.model.queue_entries import make_entry


@pytest.fixture
def place(store, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    return ["--environment", "test", "--bucket", store.bucket, "--region", "us-east-1"]


@pytest.fixture
def ask(call, place):
    return lambda *words: call("queue", *words, *place)


@pytest.fixture
def enqueue(store):
    """Put entries into the queue, and the state of those that run into the queue state."""

    def enqueue(*entries, running=(), ending=(), **changes):
        for entry in entries:
            store.write_entry(entry)
        now = store.clock.now()
        state = merge_arrivals(QueueState(), entries)
        known = dict(state.entries)
        for entry in (*running, *ending):
            out = {
                "stage": Stage.LAUNCHED, "vcpus": entry.vcpus, "launched_at": now - 60,
                "is_ending": entry in ending, "instance_id": "i-1", "pool": "us-east-1/1234",
            }  # fmt: skip
            known[entry.name] = known[entry.name].model_copy(update=out)
        lease = Lease(holder="c", expires_at=now + 60)
        state = state.model_copy(update={"entries": known, "lease": lease} | changes)
        assert store.write_state(state, store.read_state()[1])
        return state

    return enqueue


@pytest.fixture
def door(store, enqueue):
    """The door of the issue: one first, one behind it, one backfill, one held."""
    now = store.clock.now()
    full = {"limits": Limits(vcpus=96), "max_runtime": 36_000}
    entries = [
        make_entry("1", "run", vcpus=92, requested_at=now - 900, **full),
        make_entry("2", "end", vcpus=2, requested_at=now - 900, **full),
        make_entry("3", "member", payer="zeta", priority=900, vcpus=8, requested_at=now - 200, **full),
        make_entry("4", "claims", vcpus=64, requested_at=now - 730, **full),
        make_entry("5", "claims", payer="pea", vcpus=2, business_date="2026-02-28",
                   is_backfill=True, requested_at=now - 70, **full),
        make_entry("6", "claims", business_date="2026-02-28", requested_at=now - 7_300, **full),
    ]  # fmt: skip
    enqueue(*entries, running=entries[:1], ending=entries[1:2])
    hold = OrderTarget(payer="acme", job="claims", business_date="2026-02-28")
    order = QueueOrder(action="hold", target=hold, by="ops", reason="bad file", at=now)
    assert store.write_order(order)
    return entries


def test_the_table_is_the_one_of_the_story(ask, door):
    lines = ask().out.splitlines()

    assert lines[0] == "us-east-1/1234  96 vCPU: 92 running, 2 terminating, 2 free"
    assert lines[1].split() == ["#", "payer/job", "date", "prio", "vCPU", "for", "why"]
    assert [" ".join(line.split()) for line in lines[2:5]] == [
        "1 zeta/member 03-01 900 8 3m needs 8, 2 free; reserved",
        "2 acme/claims 03-01 500 64 12m behind #1",
        "3 pea/claims 02-28 500 2 1m backfill, behind #2",
    ]
    assert " ".join(lines[5].split()).startswith('- acme/claims 02-28 held 2h by ops "bad file", ')


def test_looking_writes_nothing(ask, door, store):
    prefix = f"{store.environment}/"
    before = sorted(store.list_keys(prefix)), store.read_state()

    ask()
    ask("--explain", "acme", "claims")

    assert (sorted(store.list_keys(prefix)), store.read_state()) == before


def test_programs_get_the_decision_itself(ask, door):
    [pool] = ask("--json").json["pools"]

    assert (pool["running"], pool["terminating"], pool["free"]) == (92, 2, 2)
    assert [(row["place"], row["because"]) for row in pool["waiting"]] == [
        (1, "room"), (2, "behind"), (3, "behind"), (None, "blocked"),
    ]  # fmt: skip


def test_no_limit_is_called_so(ask, enqueue):
    enqueue(make_entry("1", "claims", vcpus=64))

    found = ask()

    assert "us-east-1/1234  no limit: 0 running, 0 terminating" in found.out
    assert "fits; launched at the controller's next pass" in found.out


def test_each_account_and_region_has_its_own_table(ask, enqueue):
    enqueue(make_entry("1", "claims"), make_entry("2", "claims", region="eu-west-1"))

    assert [pool["pool"] for pool in ask("--json").json["pools"]] == [
        "eu-west-1/1234",
        "us-east-1/1234",
    ]


def test_own_limits_are_shown_and_named(ask, enqueue):
    first, second = (make_entry(n, "claims", limits=Limits(payers={"acme": 3})) for n in "12")
    enqueue(first, second, running=[first])

    found = ask()

    assert "vCPU of payer acme 2 of 3" in found.out
    assert "needs 2, 1 vCPU of payer acme free; reserved" in found.out


def test_who_waits_for_a_success_is_not_in_line(ask, enqueue):
    enqueue(make_entry("1", "claims", depends_on=("member",)))

    found = ask()

    assert "waits for a success of acme/member 2026-03-01: nobody has asked for it" in found.out
    assert found.out.splitlines()[-1].startswith("-  acme/claims")


@pytest.mark.parametrize(
    ("body", "words"), [(None, "there is no queue state"), (b"{", "cannot be read")]
)
def test_a_state_that_is_lost_is_said_and_the_entries_are_shown(ask, store, s3, body, words):
    store.write_entry(make_entry("1", "claims"))
    if body is not None:
        s3.put_object(Bucket=store.bucket, Key="test/queue-state.json", Body=body)

    found = ask()

    assert found.exit_code == 0
    assert words in found.out
    assert "waits until EC2 has been asked what is out" in found.out
    assert "acme/claims" in found.out


def test_entries_that_are_not_ours_to_read_are_counted(ask, enqueue, store, s3):
    enqueue(make_entry("1", "claims"))
    s3.put_object(Bucket=store.bucket, Key=f"test/queue/{'f' * 40}-a1.json", Body=b"{}")

    assert "1 entries cannot be read" in ask().out


def test_flapping_tables_are_a_warning(ask, enqueue):
    waits = make_entry("1", "claims")
    state = merge_arrivals(QueueState(), [waits])
    flap = {"flapped_at": 1.0, "flapped_with": "v0"}
    tables = {name: table.model_copy(update=flap) for name, table in state.tables.items()}
    enqueue(waits, tables=tables)

    assert "two copies are in use: version v0 came again after v1" in ask().out


def test_that_nobody_decides_is_a_warning(ask, enqueue):
    enqueue(make_entry("1", "claims"), lease=None)

    assert "no controller acts now" in ask().out


def test_an_empty_queue_is_called_so(ask):
    assert ask().out == "the queue is empty\n"


def test_only_so_many_rows_are_shown(ask, enqueue):
    enqueue(*(make_entry(str(n), "claims") for n in range(5)))

    assert "and 3 more; --rows 0 shows all" in ask("--rows", 2).out
    assert "more" not in ask("--rows", 0).out


# -- orders ------------------------------------------------------------------------------------


def test_a_hold_is_seen_recorded_and_taken_back(ask, enqueue, store):
    enqueue(make_entry("1", "claims"))

    assert ask("hold", "acme", "claims", "--reason", "bad file", "--by", "ops").exit_code == 0
    shown = ask()
    assert "held" in shown.out
    assert 'by ops "bad file"' in shown.out
    assert ask("release", "acme", "claims", "--reason", "mended", "--by", "ops").exit_code == 0

    assert "held" not in ask().out
    kept = list(store.list_keys("test/history/acme/claims/all-dates/order-"))
    assert len(kept) == 2
    assert not QueueReader(store).read().orders


def test_an_order_names_who_gave_it_when_nobody_says(ask, enqueue, store, monkeypatch):
    monkeypatch.setenv("LOGNAME", "mia")
    enqueue(make_entry("1", "claims"))

    ask("hold", "acme", "claims", "--reason", "bad file")

    [order] = QueueReader(store).read().orders
    assert order.by.startswith("mia@")
    assert abs(order.at - store.clock.now()) < 10


def test_the_first_hold_stands(ask, enqueue):
    enqueue(make_entry("1", "claims"))
    ask("hold", "acme", "claims", "--reason", "one", "--by", "a")

    found = ask("hold", "acme", "claims", "--reason", "two", "--by", "b", "--json").json

    assert not found["changed"]
    assert 'held already: held by a "one"' in found["message"][0]


def test_what_runs_goes_on_when_it_is_held(ask, enqueue):
    runs = make_entry("1", "claims")
    enqueue(runs, running=[runs])

    assert "it goes on" in ask("hold", "acme", "claims", "--reason", "r").out


def test_a_hold_of_something_unknown_warns_and_works(ask, enqueue, store):
    enqueue(make_entry("1", "claims"))
    store.write_new("test/by-date/acme/claims/2026-03-01/0", b"{}")

    found = ask("hold", "acme", "clams", "--reason", "r")

    assert found.exit_code == 0
    assert "did you mean 'acme/claims'?" in found.err
    assert [o.target.job for o in QueueReader(store).read().orders] == ["clams"]


def test_release_of_one_date_says_what_still_holds(ask, enqueue):
    enqueue(make_entry("1", "claims"))
    ask("hold", "acme", "claims", "--reason", "all")
    ask("hold", "acme", "claims", "--reason", "one", "--date", "2026-03-01")

    found = ask("release", "acme", "claims", "--date", "2026-03-01", "--reason", "r")

    assert "release it without --date" in found.out
    assert "held" in ask().out


def test_a_promotion_lets_one_in_first_and_ends_with_its_date(ask, enqueue, store):
    room = {"limits": Limits(vcpus=2), "vcpus": 2}
    enqueue(make_entry("1", "member", priority=900, **room), make_entry("2", "claims", **room))

    found = ask("promote", "acme", "claims", "--reason", "the payer called", "--by", "ops")

    assert found.exit_code == 0
    [pool] = ask("--json").json["pools"]
    assert [(row["job"], row["place"]) for row in pool["waiting"]] == [("claims", 1), ("member", 2)]
    assert [o.target.business_date for o in QueueReader(store).read().orders] == ["2026-03-01"]


def test_each_attempt_is_promoted_for_itself(ask, enqueue, store):
    parts = [make_entry(n, "claims", array_index=int(n), array_size=3) for n in "012"]
    enqueue(*parts, make_entry("3", "claims", business_date="2026-02-28"), running=parts[:1])

    found = ask("promote", "acme", "claims", "--reason", "r", "--by", "ops", "--json").json

    orders = QueueReader(store).read().orders
    assert sorted(order.target.entry for order in orders) == ["1-a1", "2-a1", "3-a1"]
    assert [line.partition(":")[0] for line in found["message"]] == [
        "acme/claims 2026-02-28", "acme/claims 2026-03-01",
    ]  # fmt: skip
    again = ask("promote", "acme", "claims", "--reason", "s", "--by", "mia", "--json").json
    assert not again["changed"]
    assert 'promoted by ops "r"' in again["message"][0]
    released = ask("release", "acme", "claims", "--date", "2026-03-01", "--reason", "r", "--json")
    assert len(released.json["message"]) == 1
    assert [o.target.entry for o in QueueReader(store).read().orders] == ["3-a1"]


@pytest.fixture(params=[False, True], ids=["paced", "asked for"])
def admitted(request, enqueue, store):
    """One that has room and waits for its launch; whether EC2 was asked for its machine."""
    entry = make_entry("1", "claims", title="acme/claims 2026-03-01, attempt 1")
    state = enqueue(entry)
    out = {"stage": Stage.ADMITTED, "vcpus": 2, "admitted_at": 1.0, "is_asked": request.param}
    out["word"] = f"{PACED}, 900 before this one"
    known = {entry.name: state.entries[entry.name].model_copy(update=out)}
    state = state.model_copy(update={"entries": known})
    assert store.write_state(state, store.read_state()[1])
    return request.param


def test_who_waits_for_its_turn_at_ec2s_pace_says_so(ask, admitted):
    now = ask("--explain", "acme", "claims").out

    assert ("ago, launches are paced at EC2's rate\n" in now) is not admitted
    assert ("being launched" in now) is admitted
    table = ask().out
    if admitted:
        assert "nobody waits" in table
    else:
        assert "admitted, launches are paced at EC2's rate" in table


@pytest.mark.parametrize("is_asked", [False, True])
def test_the_table_shows_what_the_next_decision_makes_of_who_is_admitted(
    enqueue, store, ask, is_asked
):
    """Of whom EC2 was not asked, the room goes to who has come and is more important."""
    limits = Limits(vcpus=2)
    first, second = (
        make_entry("1", "claims", vcpus=2, limits=limits),
        make_entry("2", "member", priority=900, vcpus=2, limits=limits),
    )
    state = enqueue(first, second)
    out = {"stage": Stage.ADMITTED, "vcpus": 2, "admitted_at": 1.0, "is_asked": is_asked}
    changed = state.entries[first.name].model_copy(update=out | {"pool": "us-east-1/1234"})
    state = state.model_copy(update={"entries": state.entries | {first.name: changed}})
    assert store.write_state(state, store.read_state()[1])

    rows = [" ".join(line.split()) for line in ask().out.splitlines() if "acme/" in line]

    if is_asked:
        assert len(rows) == 1
        assert rows[0].startswith("1 acme/member")
        assert rows[0].endswith("needs 2, 0 free; reserved")
    else:
        assert rows[0].endswith("fits; launched at the controller's next pass")
        assert rows[1].startswith("2 acme/claims")
        assert "reserved" in rows[1]


def test_who_waits_for_its_launch_can_be_promoted(ask, admitted, store):
    found = ask("promote", "acme", "claims", "--reason", "r")

    assert found.exit_code == 0
    assert "attempt 1 is admitted already; it is launched before others" in found.out
    assert len(QueueReader(store).read().orders) == 1


def test_a_hold_says_of_whom_it_comes_too_late(ask, admitted):
    """Of whom EC2 was not asked, the next decision makes it wait again."""
    assert ("it goes on" in ask("hold", "acme", "claims", "--reason", "r").out) is admitted


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["promote", "acme", "clams"], "Did you mean 'acme/claims'?"),
        (["promote", "acme", "claims", "--date", "2026-01-01"], "it is for 2026-03-01"),
        (["promote", "acme", "runs"], "launched already"),
        (["release", "acme", "claims"], "neither held nor promoted"),
        (["hold", "ac me", "claims"], "PAYER: 'ac me': use letters"),
        (["hold", "acme", "claims", "--date", "1.3.2026"], "write it like 2026-03-01"),
        (["hold", "acme", "claims", "--by", "a\x1b[2J"], "--by"),
    ],
)
def test_a_wrong_order_is_refused_with_what_is_there(ask, enqueue, store, words, advice):
    runs = make_entry("2", "runs", title="acme/runs 2026-03-01, attempt 1")
    enqueue(make_entry("1", "claims"), runs, running=[runs])

    found = ask(*words, "--reason", "r")

    assert found.exit_code == 2
    assert advice in found.err
    assert not QueueReader(store).read().orders


def test_options_before_the_action_count_too(call, place, enqueue):
    enqueue(make_entry("1", "claims"))

    found = call("queue", "--json", *place, "hold", "acme", "claims", "--reason", "r")

    assert found.json["order"]["action"] == "hold"


@pytest.mark.parametrize("words", [["--date", "2026-03-01"], ["--watch", "--explain", "a", "b"]])
def test_options_that_make_no_sense_together_are_refused(ask, words):
    assert ask(*words).exit_code == 2


# -- explain -----------------------------------------------------------------------------------


def test_explain_names_who_is_ahead_and_why(ask, door):
    found = ask("--explain", "pea", "claims")

    assert "#3 in line" in found.out
    assert "#1 zeta/member: no backfill; needs 8, 2 free; reserved" in found.out
    assert "vCPU: 94 of 96 taken" in found.out
    assert "version v1 is in force" in found.out


def test_explain_says_until_when_the_first_waits_at_most(ask, door):
    assert "room is reserved, free in at most" in ask("--explain", "zeta", "member").out


def test_explain_knows_dependencies_refusals_holds_and_attempts(
    ask, store, enqueue, make_record, end
):
    record = make_record(depends_on=["member"], jobkey="c" * 40, aws_conn_id="aws_default")
    store.write_launch(record)
    known = {
        record.offering(0): Unavailable(until=store.clock.now() + 99, code="InsufficientCapacity"),
    }
    enqueue(make_entry("c" * 40, "claims", depends_on=("member",)), unavailable=known)
    end("member", jobkey="d" * 40)
    ask("hold", "acme", "claims", "--reason", "bad file", "--by", "ops")

    found = ask("--explain", "acme", "claims", "--date", "2026-03-01")

    assert "after     acme/member 2026-03-01: has succeeded" in found.out
    assert (
        "unavailable: us-east-1/m7i.large/subnet-0a1/on-demand (InsufficientCapacity)" in found.out
    )
    assert 'in force: held by ops "bad file"' in found.out


def test_explain_of_what_has_ended_names_its_attempts(ask, end):
    end("member", jobkey="d" * 40)

    found = ask("--explain", "acme", "member")

    assert "no attempt is open" in found.out
    assert "acme/member 2026-03-01, attempt 1: succeeded" in found.out


def test_explain_shows_a_success_that_was_stale_from_the_start(ask, end, store):
    record = end("claims", jobkey="d" * 40)
    key = DatedKey("acme", "claims", record.business_date)
    store.mark_stale(key, "d" * 40 + "-a1", by="acme/member 2026-03-01")

    found = ask("--explain", "acme", "claims")

    assert "attempt 1: succeeded (stale: what it depends on has run again)" in found.out


def test_explain_of_something_unknown_names_the_nearest(ask, enqueue):
    enqueue(make_entry("1", "claims"))

    found = ask("--explain", "acme", "clams")

    assert found.exit_code == 2
    assert "Did you mean 'acme/claims'?" in found.err


def test_explain_is_for_programs_too(ask, door):
    [entry] = ask("--explain", "pea", "claims", "--json").json["entries"]

    rank = "backfill: after all that is none, priority 500, business date 2026-02-28, arrival 6"
    assert entry["rank"] == [rank]


# -- watch -------------------------------------------------------------------------------------


@pytest.fixture
def three_looks(monkeypatch):
    looks = itertools.count(1)

    def sleep(_seconds):
        if next(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(queue_command.time, "sleep", sleep)


def test_watching_ends_with_ctrl_c_and_repeats_nothing_into_a_file(ask, door, three_looks):
    found = ask("--watch")

    assert found.exit_code == 130
    assert found.out.count("zeta/member") == 1


def test_watching_gives_programs_a_document_a_line(ask, door, three_looks):
    lines = ask("--watch", "--json").out.splitlines()

    assert [json.loads(line)["pools"][0]["free"] for line in lines] == [2, 2, 2]


def test_the_command_needs_no_airflow():
    code = (
        "import sys, airflow_ephemeral_ec2.cli.queue; "
        "sys.exit(any(name.split('.')[0] == 'airflow' for name in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
