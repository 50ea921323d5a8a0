"""What of the file the edge is told, beside where requests may go."""

from __future__ import annotations

from ndactors.actors.proxy import with_rules
from ndactors.core.model import App, Healthcheck, Http, Process, Rate, RateLimit, Timeouts
from ndactors.messages.edge import Backend, Service

HERE = Service(app="shop", backends=(Backend(id="a", address="10.0.0.1", port=80),), hold_seconds=15.0)


def app(check: Healthcheck | None = None, **more) -> App:
    web = Process(name="web", healthcheck=check or Healthcheck(path="/up"))
    return App(name="shop", processes={"web": web}, **more)


def test_rules_are_the_files_and_places_are_the_apps():
    service = with_rules(
        HERE,
        app(
            domains=("*.shop.test", "shop.test"),
            timeouts=Timeouts(connect=1.0, response=5.0),
            rate_limit=RateLimit(per_ip=Rate(count=5), burst=7),
            http=Http(headers={"X": "y"}, allow=("10.0.0.0/8",), redirects={"/a": "/b"}, basic_auth={"me": "$argon2"}),
        ),
        {"503": "page"},
        maintenance=True,
    )
    assert (service.backends, service.hold_seconds) == (HERE.backends, HERE.hold_seconds)
    assert (service.connect_timeout, service.response_timeout) == (1.0, 5.0)
    assert (service.per_ip, service.per_app, service.burst) == (Rate(count=5), None, 7)
    assert (service.response_headers, service.allow) == ({"X": "y"}, ("10.0.0.0/8",))
    assert (service.redirects, service.basic_auth) == ({"/a": "/b"}, {"me": "$argon2"})
    assert (service.error_pages, service.maintenance) == ({"503": "page"}, True)
    assert (service.probe_method, service.probe_path, service.probe_host) == ("GET", "/up", "shop.test")


def test_a_container_without_a_health_check_by_http_is_asked_harmlessly():
    service = with_rules(HERE, app(Healthcheck(kind="tcp")), {}, maintenance=False)
    assert (service.probe_method, service.probe_path) == ("HEAD", "/")
    assert (service.per_ip, service.per_app) == (None, None)
