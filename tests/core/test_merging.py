"""What was changed live stays unless the file changed that very key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ndactors.core.merging import merged, rolled_back
from ndactors.core.model import App, Build, Process, Scale


def app(image="shop:1", env=None, replicas=1, **more) -> App:
    process = Process(name="web", env=env or {}, replicas=replicas)
    return App(name="shop", image=image, processes={"web": process}, **more)


def test_live_image_scale_and_env_stay():
    base = app(env={"A": "1"})
    live = replace(app("shop:9", env={"A": "live", "B": "live"}, replicas=4), image_id="sha256:9", nonce=2)
    new = app(env={"A": "1", "C": "file"}, domains=("x.example",))
    result = merged(base, live, new)
    assert (result.image, result.image_id, result.nonce, result.domains) == ("shop:9", "sha256:9", 2, ("x.example",))
    assert result.processes["web"].replicas == 4
    assert result.processes["web"].env == {"A": "live", "B": "live", "C": "file"}


def test_the_file_wins_where_it_changed():
    base = app(env={"A": "1", "B": "1"})
    live = replace(app("shop:9", env={"A": "live", "B": "live"}, replicas=4), image_id="sha256:9")
    result = merged(base, live, app("shop:2", env={"A": "2"}, replicas=2))
    assert (result.image, result.image_id, result.processes["web"].replicas) == ("shop:2", None, 2)
    assert result.processes["web"].env == {"A": "2"}, "B was taken out of the file"


def test_image_and_build_are_one_key():
    base = App(name="shop", build=Build(context="/a"), processes={"web": Process(name="web")})
    live = replace(base, build=None, image="shop:9", image_id="sha256:9")
    assert merged(base, live, base).image == "shop:9"
    new = replace(base, build=Build(context="/b"))
    result = merged(base, live, new)
    assert (result.image, result.build, result.image_id) == (None, Build(context="/b"), None)


def test_processes_come_and_go():
    base = app()
    live = replace(base, processes={**base.processes, "worker": Process(name="worker")})
    assert "worker" in merged(base, live, app(env={"A": "1"})).processes
    gone = replace(base, processes={"web": base.processes["web"], "worker": Process(name="worker")})
    assert "worker" not in merged(gone, gone, base).processes


names = st.sampled_from("ABC")
apps = st.builds(
    lambda image, env, replicas, sticky: app(image, env, replicas, sticky=sticky),
    st.sampled_from(["shop:1", "shop:2"]),
    st.dictionaries(names, st.sampled_from(["1", "2"])),
    st.integers(1, 3),
    st.booleans(),
)


@given(apps, apps, apps)
def test_laws(base, live, new):
    assert merged(base, base, new) == new, "nothing was changed live"
    assert merged(base, live, base) == live, "the file did not change"
    assert merged(base, live, live) == live, "the file now says what runs"


def test_a_rollback_brings_back_what_ran_not_how_much_of_it():
    old = app("shop:1", env={"A": "old"}, replicas=1, domains=("old.example",))
    old = replace(old, image_id="sha256:1")
    live = replace(app("shop:2", env={"A": "new"}, replicas=5, domains=("new.example",)), nonce=3)
    live = replace(live, processes={"web": replace(live.processes["web"], scale=Scale(max=9))})
    result = rolled_back(live, old)
    assert (result.image, result.image_id, result.nonce, result.domains) == ("shop:1", "sha256:1", 3, ("new.example",))
    web = result.processes["web"]
    assert (web.env, web.replicas, web.scale.max) == ({"A": "old"}, 5, 9)
