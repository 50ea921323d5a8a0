"""Broken files, each with the very lines that a user reads. None is a traceback."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndactors.adapters.yaml_file import load
from ndactors.errors import ConfigurationError

BROKEN = [
    (
        b"apps: {shop: {port: x, command: a}}\n",
        ["nextdeploy.yml:1:21: apps.shop.port: Not a valid integer."],
    ),
    (
        b"apps:\n  shop:\n    command: a\n    prot: 80\n    port: true\n",
        [
            "nextdeploy.yml:4:5: apps.shop.prot: Unknown key; did you mean `port`?",
            "nextdeploy.yml:5:11: apps.shop.port: Not a valid integer.",
        ],
    ),
    (
        b"apps:\n  shop: {command: a}\n  shop: {command: b}\n",
        ["nextdeploy.yml:3:3: apps.shop: Duplicate key; it is given on line 2 already."],
    ),
    (
        b"",
        ["nextdeploy.yml:1:1: The file is empty."],
    ),
    (
        b"# only\n",
        ["nextdeploy.yml:1:1: The file is empty."],
    ),
    (
        b"- a\n- b\n",
        ["nextdeploy.yml:1:1: The file must be a mapping of keys and values."],
    ),
    (
        b"just text\n",
        ["nextdeploy.yml:1:1: The file must be a mapping of keys and values."],
    ),
    (
        b"a: &a [1]\nb: !!python/object:os.system x\n",
        ["nextdeploy.yml:2:4: b: The tag `tag:yaml.org,2002:python/object:os.system` is not allowed."],
    ),
    (
        b"apps: {a: {command: x, env: {A: ${NOPE}}}}\n",
        ["nextdeploy.yml:1:34: Not valid YAML: did not find expected ',' or '}'."],
    ),
    (
        b"apps: {a: {command: x, env: {A: ${1x}}}}\n",
        ["nextdeploy.yml:1:34: Not valid YAML: did not find expected ',' or '}'."],
    ),
    (
        b"\xff\xfe\xfa\n",
        ["nextdeploy.yml:1:1: Not valid UTF-8."],
    ),
    (
        b"apps: {a: {command: x}}\n\xc3(\n",
        ["nextdeploy.yml:2:1: Not valid UTF-8."],
    ),
    (
        b"a: \x00\n",
        ["nextdeploy.yml:1:1: Not valid YAML: a character is not allowed."],
    ),
    (
        b"a: [1, 2\n",
        ["nextdeploy.yml:2:1: Not valid YAML: did not find expected ',' or ']'."],
    ),
    (
        b"a: 'x\n",
        ["nextdeploy.yml:2:1: Not valid YAML: found unexpected end of stream."],
    ),
    (
        b"\tapps: 1\n",
        ["nextdeploy.yml:1:1: Not valid YAML: found character that cannot start any token."],
    ),
    (
        b"a: 1\n---\nb: 2\n",
        ["nextdeploy.yml:2:1: Not valid YAML: but found another document."],
    ),
    (
        b"x: " + b"[" * 500 + b"]" * 500,
        ["nextdeploy.yml:1:67: The nesting is deeper than 64."],
    ),
    (
        b"x: " + b"[" * 100_000,
        ["nextdeploy.yml:1:67: The nesting is deeper than 64."],
    ),
    (
        b"- " * 100_000,
        ["nextdeploy.yml:1:129: The nesting is deeper than 64."],
    ),
    (
        b"a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d]\n",
        ["nextdeploy.yml:1:26: The aliases expand to more than 10000 nodes."],
    ),
    (
        b"a: &a {b: 1}\nc: {<<: *a, <<: *a}\n",
        ["nextdeploy.yml:1:1: a: Unknown key.", "nextdeploy.yml:2:1: c: Unknown key."],
    ),
    (
        b"apps: {a: {command: x, port: " + b"9" * 5000 + b"}}\n",
        ["nextdeploy.yml:1:30: apps.a.port: A number of more than 400 digits is not allowed."],
    ),
    (
        b"apps: {a: {command: x, replicas: -1}}\n",
        ["nextdeploy.yml:1:34: apps.a.replicas: Must be between 0 and 1000."],
    ),
    (
        b"apps: {a: {command: x, domains: [bad_domain!]}}\n",
        [
            "nextdeploy.yml:1:34: apps.a.domains[0]: Not a valid domain; write it like shop.example.com, *.example.com or *."
        ],
    ),
    (
        b"apps: {A_b: {command: x}}\n",
        ["nextdeploy.yml:1:13: apps.A_b: Not a valid name; use a-z, 0-9 and -, at most 40 characters."],
    ),
    (
        b"apps: {a: {}}\n",
        ["nextdeploy.yml:1:11: apps.a: Give `image`, `build` or `command`: there is nothing to run."],
    ),
    (
        b"apps: {a: {image: x, build: .}}\n",
        ["nextdeploy.yml:1:29: apps.a.build: Give `image` or `build`, not both."],
    ),
    (
        b"apps: {a: {command: x, healthcheck: {interval: 5 parsecs}}}\n",
        [
            "nextdeploy.yml:1:48: apps.a.healthcheck.interval: Not a valid duration; write it like 500ms, 2s, 10m, 1h or 7d."
        ],
    ),
    (
        b"apps: {a: {command: x, resources: {memory: lots}}}\n",
        ["nextdeploy.yml:1:44: apps.a.resources.memory: Not a valid size; write it like 256MiB, 1GiB or 512M."],
    ),
    (
        b"apps: {a: {command: x, restart: sometimes}}\n",
        ["nextdeploy.yml:1:33: apps.a.restart: Must be one of: always, unless-stopped, on-failure, no."],
    ),
    (
        b"apps: {a: {command: x}}\nlogs:\n  archive: {s3: {endpoint: 'host:9000', bucket: a/b}}\n"
        b"  forward:\n    - {}\n    - {syslog: 'tcp://log.test', http: 'http://in.test'}\n    - {syslog: log.test}\n"
        b"    - {http: 'http://in.test:0'}\n    - {syslog: 'udp://log.test:514', headers: {A: b}}\n"
        b"    - {http: 'https://in.test', headers: {Host: x, 'a b': x, C: \"d\\n\"}}\n",
        [
            "nextdeploy.yml:3:28: logs.archive.s3.endpoint: Not a valid URL; write it like https://host.",
            "nextdeploy.yml:3:49: logs.archive.s3.bucket: Not a valid bucket name.",
            "nextdeploy.yml:5:7: logs.forward[0]: Give `syslog` or `http`, and one of them only.",
            "nextdeploy.yml:6:7: logs.forward[1]: Give `syslog` or `http`, and one of them only.",
            "nextdeploy.yml:7:16: logs.forward[2].syslog: Not a valid address; write it like tcp://host:514, udp://host:514 or tls://host:6514.",
            "nextdeploy.yml:8:14: logs.forward[3].http: Not a valid URL; write it like https://host/path.",
            "nextdeploy.yml:9:47: logs.forward[4].headers: Headers are for `http`.",
            "nextdeploy.yml:10:59: logs.forward[5].headers.a b: Not a header name.",
            "nextdeploy.yml:10:65: logs.forward[5].headers.C: Must be printable ASCII.",
        ],
    ),
    (
        b"apps: {a: {command: x}}\nlogs:\n  archive: {s3: {bucket: b, access_key: k}}\n"
        b"  forward: [{http: 'https://u:p@in.test/k3y'}, {http: 'https://u:p@in.test/k3y/', headers: {Host: x}},"
        b" {syslog: 'udp://[::1]:514'}, {syslog: 'udp://[::1]'}, {http: 'https://u:p@in.test/k3y/'}]\n",
        [
            "nextdeploy.yml:3:17: logs.archive.s3: Give `access_key` and `secret_key`, or neither.",
            "nextdeploy.yml:4:12: logs.forward: `https://in.test` is there twice.",
            "nextdeploy.yml:4:12: logs.forward: `udp://[::1]:514` is there twice.",
            "nextdeploy.yml:4:99: logs.forward[1].headers.Host: This field is set already.",
        ],
    ),
    (
        b"apps: {a: {command: x, volumes: [nowhere]}}\n",
        [
            "nextdeploy.yml:1:34: apps.a.volumes[0]: Not a valid volume; write name:/path, ./folder:/path or /folder:/path:ro."
        ],
    ),
    (
        b"edge: {http: '80'}\n",
        ["nextdeploy.yml:1:14: edge.http: Not a valid address; write it like `:80` or `127.0.0.1:8090`."],
    ),
    (
        b"edge: {trusted_proxies: [10.0.0.0/99]}\n",
        ["nextdeploy.yml:1:26: edge.trusted_proxies[0]: Not a valid network; write it like 10.0.0.0/8."],
    ),
    (
        b"version: '2.0'\n",
        ["nextdeploy.yml:1:10: version: Must be 1.0."],
    ),
    (
        b"environments: {prod: []}\n",
        ["nextdeploy.yml:1:22: environments.prod: Not a valid mapping."],
    ),
    (
        b"environments: 7\n",
        ["nextdeploy.yml:1:15: environments: Not a valid mapping."],
    ),
    (
        b"apps: {a: {command: x, domains: [d.test]}, b: {command: y, domains: [D.test]}}\n",
        ["nextdeploy.yml:1:70: apps.b.domains[0]: `D.test/` is served by the app `a` already."],
    ),
    (
        b"apps: {a: {image: x, volumes: ['v:/d'], replicas: 2}}\n",
        ["nextdeploy.yml:1:51: apps.a.replicas: An app with volumes and no domain keeps state: it runs once."],
    ),
    (
        b"apps: {a: {command: x, scale: {min: 5, max: 2}}}\n",
        ["nextdeploy.yml:1:37: apps.a.scale.min: Must not be greater than `max`."],
    ),
    (
        b"apps: {a: {command: x, healthcheck: {tcp: true, command: [a]}}}\n",
        ["nextdeploy.yml:1:37: apps.a.healthcheck: Give `tcp` or `command`, not both."],
    ),
    (
        b"app: {name: shop}\napps: {}\n",
        ["nextdeploy.yml:1:1: app: The original layout and `apps` cannot be mixed."],
    ),
    (
        b"logs: {level: loud}\n",
        ["nextdeploy.yml:1:15: logs.level: Must be one of: debug, info, warning, error, critical."],
    ),
    (
        b"engine: dokcer\n",
        ["nextdeploy.yml:1:9: engine: Must be one of: auto, docker, process, swarm. Did you mean `docker`?"],
    ),
    (
        b"ssl: {provider: custom}\n",
        [
            "nextdeploy.yml:1:6: ssl: The provider `custom` needs `cert`.",
            "nextdeploy.yml:1:6: ssl: The provider `custom` needs `key`.",
        ],
    ),
    (
        b"apps: {a: {command: x, processes: {w: {command: y, schedule: sometimes}}}}\n",
        [
            "nextdeploy.yml:1:62: apps.a.processes.w.schedule: Not a valid schedule; write five fields, or @hourly, @daily, @weekly, @monthly, @deploy."
        ],
    ),
    (
        b"apps: {a: {command: x, processes: {w: {command: y, schedule: 0 0 30 2 *, timezone: Mars}}}}\n",
        [
            "nextdeploy.yml:1:62: apps.a.processes.w.schedule: Not a valid schedule: there is no such date.",
            "nextdeploy.yml:1:84: apps.a.processes.w.timezone: Not a time zone; write it like Europe/Berlin or UTC.",
        ],
    ),
    (
        b"apps: {a: {command: x, processes: {w: {command: y, schedule: '99 * * * *', replicas: 2, timeout: 0s}}}}\n",
        [
            "nextdeploy.yml:1:62: apps.a.processes.w.schedule: Not a valid schedule: `99` is no minute.",
            "nextdeploy.yml:1:98: apps.a.processes.w.timeout: Must be longer than 0.",
        ],
    ),
    (
        b"apps: {a: {command: x, domains: [a.test], processes: {web: {schedule: '@daily', replicas: 2}, w: {timezone: UTC}}}}\n",
        [
            "nextdeploy.yml:1:71: apps.a.processes.web.schedule: The process `web` has the visitors of `domains`: it cannot be a job.",
            "nextdeploy.yml:1:91: apps.a.processes.web.replicas: A job runs once at a time: this is for processes without `schedule`.",
            "nextdeploy.yml:1:109: apps.a.processes.w.timezone: Give `schedule` too: it is for jobs.",
        ],
    ),
    (
        b"webhook: {on_success: [https://a.test/x, 'curl x', [], [curl, x]]}\n",
        [
            "nextdeploy.yml:1:42: webhook.on_success[1]: Not a valid URL; a command is a list of words: no shell runs.",
            "nextdeploy.yml:1:52: webhook.on_success[2]: Not a valid command; write a string or a list of strings.",
        ],
    ),
    (
        b"database: {name: n, migrate_on_deploy: []}\n",
        ["nextdeploy.yml:1:40: database.migrate_on_deploy: Not a valid command; write a string or a list of strings."],
    ),
    (
        b"apps: {a: {command: [1, 2]}}\n",
        ["nextdeploy.yml:1:21: apps.a.command: Not a valid command; write a string or a list of strings."],
    ),
    (
        b"apps: {a: {command: x, env_file: none.env}}\n",
        ["nextdeploy.yml:1:34: apps.a.env_file: `none.env` cannot be read: No such file or directory."],
    ),
    (
        b"monitoring: {alert: {email: {to: a@b}}}\n",
        [
            "nextdeploy.yml:1:22: monitoring.alert.email.from: A value is missing.",
            "nextdeploy.yml:1:22: monitoring.alert.email.smtp: A value is missing.",
        ],
    ),
    (
        b"monitoring: {alert: {email: {to: ['a@b>', 'x y@z', 'c@d'], from: \"a@b\\nBcc: c@d\", smtp: 'h'}, notify_on: [crush]}}\n",
        [
            "nextdeploy.yml:1:35: monitoring.alert.email.to[0]: Not a valid address; write it like ops@example.com (a domain of other letters as xn--…).",
            "nextdeploy.yml:1:43: monitoring.alert.email.to[1]: Not a valid address; write it like ops@example.com (a domain of other letters as xn--…).",
            "nextdeploy.yml:1:66: monitoring.alert.email.from: Not a valid address; write it like ops@example.com (a domain of other letters as xn--…).",
            "nextdeploy.yml:1:89: monitoring.alert.email.smtp: Not a valid address; write it like `:80` or `127.0.0.1:8090`.",
            "nextdeploy.yml:1:107: monitoring.alert.notify_on[0]: Must be one of: crash, oom, healthcheck_failed, failover, high_cpu, high_memory, high_disk, anomaly, deploy, error, budget, certificate, job, backup, self, port. Did you mean `crash`?",
        ],
    ),
    (
        b"monitoring: {alert: {webhook: ['https://'], webhook_secret: whsec_YWJj, slack_webhook: nope, apprise: [x]}}\n",
        [
            "nextdeploy.yml:1:32: monitoring.alert.webhook[0]: Not a valid URL; write it like https://host/path.",
            "nextdeploy.yml:1:61: monitoring.alert.webhook_secret: Not a valid key; write `whsec_` and 24 to 64 bytes in base64 (`openssl rand -base64 32` makes some).",
            "nextdeploy.yml:1:88: monitoring.alert.slack_webhook: Not a valid URL; write it like https://host/path.",
            "nextdeploy.yml:1:104: monitoring.alert.apprise[0]: Not a valid Apprise URL.",
        ],
    ),
    (
        b"apps: {a: {command: x, deploy: {strategy: fast}}}\n",
        ["nextdeploy.yml:1:43: apps.a.deploy.strategy: Must be one of: rolling, canary, recreate."],
    ),
    (
        b"apps: {a: {command: x, rate_limit: {per_ip: 5/fortnight}}}\n",
        ["nextdeploy.yml:1:45: apps.a.rate_limit.per_ip: Not a valid rate; write it like 50/s or 600/min."],
    ),
    (
        b"? [a, b]\n: c\n",
        ["nextdeploy.yml:1:3: A key must be a plain word."],
    ),
    (
        b"apps: null\nadmin: {users: [{name: x}]}\n",
        ["nextdeploy.yml:2:17: admin.users[0].password_hash: A value is missing."],
    ),
    (
        b"apps: {a: {command: x, healthcheck: {status: 99}}}\n",
        ["nextdeploy.yml:1:46: apps.a.healthcheck.status: Not a valid status; write it like 200 or 200-399."],
    ),
    (
        b"apps: {a: {command: x, port: 70000}}\n",
        ["nextdeploy.yml:1:30: apps.a.port: Must be between 1 and 65535."],
    ),
    (
        b"apps: [a]\n",
        ["nextdeploy.yml:1:7: apps: Not a valid mapping."],
    ),
    (
        b"apps: {a: [b]}\n",
        ["nextdeploy.yml:1:11: apps.a: Not a valid mapping."],
    ),
    (
        b"x" * (1 << 20) + b"y",
        ["nextdeploy.yml:1:1: The file is larger than 1 MiB."],
    ),
]


def lines(tmp_path, content: bytes, **options) -> list[str]:
    path = tmp_path / "nextdeploy.yml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load(path, **{"environment": "dev", "variables": {}, **options})
    return [line.replace(str(path), "nextdeploy.yml") for line in caught.value.lines()]


@pytest.mark.parametrize(("content", "expected"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_says_what_and_where(tmp_path, content, expected):
    began = time.process_time()
    assert lines(tmp_path, content) == expected
    assert time.process_time() - began < 10, "bounded, whatever the file"


def test_a_folder_and_a_file_that_is_not_there(tmp_path):
    for path, words in ((tmp_path, "This is a folder, not a file."), (tmp_path / "none.yml", "There is no such file.")):
        with pytest.raises(ConfigurationError) as caught:
            load(path, environment="dev", variables={})
        assert caught.value.lines() == [f"{path}:1:1: {words}"]


def test_many_mistakes_come_all_at_once_sorted_by_line(tmp_path):
    content = b"edge: {workers: many}\napps:\n  shop:\n    command: a\n    prot: 1\n    replicas: x\nlogs: {level: 3}\n"
    found = lines(tmp_path, content)
    assert [int(line.split(":")[1]) for line in found] == [1, 5, 6, 7]


def test_a_variable_that_is_not_set_and_one_that_is_none(tmp_path):
    content = b'apps: {a: {command: "x ${NOPE}", env: {A: "${1x}"}}}\n'
    assert lines(tmp_path, content) == [
        "nextdeploy.yml:1:21: apps.a.command: The variable `NOPE` is not set.",
        "nextdeploy.yml:1:43: apps.a.env.A: `${1x}` is no variable; write `$$` for a dollar sign.",
    ]


def test_one_port_of_the_host_is_for_one_replica(tmp_path):
    words = "On the host one port is for one replica; without `port` each gets a free one."
    assert lines(tmp_path, b"apps: {a: {command: x, port: 80, replicas: 2}}\n") == [
        f"nextdeploy.yml:1:30: apps.a.port: {words}"
    ]


def test_variables_cannot_blow_a_file_up(tmp_path):
    content = b"apps: {a: {command: x, env: {" + b", ".join(b'A%d: "${BIG}"' % n for n in range(300)) + b"}}}\n"
    (found,) = lines(tmp_path, content, variables={"BIG": "x" * 10_000})
    assert "longer than 1000000 characters" in found


def test_a_mistake_in_an_overlay_points_into_the_overlay(tmp_path):
    content = b"apps: {a: {command: x, port: 1}}\nenvironments:\n  dev:\n    apps: {a: {port: no}}\n"
    assert lines(tmp_path, content) == ["nextdeploy.yml:4:22: apps.a.port: Not a valid integer."]


def test_an_environment_that_is_not_there(tmp_path):
    content = b"environments: {live: {}}\n"
    assert lines(tmp_path, content, environment="lvie") == [
        "nextdeploy.yml:1:1: environments: There is no environment `lvie`; did you mean `live`?"
    ]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("apps.a.port=x", "--set apps.a.port=x: Not a valid integer."),
        ("apps.a.prot=1", "--set apps.a.prot=1: Unknown key; did you mean `port`?"),
        ("apps", "--set apps: Write it as KEY=VALUE, with dots between the parts of the key."),
        ("apps.a.env=[", "--set apps.a.env=[: Not valid YAML: did not find expected node content."),
    ],
)
def test_a_wrong_override(tmp_path, override, line):
    assert lines(tmp_path, b"apps: {a: {command: x}}\n", overrides=[override]) == [line]


def test_a_hostile_megabyte_is_refused_in_time(tmp_path):
    keys = b"".join(b"k%d: {a: 1}\n" % n for n in range(60_000))[: 1 << 20]
    merges = b"a: &a {x: 1, y: 2, z: 3}\n" + b"".join(b"m%d: {<<: [*a, *a, *a]}\n" % n for n in range(20_000))
    overlay = b"environments: {dev: {" + b", ".join(b"k%d: 1" % n for n in range(40_000)) + b"}}\n"
    for content in (keys, merges, overlay):
        began = time.process_time()
        assert lines(tmp_path, content)
        assert time.process_time() - began < 15


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("config") / "nextdeploy.yml"
    path.write_bytes(content)
    try:
        load(path, environment="dev", variables={})
    except ConfigurationError as error:
        assert error.lines()


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 70000) | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["apps", "a", "port", "env", "command", "processes", "edge", "http", "deploy"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_random_trees_raise_nothing_else(tmp_path_factory, tree):
    import yaml

    path = tmp_path_factory.mktemp("config") / "nextdeploy.yml"
    path.write_text(yaml.safe_dump(tree))
    try:
        load(path, environment="dev", variables={})
    except ConfigurationError as error:
        assert error.lines()
