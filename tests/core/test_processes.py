"""Who belongs to whom, and when zombies are told of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.processes import (
    MANY_ZOMBIES,
    ZOMBIE_SECONDS,
    ProcessStat,
    ZombieWatch,
    groups,
    lineage,
    parse_stat,
    some_of,
    zombies,
)

LINE = (
    b"77 (a (b) c) S 5 77 70 0 -1 4194560 1 2 3 4 100 20 7 8 20 0 1 0 9000 1000000 250 18446744073709551615 1 1 0 0\n"
)


def process(pid: int, parent: int = 1, session: int = 0, state: str = "S", name: str = "p", started: int = 1):
    return ProcessStat(pid, name, state, parent, session or pid, 1, 0, started, 1)


def table(*rows: ProcessStat) -> dict[int, ProcessStat]:
    return {row.pid: row for row in rows}


def test_a_line_is_understood_whatever_the_name_has_in_it():
    found = parse_stat(LINE)
    assert found == ProcessStat(77, "a (b) c", "S", 5, 70, 120, 15, 9000, 250)


def test_a_name_cannot_write_on_a_terminal():
    assert parse_stat(LINE.replace(b"a (b) c", b"x\x1b[31m\ny")).name == "x?[31m?y"


@given(st.binary(max_size=200))
def test_random_bytes_are_no_process(noise):
    found = parse_stat(noise)
    assert found is None or isinstance(found.pid, int)
    parse_stat(b"1 (" + noise + b") S 1 1 1 " + noise)


def test_children_belong_to_their_leader_in_whatever_session():
    rows = table(
        process(1),
        process(10),
        process(11, parent=10, session=10),
        process(12, parent=11, session=12),
        process(13, parent=1, session=10),
        process(20),
        process(21, parent=20, session=20),
        process(30),
    )
    found = groups(rows, [10, 20, 99])
    assert sorted(row.pid for row in found[10]) == [10, 11, 12, 13]
    assert sorted(row.pid for row in found[20]) == [20, 21]
    assert 99 not in found


@given(
    st.dictionaries(
        st.integers(1, 12), st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda t: t), max_size=12
    ),
    st.lists(st.integers(1, 12), max_size=3),
)
def test_a_table_that_turns_in_circles_ends(rows, leaders):
    made = {pid: process(pid, parent, session) for pid, (parent, session) in rows.items()}
    found = groups(made, leaders)
    assert set(found) == {leader for leader in leaders if leader in made}
    members = [row.pid for each in found.values() for row in each]
    assert len(members) == len(set(members)), "nobody counts twice"
    for pid in made:
        lineage(made, pid)


def test_a_lineage_names_the_session_and_all_parents():
    rows = table(process(1, parent=0), process(5), process(6, parent=5, session=50), process(7, parent=6, session=50))
    assert lineage(rows, 7) == (7, 50, 6, 5, 1)
    assert lineage(rows, 8) == ()


def neglect(parent: int, *pids: int):
    rows = [process(parent, name="nurse"), *(process(pid, parent, state="Z", name="child") for pid in pids)]
    return zombies(table(*rows))


def test_a_zombie_is_told_once_after_a_minute():
    watch, found = ZombieWatch(), neglect(5, 6)
    assert watch.look(found, 0.0) == []
    assert watch.look(found, ZOMBIE_SECONDS) == []
    (news,) = watch.look(found, ZOMBIE_SECONDS + 1)
    assert news.reason == (
        "child (pid 6) has been a zombie for longer than a minute: its parent nurse (pid 5) does not reap"
    )
    assert news.zombies[0].parent_name == "nurse"
    assert watch.look(found, 1000.0) == []


def test_those_who_are_reaped_in_time_are_never_told():
    watch = ZombieWatch()
    for second in range(0, 600, 30):
        assert watch.look(neglect(5, 100 + second), float(second)) == []


def test_a_parent_that_does_it_again_is_told_again():
    watch = ZombieWatch()
    watch.look(neglect(5, 6), 0.0)
    assert len(watch.look(neglect(5, 6), 61.0)) == 1
    assert watch.look([], 70.0) == []
    watch.look(neglect(5, 7), 80.0)
    assert len(watch.look(neglect(5, 7), 141.0)) == 1


def test_a_number_used_again_is_another_process():
    watch = ZombieWatch()
    rows = table(process(5), process(6, 5, state="Z", started=1))
    later = table(process(5), process(6, 5, state="Z", started=900))
    watch.look(zombies(rows), 0.0)
    assert watch.look(zombies(later), 61.0) == []


def test_many_are_told_at_once_and_not_again_before_they_were_few():
    watch, many = ZombieWatch(), neglect(5, *range(100, 101 + MANY_ZOMBIES))
    (news,) = watch.look(many, 0.0)
    assert news.together == MANY_ZOMBIES + 1
    assert "nurse (pid 5)" in news.reason
    assert watch.look(many, 1.0) == []
    assert watch.look(neglect(5, *range(100, 145)), 2.0) == []
    assert watch.look(many, 3.0) == [], "forty-five are still many"
    watch.look(neglect(5, 100), 4.0)
    assert len(watch.look(many, 5.0)) == 1


def test_one_parent_hides_no_other():
    found = [*neglect(5, *range(100, 200)), *neglect(6, 300)]
    assert {row.parent for row in some_of(found, 10, 3)} == {5, 6}


def test_threads_of_the_kernel_are_told_by_their_flag():
    own = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 5 0 0 20 0 1 0 3 0 0 18446744073709551615 0 0 0 0 0"
    assert parse_stat(own).kernel
    assert not parse_stat(LINE).kernel
