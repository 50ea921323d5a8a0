from __future__ import annotations

import pytest

from ndactors.core.diagnosing import Symptoms, cause

REFUSED = "nothing listens on 172.17.0.2:3000"
DNS = ("127.0.0.11", 40123)


@pytest.mark.parametrize(
    ("symptoms", "words"),
    [
        (
            Symptoms(reason=REFUSED, state="starting", port=3000, listeners=(("127.0.0.1", 3000), DNS)),
            "listens on 127.0.0.1:3000; bind 0.0.0.0",
        ),
        (
            Symptoms(reason=REFUSED, state="starting", port=3000, listeners=(("::1", 3000),)),
            "listens on [::1]:3000; bind 0.0.0.0",
        ),
        (
            Symptoms(reason=REFUSED, state="starting", port=8080, listeners=(("0.0.0.0", 3000), DNS)),
            "listens on port 3000, not on 8080; set `port: 3000` or listen on $PORT",
        ),
        (
            Symptoms(reason=REFUSED, state="starting", port=8080, listeners=(("127.0.0.1", 5000), DNS)),
            "listens on 127.0.0.1:5000; bind 0.0.0.0 and port 8080 ($PORT)",
        ),
        (
            Symptoms(reason=REFUSED, state="starting", port=8080, listeners=(DNS,)),
            f"listens on no port; 8080 ($PORT) was expected ({REFUSED})",
        ),
        (
            Symptoms(reason="exited 1", state="restarting", port=8080, exit_code=1, ran_for=0.44),
            "exited 1 after 0.4 s",
        ),
        (
            Symptoms(
                reason="exited 127 (command not found); 10 restarts in 600 s did not help",
                state="failed",
                port=8080,
                exit_code=127,
                ran_for=0.02,
            ),
            "exited 127 (command not found) after 0.0 s",
        ),
        (
            Symptoms(reason="/ answered 400", state="starting", port=80, listeners=(("0.0.0.0", 80),)),
            "health check answered 400 (/ answered 400)",
        ),
        (
            Symptoms(reason="health check failed: /up answered 503", state="unhealthy", port=80, listeners=None),
            "health check answered 503 (/up answered 503)",
        ),
        (
            Symptoms(
                reason="no answer from 1.2.3.4:80/ within 2 s", state="starting", port=80, listeners=(("::", 80),)
            ),
            "no answer from 1.2.3.4:80/ within 2 s",
        ),
        (Symptoms(reason="", state="starting", port=None), "it did not become healthy"),
        (
            Symptoms(reason="start failed: no such network", state="failed", port=80),
            "start failed: no such network",
        ),
    ],
)
def test_one_sentence_that_says_what_to_change(symptoms, words):
    assert cause(symptoms) == words
