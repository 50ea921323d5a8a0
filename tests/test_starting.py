"""What our processes load, and what they leave out until it is needed: in interpreters of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATCHED = "import sys, ndactors.__main__ as main; main._patch(); "


def said_by(code: str) -> object:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tls_is_loaded_late_and_then_does_not_block():
    code = PATCHED + (
        "import ndactors.daemon; early = 'ssl' in sys.modules; import ssl, gevent.ssl, json, http.client;"
        "print(json.dumps([early, ssl.SSLContext is gevent.ssl.SSLContext, ssl.SSLSocket is gevent.ssl.SSLSocket,"
        "isinstance(ssl.create_default_context(), gevent.ssl.SSLContext), sys.modules['ssl'].__spec__.name]))"
    )
    assert said_by(code) == [False, True, True, True, "ssl"]


def test_an_import_of_tls_that_fails_is_patched_the_next_time():
    code = PATCHED + (
        "import json, gevent.monkey; real = gevent.monkey.patch_ssl; finder = sys.meta_path[0]\n"
        "def full(): raise OSError(24, 'Too many open files')\n"
        "finder._patch = full; failed = False\n"
        "try: import ssl\n"
        "except OSError: failed = True\n"
        "finder._patch = real; import ssl, gevent.ssl; print(json.dumps([failed, ssl.SSLContext is gevent.ssl.SSLContext]))"
    )
    assert said_by(code) == [True, True]


def test_a_tls_connection_lets_others_go_on(tmp_path):
    """A handshake that nobody answers, while a greenlet counts."""
    code = PATCHED + (
        "import gevent, json, socket, ssl; server = socket.create_server(('127.0.0.1', 0)); count = []\n"
        "def counting():\n"
        "    while True: count.append(1); gevent.sleep(0.01)\n"
        "gevent.spawn(counting)\n"
        "sock = socket.create_connection(server.getsockname(), timeout=0.5)\n"
        "try: ssl.create_default_context().wrap_socket(sock, server_hostname='localhost')\n"
        "except TimeoutError: print(json.dumps(len(count) > 5))\n"
    )
    assert said_by(code) is True


def test_what_stood_in_for_a_library_is_gone_afterwards():
    code = PATCHED + (
        "import json, typing_extensions, importlib.metadata;"
        "print(json.dumps([importlib.metadata.version('msgspec') != '0', hasattr(typing_extensions, 'Protocol')]))"
    )
    assert said_by(code) == [True, True]


def test_requests_does_without_guessing_encodings():
    code = PATCHED + (
        "import docker, json, requests; answer = requests.Response(); answer._content = 'é'.encode();"
        "print(json.dumps([answer.text, sys.modules['charset_normalizer'] is None]))"
    )
    assert said_by(code) == ["é", True]


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("daemon", ["flask", "docker", "requests", "ssl", "gevent.pywsgi", "smtplib", "tarfile", "web"]),
        ("edge.worker", ["argon2", "ast", "dataclasses", "maxminddb", "typing_extensions", "ssl"]),
        ("edge.master", ["gevent", "ast", "subprocess", "typing_extensions"]),
        ("logs.process", ["gevent", "ast", "shutil", "subprocess", "traceback", "typing_extensions"]),
        ("logs.opener", ["msgspec", "re", "typing"]),
    ],
)
def test_a_process_loads_only_what_it_needs(module, spared):
    """Each megabyte here is one of every installation."""
    before = "main._patch()" if module == "daemon" else "main._spare()"
    code = (
        f"import sys, ndactors.__main__ as main; {before}; import ndactors.{module};"
        f"found = [name for name in {spared!r} if sys.modules.get(name) is not None]; import json; print(json.dumps(found))"
    )
    assert said_by(code) == []


def test_what_is_spared_is_not_missed():
    """The libraries of the edge, where those that they would like are not there."""
    code = (
        "import sys, ndactors.__main__ as main; main._spare(); import argon2, gevent, json, maxminddb, msgspec, hashlib;"
        "hash = argon2.PasswordHasher(time_cost=1, memory_cost=64).hash('x');"
        "print(json.dumps([argon2.PasswordHasher().verify(hash, 'x'), hashlib.sha256(b'').hexdigest()[:8],"
        "callable(maxminddb.open_database)]))"
    )
    assert said_by(code) == [True, "e3b0c442", True]


def test_a_process_passes_on_what_it_is_told_to_and_nothing_else():
    """It was given descriptors of which only one is for its own child."""
    code = (
        "import sys, ndactors.__main__ as main; main._keep_descriptors(); import os;"
        "from ndactors.runtime.child import Child;"
        "Child(['/bin/ls', '/proc/self/fd'], os.environ, keep=(int(sys.argv[1]),)).wait()"
    )
    kept, other = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
    done = subprocess.run(
        [sys.executable, "-c", code, str(kept)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        pass_fds=(kept, other),
        capture_output=True,
        text=True,
        timeout=60,
    )
    os.close(kept)
    os.close(other)
    assert done.returncode == 0, done.stderr
    files = {int(name) for name in done.stdout.split()}
    assert {1, 2, kept} <= files
    assert other not in files


def test_who_gives_up_privileges_loads_before_what_is_out_of_reach(tmp_path):
    """Everything, if anything is: a module needs others."""
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    code = (
        f"import os, sys, ndactors.__main__ as main; main._spare(); sys.path.append({str(hidden)!r});"
        "from ndactors.edge import worker; before = os.geteuid(); worker.drop_privileges();"
        "print(__import__('json').dumps([before, os.geteuid(), all(name in sys.modules for name in worker.RARELY_USED)]))"
    )
    before, after, loaded = said_by(code)
    assert loaded == (before == 0)
    assert (after != before) == (before == 0)
