from datetime import date

import member

EMPTY = dict.fromkeys(member.ROSTER)


def person(name, *coverage, **known):
    held = [{"plan": "", "start": start, "end": end} for start, end in coverage]
    return {**EMPTY, "member_id": name, "coverage": held, **known}


def test_what_a_later_file_leaves_out_is_kept_and_what_it_says_wins():
    before, _ = member.frames_of([person("A", sex="F", state="WA"), person("B", sex="M")])
    before = member.roster_as_of("2026-03-01", before, None)
    today, _ = member.frames_of([person("A", state="OR"), person("C", sex="F")])

    roster = member.roster_as_of("2026-03-02", today, before).select(
        "member_id", "sex", "state", "first_seen", "last_change"
    )

    assert roster.rows() == [
        ("A", "F", "OR", "2026-03-01", "2026-03-02"),
        ("B", "M", None, "2026-03-01", "2026-03-01"),
        ("C", "F", None, "2026-03-02", "2026-03-02"),
    ]


def test_a_segment_with_the_same_start_replaces_the_earlier_one():
    _, before = member.frames_of([person("A", ("2025-01-01", None), ("2023-01-01", "2023-12-31"))])
    _, today = member.frames_of([person("A", ("2025-01-01", "2026-03-31"))])

    coverage = member.coverage_as_of(today, member.coverage_as_of(before, None))

    assert coverage.select("start", "end").rows() == [
        (date(2023, 1, 1), date(2023, 12, 31)),
        (date(2025, 1, 1), date(2026, 3, 31)),
    ]


def test_of_two_segments_with_one_start_in_a_file_the_longest_counts():
    _, coverage = member.frames_of(
        [person("A", ("2025-01-01", None), ("2025-01-01", "2025-02-01"))]
    )
    assert coverage["end"].to_list() == [None]


def test_two_loops_of_one_member_are_one_row():
    roster, coverage = member.frames_of(
        [person("A", ("2025-01-01", None), sex="F"), person("A", ("2024-01-01", None), state="CA")]
    )
    assert roster.select("member_id", "sex", "state").rows() == [("A", "F", "CA")]
    assert coverage.height == 2
