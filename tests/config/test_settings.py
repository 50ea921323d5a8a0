"""What a good file means."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from ndactors.adapters.yaml_file import load, read_env_file, render
from ndactors.core.jsonschema import json_schema, text
from ndactors.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
EVERYTHING = Path(__file__).parent / "everything.yml"


def read(tmp_path, content: str, **options):
    path = tmp_path / "nextdeploy.yml"
    path.write_text(content)
    return load(path, **{"environment": "dev", "variables": {}, **options})


def shop(tmp_path, content: str, **options):
    return read(tmp_path, f"apps: {{shop: {{command: x, {content}}}}}\n", **options).settings.apps["shop"]


def test_the_whole_schema_loads():
    loaded = load(EVERYTHING, environment="staging", variables={})
    app = loaded.settings.apps["shop"]
    assert app.processes["web"].replicas == 2
    assert app.processes["worker"].replicas == 2
    assert app.processes["web"].healthcheck.status == (200, 399)
    assert app.processes["worker"].healthcheck.kind == "none"
    assert app.deploy.canary.steps == (5, 25, 100)
    assert app.rate_limit.per_ip.count == 50
    assert loaded.settings.edge.workers is None
    assert loaded.settings.monitoring.alert.email.sender == "c@d"
    assert loaded.settings.logs.archive.bucket == "b"
    assert [outlet.syslog or outlet.http for outlet in loaded.settings.logs.forward] == [
        "tls://log.test",
        "https://in.test/x",
    ]
    assert loaded.settings.logs.forward[1].headers == {"Authorization": "Bearer t"}


def test_each_key_that_does_nothing_yet_is_told_once():
    warnings = load(EVERYTHING, environment="dev", variables={}).warnings
    assert len(warnings) == len(set(warnings))
    assert (
        f"{EVERYTHING}:40:5: apps.shop.scale: This loads, but autoscaling cannot be had yet: it has no effect."
        in warnings
    )
    assert not any(
        f": {key}" in line for line in warnings for key in ("apps.shop.image:", "apps.shop.domains:", "logs.")
    )


def test_who_is_told_of_alerts(tmp_path):
    from ndactors.core.schema import KINDS

    key = "whsec_" + "a" * 43 + "="
    content = """monitoring:
  alert:
    webhook: https://a.test/S3CRET
    webhook_secret: ${KEY}
    email: {to: ops@x.test, from: Größer <a@x.test>, smtp: "smtp.x.test:465", username: u, password: S3CRET}
    apprise: [tgram://S3CRET/1]
"""
    loaded = read(tmp_path, content, variables={"KEY": key})
    alert = loaded.settings.monitoring.alert
    assert (alert.webhook, alert.webhook_secret, alert.apprise) == (
        ("https://a.test/S3CRET",),
        key,
        ("tgram://S3CRET/1",),
    )
    assert (alert.email.sender, alert.email.starttls, alert.notify_on) == ("Größer <a@x.test>", True, KINDS)
    assert loaded.warnings == ()
    assert "S3CRET" not in render(loaded) and key not in render(loaded)


def test_surprises_of_yaml_stay_strings(tmp_path):
    app = shop(
        tmp_path, "env: {A: 22:22, B: on, C: no, D: 2026-01-01, E: 0755, F: 1_000, G: 1.50, H: true, I: ~x, J: 0x1F}"
    )
    env = app.processes["web"].env
    assert env == {
        "A": "22:22",
        "B": "on",
        "C": "no",
        "D": "2026-01-01",
        "E": "0755",
        "F": "1_000",
        "G": "1.50",
        "H": "true",
        "I": "~x",
        "J": "0x1F",
    }


def test_overlays_merge_maps_replace_lists_and_remove_with_null(tmp_path):
    content = """
apps:
  shop: {command: x, domains: [a.test, b.test], env: {A: 1, B: 2}, port: 80}
environments:
  staging: {apps: {shop: {domains: [c.test], env: {B: null, C: 3}, port: null}}}
"""
    app = read(tmp_path, content, environment="staging").settings.apps["shop"]
    assert app.domains == ("c.test",)
    assert app.processes["web"].env == {"A": "1", "C": "3"}
    assert app.processes["web"].port is None
    assert read(tmp_path, content, environment="prod").settings.apps["shop"].domains == ("a.test", "b.test")


def test_overrides_come_last(tmp_path):
    content = "apps: {shop: {command: x}}\nenvironments: {dev: {apps: {shop: {replicas: 2}}}}\n"
    overrides = [
        "apps.shop.replicas=3",
        "apps.shop.domains=[a.test]",
        'apps.shop.env={"A": "b"}',
        'registries."ghcr.io"={username: u, password: p}',
    ]
    settings = read(tmp_path, content, overrides=overrides).settings
    assert settings.apps["shop"].processes["web"].replicas == 3
    assert settings.apps["shop"].domains == ("a.test",)
    assert settings.registries["ghcr.io"].username == "u"


def test_variables(tmp_path):
    app = shop(
        tmp_path,
        'port: "${P}", env: {A: "${X:-default}", B: "x-${Y}-$$", C: "${EMPTY:-e}"}',
        variables={"P": "81", "Y": "y", "EMPTY": ""},
    )
    web = app.processes["web"]
    assert (web.port, web.env) == (81, {"A": "default", "B": "x-y-$", "C": "e"})


def test_shorthands(tmp_path):
    app = shop(
        tmp_path,
        "restart: on-failure, mirror: true, domains: a.test, env: [A=b=c], stop_signal: INT, volumes: ['./d:/data:ro', 'v:/v']",
    )
    web = app.processes["web"]
    assert web.restart.policy == "on-failure"
    assert app.mirror is not None
    assert app.domains == ("a.test",)
    assert web.env == {"A": "b=c"}
    assert web.stop_signal == "SIGINT"
    assert (web.volumes[0].source, web.volumes[0].read_only) == (f"{tmp_path}/d", True)
    assert web.volumes[1].is_named


def test_what_processes_inherit(tmp_path):
    app = shop(
        tmp_path,
        "image: i, env: {A: a, B: b}, resources: {memory: 1GiB}, replicas: 3, port: 80, healthcheck: {path: /up}, "
        "processes: {web: {env: {B: c}}, worker: {command: w, replicas: 2}}",
    )
    web, worker = app.processes["web"], app.processes["worker"]
    assert (web.env, worker.env) == ({"A": "a", "B": "c"}, {"A": "a", "B": "b"})
    assert (web.command, worker.command) == ("x", "w")
    assert (web.replicas, worker.replicas, web.port, worker.port) == (3, 2, 80, None)
    assert web.resources == worker.resources
    assert (web.healthcheck.path, worker.healthcheck.kind) == ("/up", "none")


def test_without_a_healthcheck_any_answer_is_life(tmp_path):
    assert shop(tmp_path, "domains: [shop.test]").processes["web"].healthcheck.status == (100, 599)
    assert shop(tmp_path, "replicas: 1").processes["web"].healthcheck.kind == "tcp", (
        "an inner service may speak anything"
    )
    assert shop(tmp_path, "healthcheck: {}").processes["web"].healthcheck.status == (200, 399)


def test_kinds_of_healthcheck(tmp_path):
    assert shop(tmp_path, "healthcheck: {tcp: true}").processes["web"].healthcheck.kind == "tcp"
    check = shop(tmp_path, "healthcheck: {command: [pg_isready, -q]}").processes["web"].healthcheck
    assert (check.kind, check.command) == ("command", ("pg_isready", "-q"))


def test_what_keeps_state_is_recreated(tmp_path):
    assert shop(tmp_path, "volumes: ['v:/v']").deploy.strategy == "recreate"
    assert shop(tmp_path, "volumes: ['v:/v'], domains: [a.test]").deploy.strategy == "rolling"


def test_an_env_file_lies_below_env(tmp_path):
    (tmp_path / ".env").write_text("# comment\nexport A='x # y'\nB=\"l1\\nl2\"\nC=c # comment\n\nD=\n")
    app = shop(tmp_path, "env_file: .env, env: {C: mine}")
    assert app.processes["web"].env == {"A": "x # y", "B": "l1\nl2", "C": "mine", "D": ""}


def test_a_bad_line_of_an_env_file_is_named(tmp_path):
    (tmp_path / ".env").write_text("A=1\nwhat is this\n")
    with pytest.raises(ValueError, match=r"^2: Not a line like NAME=value\.$"):
        read_env_file(tmp_path / ".env")


OLD_SNAKE = """
app: {name: My Shop, domain: shop.test, port: 3000}
docker: {image: "shop:1"}
deployment:
  container:
    restart: always
    volumes: ["data:/data"]
    ports: ["80:3000"]
    healthcheck: {path: /up, interval: 10s, timeout: 5s, retries: 3}
environment: [{name: A, value: b}, {name: N, value: 1}]
logging: {enabled: true}
monitoring: {enabled: true, cpu_threshold: 80}
database: {type: postgres, host: db, name: shop, migrate_on_deploy: true}
ssl: {enabled: true, auto_renew: true}
target_type: vps
"""
OLD_CAMEL = (
    OLD_SNAKE.replace("cpu_threshold", "cpuThreshold")
    .replace("migrate_on_deploy", "migrateOnDeploy")
    .replace("auto_renew", "autoRenew")
    .replace("target_type", "targetType")
)


@pytest.mark.parametrize("content", [OLD_SNAKE, OLD_CAMEL], ids=["snake", "camel"])
def test_the_original_layout_means_the_same_in_both_spellings(tmp_path, content):
    loaded = read(tmp_path, content)
    app = loaded.settings.apps["my-shop"]
    web = app.processes["web"]
    assert (app.image, app.domains, web.port) == ("shop:1", ("shop.test",), 3000)
    assert (web.healthcheck.path, web.healthcheck.interval) == ("/up", 10.0)
    assert web.env == {"A": "b", "N": "1", "DATABASE_URL": "postgresql://db:5432/shop"}
    assert app.processes["migrate"].schedule == "@deploy"
    assert loaded.settings.monitoring.thresholds.cpu == 80
    assert loaded.settings.database.migrate_on_deploy
    told = [line.split(": ", 2)[1] for line in loaded.warnings]
    assert {"target_type", "logging.enabled", "ssl.auto_renew", "deployment.container.ports[0]"} <= set(told)
    assert len(loaded.warnings) == len(set(loaded.warnings))


def test_secrets_are_masked_when_shown(tmp_path):
    content = "apps: {a: {command: x, env: {API_KEY: k1, DB: 'postgres://u:p1@h/d', MODE: dev}, secrets: [TOKEN]}}\nadmin: {users: [{name: ana, password_hash: 'scrypt:x'}]}\n"
    content += (
        "logs: {archive: {s3: {bucket: b, access_key: k2, secret_key: k3}}, "
        "forward: [{http: 'https://u:k4@in.test/k5?t=k6', headers: {X-Scope: k7}}, {syslog: 'tcp://log.test'}]}\n"
    )
    shown = render(read(tmp_path, content))
    assert not any(f"k{i}" in shown for i in range(1, 8))
    assert "https://in.test/" in shown
    assert "tcp://log.test" in shown
    assert "p1" not in shown
    assert "scrypt" not in shown
    assert "MODE: dev" in shown
    assert "TOKEN" in shown


def test_check_prints_and_exits(tmp_path):
    path = tmp_path / "nextdeploy.yml"

    def check(content: str):
        path.write_text(content)
        command = [sys.executable, "-m", "ndactors", f"--config={path}", "--check"]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30, check=False)

    good = check("apps: {a: {command: x, mirror: true}}\n")
    assert good.returncode == 0
    assert yaml.safe_load(good.stdout)["apps"]["a"]["command"] == "x"
    assert "warning:" in good.stderr
    assert "apps.a.mirror" in good.stderr
    bad = check("apps: {a: {command: x, prot: 1}}\n")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == f"{path}:1:24: apps.a.prot: Unknown key; did you mean `port`?\n"


def test_a_project_file_holds_less(tmp_path):

    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, "edge: {http: ':80'}\nadmim: 1\nadmin: {domain: x}\n", role="project")
    assert [(p.line, p.path, p.message) for p in caught.value.problems] == [
        (1, "edge", "Only the server's own file may have this key."),
        (2, "admim", "Unknown key."),
        (3, "admin", "Only the server's own file may have this key."),
    ]


def test_the_json_schema_is_the_schema():
    assert (ROOT / "conf" / "nextdeploy.schema.json").read_text() == text(), (
        "python -m ndactors.core.jsonschema > conf/nextdeploy.schema.json"
    )
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize(
    "path",
    [EVERYTHING, ROOT / "nextdeploy.yml", ROOT / "examples" / "shop" / "nextdeploy.yml"],
    ids=lambda p: p.parent.name,
)
def test_files_that_load_fit_the_json_schema(path):
    load(path, environment="dev", variables={})
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())


@pytest.mark.parametrize("tree", [{"apps": {"a": {"prot": 1}}}, {"edge": {"workers": "many"}}, {"apps": {"A_b": {}}}])
def test_what_is_wrong_does_not_fit_it(tree):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tree, json_schema())
    assert json.dumps(tree)


def documented() -> str:
    return (ROOT / "docs" / "configuration.md").read_text()


def keys(block, prefix: str = "") -> set[str]:
    from marshmallow import fields

    found = set()
    for name, field in block.load_fields.items():
        name = field.data_key or name
        found.add(prefix + name)
        inner = field
        while not isinstance(inner, fields.Nested):
            inner = getattr(inner, "long", None) or getattr(inner, "inner", None)
            if inner is None:
                break
        if inner is not None and len(prefix) < 60:
            found |= keys(inner.schema, f"{prefix}{name}.")
    return found


def test_every_key_is_documented():
    from ndactors.core.schema import Server

    text = documented()
    missing = sorted(key for key in keys(Server()) if f"`{key.rpartition('.')[2]}`" not in text)
    assert missing == []


def test_every_example_in_the_document_loads(tmp_path):
    import re

    examples = re.findall(r"```yaml\n(.*?)```", documented(), re.DOTALL)
    assert len(examples) >= 3
    (tmp_path / ".env").write_text("A=1\n")
    for example in examples:
        read(tmp_path, example, variables={"SHOP_PORT": "80"})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("monitoring: {interval: 2m}", "Must be at most 30s."),
        ("monitoring: {anomaly: {window: 29d}}", "Must be at most 28d."),
    ],
)
def test_what_alerts_would_not_understand_is_refused(tmp_path, content, words):
    with pytest.raises(ConfigurationError, match=words):
        read(tmp_path, content)


def test_the_longest_that_alerts_understand_is_taken(tmp_path):
    monitoring = read(tmp_path, "monitoring: {interval: 30s, anomaly: {window: 28d}}").settings.monitoring
    assert (monitoring.interval, monitoring.anomaly.window) == (30.0, 28 * 86_400.0)
