"""Building, loading and pruning on the real Engine, by BuildKit and by the classic builder."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import images as ground
import pytest
from dockerd import wait_until
from msgspec.structs import replace

from ndactors.adapters.docker_images import DockerImages
from ndactors.core.images import IMAGE_APP, IMAGE_DAEMON, BuildRequest, image_name, repository
from ndactors.errors import BuildFailed, BuildTimeout, Invalid

SECRET = "correct-horse-battery"


@pytest.fixture(scope="module")
def base(engine_address: str) -> str:
    return ground.busybox(engine_address)


class Ground:
    """A project of its own on the Engine, whose images go at the end."""

    def __init__(self, address: str, folder: Path, base: str, buildkit: bool) -> None:
        self.api = docker.APIClient(base_url=address, timeout=60)
        self.project = f"t{secrets.token_hex(4)}"
        self.folder, self.base = folder, base
        self.daemon = secrets.token_hex(8)
        self.buildkit = buildkit
        self.images = DockerImages(self.daemon, address, lambda call: call(), buildkit=buildkit)
        self.said: list[str] = []

    def context(self, dockerfile: str, **files: str) -> Path:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "Dockerfile").write_text(dockerfile.replace("BASE", self.base))
        for name, content in files.items():
            (self.folder / name.replace("__", ".")).write_text(content)
        return self.folder

    def request(self, **more) -> BuildRequest:
        more.setdefault("tree", secrets.token_hex(32))
        return BuildRequest(project=self.project, app="shop", context=str(self.folder), **{"timeout": 120, **more})

    def build(self, dockerfile: str, **more):
        self.context(dockerfile)
        return self.images.build(self.request(**more), self.said.append)

    def output(self, image: str, *command: str) -> str:
        made = self.api.create_container(image, list(command) or None)["Id"]
        try:
            self.api.start(made)
            self.api.wait(made)
            return self.api.logs(made).decode()
        finally:
            self.api.remove_container(made, force=True)

    def names(self) -> set[str]:
        return {tag for row in self.api.images(name=repository(self.project, "shop")) for tag in row["RepoTags"]}

    def close(self) -> None:
        for row in self.api.images():
            for tag in row["RepoTags"] or ():
                if self.project in tag:
                    with contextlib.suppress(docker.errors.APIError):
                        self.api.remove_image(tag, force=True)
        self.api.close()


@pytest.fixture(params=["buildkit", "classic"])
def on(request, engine_address: str, base: str, tmp_path: Path) -> Iterator[Ground]:
    made = Ground(engine_address, tmp_path / "context", base, request.param == "buildkit")
    yield made
    made.close()


@pytest.fixture
def modern(engine_address: str, base: str, tmp_path: Path) -> Iterator[Ground]:
    made = Ground(engine_address, tmp_path / "context", base, True)
    yield made
    made.close()


def test_a_build_carries_our_labels_and_the_second_one_builds_nothing(on):
    content = f"hello {secrets.token_hex(8)}"
    on.context("FROM BASE\nCOPY . /src\nRUN cat /src/a\n", a=f"{content}\n")
    request = on.request(labels={"extra": "yes", IMAGE_APP: "another"})
    made = on.images.build(request, on.said.append)
    assert made.name == image_name(request) and not made.cached
    labels = on.api.inspect_image(made.id)["Config"]["Labels"]
    assert (labels[IMAGE_DAEMON], labels[IMAGE_APP], labels["extra"]) == (on.daemon, "shop", "yes")
    assert any(content in line for line in on.said)

    on.said.clear()
    again = on.images.build(request, on.said.append)
    assert (again.id, again.cached) == (made.id, True)
    assert on.said == [f"nothing to build: the same was built before ({made.name})"]


def test_one_of_another_daemon_with_that_name_is_not_taken_for_ours(on, engine_address):
    request = on.request()
    on.context("FROM BASE\n")
    on.images.build(request, on.said.append)
    stranger = DockerImages("another", engine_address, lambda call: call(), buildkit=on.buildkit)
    assert not stranger.build(request, on.said.append).cached


def test_built_afresh_the_old_one_stays_for_a_way_back(on):
    request = on.request()
    on.context(f"FROM BASE\nRUN echo {secrets.token_hex(8)} && cat /proc/uptime > /t\n")
    first = on.images.build(request, on.said.append)
    second = on.images.build(replace(request, fresh=True), on.said.append)
    assert second.id != first.id and not second.cached
    assert on.images.find(first.id) is not None
    assert len(on.names()) == 2
    assert on.images.prune(on.project, "shop", keep=[second.id]) == [f"{first.name}-{first.id[7:19]}"]
    assert on.images.find(first.id) is None


def test_arguments_target_and_platform(on):
    dockerfile = (
        'FROM BASE AS one\nARG WHO\nRUN echo -n one $WHO > /who\nCMD ["cat", "/who"]\n'
        'FROM BASE AS two\nRUN echo -n two > /who\nCMD ["cat", "/who"]\n'
    )
    made = on.build(dockerfile, args={"WHO": "alice"}, target="one", platform="linux/amd64")
    assert on.output(made.id) == "one alice"
    assert on.output(on.build(dockerfile).id) == "two"


def test_what_is_ignored_is_not_sent(on):
    on.context(
        'FROM BASE\nCOPY . /src\nCMD ["ls", "-A", "/src"]\n',
        __dockerignore="*.log\nDockerfile\n.dockerignore\nsecret\n!keep.log\n",
        a="1",
        **{"b__log": "2", "keep__log": "3", "secret": "4"},
    )
    (on.folder / "link").symlink_to("/etc/passwd")
    made = on.images.build(on.request(), on.said.append)
    assert on.output(made.id).split() == ["a", "keep.log", "link"]


def test_a_dockerfile_elsewhere_in_the_context(on):
    on.context("FROM BASE\nRUN false\n", a="from a")
    (on.folder / "deploy").mkdir()
    (on.folder / "deploy" / "shop.Dockerfile").write_text(f'FROM {on.base}\nCOPY a /a\nCMD ["cat", "/a"]\n')
    (on.folder / "deploy" / "shop.Dockerfile.dockerignore").write_text("deploy\n")
    made = on.images.build(on.request(dockerfile="deploy/shop.Dockerfile"), on.said.append)
    assert on.output(made.id) == "from a"


@pytest.mark.parametrize("dockerfile", ["../Dockerfile", "/etc/passwd", "missing"])
def test_a_dockerfile_that_is_not_in_the_context(on, dockerfile):
    on.context("FROM BASE\n")
    with pytest.raises(BuildFailed, match=r"there is no .* in the build context"):
        on.images.build(on.request(dockerfile=dockerfile), on.said.append)


def test_links_out_of_the_context_bring_nothing_in(on, tmp_path):
    (tmp_path / "outside").write_text("private")
    on.context('FROM BASE\nCOPY link /got\nCMD ["cat", "/got"]\n')
    (on.folder / "link").symlink_to(tmp_path / "outside")
    try:
        made = on.images.build(on.request(), on.said.append)
    except BuildFailed:
        return
    assert "private" not in on.output(made.id)


def test_a_large_context_arrives_whole(on):
    on.context("FROM BASE\nCOPY . /src\nRUN cat /src/* | wc -c && ls /src | wc -l\n")
    for number in range(1500):
        (on.folder / f"f{number}").write_bytes(bytes([number % 256]) * (number % 700))
    (on.folder / "large").write_bytes(os.urandom(3_000_000))
    size = sum(path.stat().st_size for path in on.folder.iterdir())
    on.images.build(on.request(), on.said.append)
    said = " ".join(on.said)
    assert f" {size}" in f" {said.replace('#', ' ')}" and "1502" in said


def test_a_failure_tells_the_step_the_code_and_the_last_lines(on):
    with pytest.raises(BuildFailed) as caught:
        on.build(
            r"FROM BASE"
            "\n"
            r"RUN for i in $(seq 1 40); do printf '\033[31mline %s\033[0m\n' $i; done; echo oops; exit 3"
            "\n"
        )
    words = str(caught.value)
    assert "RUN for i in" in words.splitlines()[0] and words.splitlines()[0].endswith("ended with exit code 3")
    lines = words.splitlines()[1:]
    assert {"oops", "line 40"} <= set(lines) and "line 1" not in lines and len(lines) <= 20
    assert "\x1b" not in words and not any("\x1b" in line for line in on.said)
    assert on.names() == set()


def test_a_missing_base_is_named(on):
    with pytest.raises(BuildFailed, match=r"no base image nosuch/thing:9 here") as caught:
        on.build("FROM nosuch/thing:9\n")
    assert len(str(caught.value).splitlines()) < 5


def test_a_broken_dockerfile_and_an_unknown_target(on):
    with pytest.raises(BuildFailed, match=r"(?i)unknown instruction"):
        on.build("FROM BASE\nRUUN true\n")
    with pytest.raises(BuildFailed, match="nowhere"):
        on.build("FROM BASE\n", target="nowhere")


def test_the_time_limit_ends_the_build_and_its_containers(on):
    mark = f"{3600 + secrets.randbelow(10**6)}"
    begun = time.monotonic()
    with pytest.raises(BuildTimeout, match="longer than it may"):
        on.build(f"FROM BASE\nRUN sleep {mark}\n", timeout=3)
    assert time.monotonic() - begun < 15
    wait_until(lambda: not _processes(mark), 15, "the end of the step")
    wait_until(lambda: not _containers_of(on, mark), 15, "the end of the step's container")


def test_an_exception_in_the_caller_ends_the_build(on):
    mark = f"{3600 + secrets.randbelow(10**6)}"

    class Stop(Exception): ...

    def say(line: str) -> None:
        if "running now" in line and "echo" not in line:
            raise Stop

    on.context(f"FROM BASE\nRUN echo 'running' 'now'; sleep {mark}\n")
    with pytest.raises(Stop):
        on.images.build(on.request(), say)
    wait_until(lambda: not _processes(mark), 15, "the end of the step")
    wait_until(lambda: not _containers_of(on, mark), 15, "the end of the step's container")
    assert on.names() == set()
    on.build("FROM BASE\n")  # and the next build does not wait for it


def test_a_busy_build_takes_no_more_than_its_share(on):
    """Four loops, half a CPU: measured as the processor time that the loops really got."""
    seconds = 4.0
    mark = secrets.token_hex(6)
    loops = " ".join(f"sh -c 'while :; do :; done' {mark} &" for _ in range(4))
    used: list[float] = []

    def measure() -> None:
        wait_until(lambda: len(_processes(mark)) == 4, 20, "four loops")
        time.sleep(0.5)  # limits that come by a control group need a moment to bite
        before, begun = _processor_time(mark), time.monotonic()
        time.sleep(seconds - 1.5)
        used.append((_processor_time(mark) - before) / (time.monotonic() - begun))

    watcher = threading.Thread(target=measure)
    watcher.start()
    on.build(f"FROM BASE\nRUN {loops} sleep {seconds + 1}\n", cpus=0.5)
    watcher.join()
    assert 0.2 < used[0] < 0.65


def test_without_limits_of_its_own_a_build_takes_half_of_the_machine(on):
    on.build("FROM BASE\nRUN true\n")
    facts = on.api.info()
    expected = f"building with {facts['NCPU'] / 2:g} CPUs and {facts['MemTotal'] // 2 // 2**20} MiB at most"
    assert expected in on.said
    assert not any("no limits" in line for line in on.said)


def test_a_build_that_wants_too_much_memory_is_ended(on):
    with pytest.raises(BuildFailed, match=r"perhaps it wanted more than the 64 MiB"):
        on.build("FROM BASE\nRUN exec tail /dev/zero\n", memory=64 * 2**20, timeout=60)
    on.build("FROM BASE\nRUN true\n", memory=64 * 2**20)


def test_limits_are_lifted_afterwards(modern):
    modern.build("FROM BASE\nRUN true\n", cpus=0.5, memory=64 * 2**20)
    shared = Path("/sys/fs/cgroup/cpu/docker/buildkit/cpu.cfs_quota_us")
    if shared.exists():
        assert shared.read_text().strip() == "-1"


def test_secrets_are_seen_by_the_step_and_nowhere_else(modern):
    dockerfile = (
        "FROM BASE\n"
        f"RUN echo {secrets.token_hex(8)}\n"
        "RUN --mount=type=secret,id=TOKEN cat /run/secrets/TOKEN; printf 'x\\033[1m%s\\n' $(cat /run/secrets/TOKEN); "
        "wc -c < /run/secrets/TOKEN > /size\n"
        'CMD ["cat", "/size"]\n'
    )
    made = modern.build(dockerfile, secrets={"TOKEN": SECRET})
    assert modern.output(made.id).strip() == str(len(SECRET))
    assert "********" in "\n".join(modern.said)
    assert SECRET not in "\n".join(modern.said)
    assert SECRET not in json.dumps(modern.api.history(made.id)) + json.dumps(modern.api.inspect_image(made.id))
    assert SECRET.encode() not in b"".join(modern.api.get_image(made.id))
    assert not _processes(SECRET)


def test_a_failing_step_does_not_tell_the_secret(modern):
    with pytest.raises(BuildFailed) as caught:
        modern.build(
            "FROM BASE\nRUN --mount=type=secret,id=TOKEN cat /run/secrets/TOKEN; echo; exit 1\n",
            secrets={"TOKEN": SECRET},
        )
    assert SECRET not in str(caught.value) and "********" in str(caught.value)


def test_the_classic_builder_refuses_secrets(engine_address, base, tmp_path):
    made = Ground(engine_address, tmp_path / "context", base, False)
    try:
        with pytest.raises(BuildFailed, match=r"only the classic builder.*needs BuildKit"):
            made.build("FROM BASE\nRUN true\n", secrets={"TOKEN": SECRET})
    finally:
        made.close()


def test_two_builds_at_once_run_one_after_the_other(modern):
    modern.context(f"FROM BASE\nRUN echo {secrets.token_hex(8)}; sleep 1\n")
    said: list[list[str]] = [[], []]
    threads = [threading.Thread(target=modern.images.build, args=(modern.request(), lines.append)) for lines in said]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(any("waits for its end" in line for line in lines) for lines in said) == 1
    assert len(modern.names()) == 2


# -- images built elsewhere ------------------------------------------------------------------------


@pytest.fixture
def archive(modern, tmp_path) -> Callable[..., Path]:
    """``docker save`` of a small image, under a name; the image itself is gone then."""

    def save(name: str, content: str = "loaded", change: Callable[[dict], dict] | None = None) -> Path:
        modern.context(f'FROM BASE\nRUN echo {content} > /what\nCMD ["cat", "/what"]\n')
        tag = f"{modern.project}/{name}"
        said = b"".join(modern.api.build(path=str(modern.folder), tag=tag, rm=True))
        assert b"Successfully tagged" in said
        path = tmp_path / f"{secrets.token_hex(4)}.tar"
        path.write_bytes(b"".join(modern.api.get_image(tag)))
        modern.api.remove_image(tag, force=True)
        return path

    return save


def test_a_loaded_image_has_our_name_and_no_other(modern, archive):
    path = archive("local:latest")
    request = modern.request(tree="1" * 64)
    made = modern.images.load(path, request, modern.said.append)
    assert made.name == image_name(request) and not made.cached
    assert modern.output(made.id) == "loaded\n"
    assert modern.api.inspect_image(made.id)["RepoTags"] == [made.name]
    again = modern.images.load(path, request, modern.said.append)
    assert (again.id, again.cached) == (made.id, True)


def test_an_archive_cannot_take_the_name_of_another_image(modern, archive):
    victim = modern.build("FROM BASE\nRUN echo victim\n")
    modern.api.tag(victim.id, f"{modern.project}/other", "1")
    path = archive("other:1", "evil")
    modern.api.tag(victim.id, f"{modern.project}/other", "1")
    made = modern.images.load(path, modern.request(), modern.said.append)
    assert modern.images.find(f"{modern.project}/other:1").id == victim.id
    assert modern.images.find(victim.name).id == victim.id
    assert made.id != victim.id


def test_archives_that_are_none(modern, archive, tmp_path):
    good = archive("x:1")
    cut = tmp_path / "cut.tar"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    noise = tmp_path / "noise.tar"
    noise.write_bytes(os.urandom(5000))
    empty = tmp_path / "empty.tar"
    empty.write_bytes(b"")
    for path in (cut, noise, empty):
        with pytest.raises(Invalid):
            modern.images.load(path, modern.request(), modern.said.append)
    assert modern.names() == set()


def test_an_archive_of_two_images_is_refused(modern, archive, tmp_path):
    first, second = archive("x:1", "one"), archive("x:2", "two")
    both = tmp_path / "both.tar"
    lists: list[dict] = []
    with tarfile.open(both, "w") as out:
        for path in (first, second):
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.name == "manifest.json":
                        lists += json.loads(tar.extractfile(member).read())
                    elif member.name != "repositories" and member.name not in out.getnames():
                        out.addfile(member, tar.extractfile(member) if member.isreg() else None)
        data = json.dumps(lists).encode()
        head = tarfile.TarInfo("manifest.json")
        head.size = len(data)
        out.addfile(head, io.BytesIO(data))
    with pytest.raises(Invalid, match="must hold one image, and holds 2"):
        modern.images.load(both, modern.request(), modern.said.append)


# -- what goes, and what never does ----------------------------------------------------------------


def test_prune_removes_ours_and_nothing_else(on):
    old = on.build("FROM BASE\nRUN echo old\n")
    kept = on.build("FROM BASE\nRUN echo kept\n")
    used = on.build("FROM BASE\nRUN echo used\n")
    tagged = on.build("FROM BASE\nRUN echo tagged\n")
    on.api.tag(tagged.id, f"{on.project}-mine", "1")
    sibling = on.images.build(BuildRequest(project=on.project, app="shop-two", context=str(on.folder)), on.said.append)
    on.context("FROM BASE\nRUN echo foreign\n")
    list(on.api.build(path=str(on.folder), tag=f"{repository(on.project, 'shop')}:theirs", labels={IMAGE_DAEMON: "x"}))
    dangling = next(
        json.loads(piece)["aux"]["ID"]
        for piece in on.api.build(fileobj=io.BytesIO(f"FROM {on.base}\nRUN echo {on.project}\n".encode()), rm=True)
        if b'"aux"' in piece
    )
    container = on.api.create_container(used.id, ["true"])["Id"]
    try:
        before = {row["Id"] for row in on.api.images(all=True)}
        assert on.images.prune(on.project, "shop", keep=[kept.id]) == [old.name]
        assert before - {row["Id"] for row in on.api.images(all=True)} == {old.id}
        for image in (kept, used, tagged, sibling):
            assert on.images.find(image.name).id == image.id
        assert on.images.find(dangling) is not None
        assert on.images.prune(on.project, "shop", keep=[kept.id]) == []
    finally:
        on.api.remove_container(container, force=True)
        on.api.remove_image(dangling, force=True)
    assert set(on.images.prune(on.project, "shop", keep=[])) == {kept.name, used.name}


def test_find(modern):
    assert modern.images.find("nosuch/image:1") is None
    assert modern.images.find("sha256:" + "0" * 64) is None
    assert modern.images.find("NOT A NAME") is None
    found = modern.images.find(modern.base)
    assert found.name == modern.base and found.size > 0
    assert modern.images.find(found.id).name == modern.base


def _processes(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if mark.encode() in words:
                    found.append(int(entry.name))
    return found


def _processor_time(mark: str) -> float:
    total = 0
    for pid in _processes(mark):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def _containers_of(on: Ground, mark: str) -> list[str]:
    return [row["Id"] for row in on.api.containers(all=True) if mark in row["Command"]]
