"""What the files of control groups say, damaged ones included."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ndactors.core import cgroups

ID = "3f" * 32
V1 = f"9:name=systemd:/docker/{ID}\n4:memory:/docker/{ID}\n2:cpu,cpuacct:/docker/{ID}\n0::/system.slice/x.service\n"


def test_each_controller_has_its_path():
    found = cgroups.membership(V1.encode())
    assert found["memory"] == found["cpu"] == found["cpuacct"] == found["name=systemd"] == f"/docker/{ID}"
    assert found[cgroups.V2] == "/system.slice/x.service"
    assert cgroups.membership(b"0::/a:b\n") == {"": "/a:b"}


def test_mounts_are_told_by_controller_with_what_is_escaped():
    text = (
        b"41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        b"33 31 0:30 / /sys/fs/my\\040groups rw shared:5 - cgroup cgroup rw,cpu,cpuacct\n"
        b"27 1 254:0 / / rw - ext4 /dev/vda rw,memory\n"
    )
    found = cgroups.mounts(text)
    assert found["cpuacct"] == (("/", "/sys/fs/my groups"),)
    assert found[cgroups.V2] == (("/", "/sys/fs/cgroup/unified"),)
    assert "memory" not in found


def test_on_a_hybrid_system_each_controller_is_where_it_is():
    groups, mounted = {"memory": "/a", "": "/a"}, {"memory": (("/", "/m"),), "": (("/", "/u"),)}
    assert cgroups.version_of("memory", groups, mounted) == "memory"
    assert cgroups.version_of("pids", groups, mounted) == cgroups.V2


def test_a_group_is_found_under_the_part_of_the_tree_that_is_mounted():
    path = f"/system.slice/docker-{ID}.scope"
    assert cgroups.folders(path, (("/", "/g"),), ID)[0] == f"/g/system.slice/docker-{ID}.scope"
    assert cgroups.folders(path, (("/system.slice", "/g"),), ID)[0] == f"/g/docker-{ID}.scope"


def test_groups_inside_a_container_are_not_the_container():
    found = cgroups.folders(f"/docker/{ID}/init.scope", (("/", "/g"),), ID)
    assert found[0] == f"/g/docker/{ID}"


def test_the_group_of_somebody_else_is_not_looked_at():
    assert cgroups.folders(f"/docker/{'ab' * 32}", (("/", "/g"),), ID) == []
    assert cgroups.folders(f"/docker/{ID}", (("/", "/g"),), "") == []


def test_a_path_leads_out_of_no_mount():
    found = cgroups.folders(f"/../../docker-{ID}.scope", (("/", "/g"),), ID)
    assert found
    assert not any(".." in folder for folder in found)


def test_the_working_set_is_what_docker_stats_shows_and_never_negative():
    stat = b"inactive_file 30\nactive_file 5\n"
    assert cgroups.working_set(b"100\n", stat, b"inactive_file") == 70
    assert cgroups.working_set(b"10\n", stat, b"inactive_file") == 0
    assert cgroups.working_set(b"100\n", b"", b"inactive_file") is None
    assert cgroups.working_set(None, stat, b"inactive_file") is None


def test_no_limit_is_none_in_both_versions():
    assert cgroups.limit_of(cgroups.number(b"9223372036854771712\n"), 8 << 30) is None
    assert cgroups.limit_of(cgroups.number(b"9223372036854771712\n"), 0) is None
    assert cgroups.limit_of(cgroups.number(b"max\n"), 8 << 30) is None
    assert cgroups.limit_of(cgroups.number(b"268435456\n"), 8 << 30) == 256 << 20
    assert cgroups.limit_of(16 << 30, 8 << 30) is None


def test_a_key_is_a_whole_word_at_the_beginning_of_a_line():
    data = b"total_inactive_file 1\ninactive_file_x 2\ninactive_file 3"
    assert cgroups.keyed(data, b"inactive_file") == 3
    assert cgroups.keyed(data, b"total_inactive_file") == 1
    assert cgroups.keyed(data, b"file") is None
    assert cgroups.keyed(b"oom_kill x\n", b"oom_kill") is None
    assert cgroups.keyed(b"oom_kill -1\n", b"oom_kill") is None
    assert cgroups.keyed(b"oom_kill 1 2\n", b"oom_kill") is None


HEAD = b"Inter-| Receive | Transmit\n face |bytes packets|bytes packets\n"


def test_all_interfaces_but_loopback_count():
    rows = b"    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0:100 1 0 0 0 0 0 0 50 1 0 0 0 0 0 0\n"
    assert cgroups.network(HEAD + rows + b" eth1: 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n") == {
        "eth0": (100, 50),
        "eth1": (1, 2),
    }
    assert cgroups.network(HEAD) == {}
    assert cgroups.network(HEAD + b" eth0: 1 2\n") is None
    assert cgroups.network(HEAD + b" eth0: a 1 0 0 0 0 0 0 50 1 0 0 0 0 0 0\n") is None
    assert cgroups.network(None) is None


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"oom_kill ", b"0::/docker/", b"1 2 3 / / rw - cgroup2 a b", HEAD])
)
def test_random_bytes_crash_nothing(noise, front):
    data = front + noise
    for path in cgroups.membership(data).values():
        cgroups.folders(path, (("/", "/g"),), ID)
    cgroups.mounts(data)
    for found in (cgroups.number(data), cgroups.keyed(data, b"oom_kill"), cgroups.working_set(data, data, b"oom_kill")):
        assert found is None or 0 <= found <= cgroups.LARGEST
    for seconds in (cgroups.cpu_v1(data), cgroups.cpu_v2(data)):
        assert seconds is None or seconds >= 0
    assert all(min(row) >= 0 for row in (cgroups.network(data) or {}).values())


@given(st.integers(0, cgroups.LARGEST), st.binary(max_size=40).filter(lambda b: b"\n" not in b))
def test_a_figure_is_found_among_any_other_lines(value, noise):
    data = noise + b"\nusage_usec %d\n" % value + noise
    assert cgroups.keyed(data, b"usage_usec") == value
