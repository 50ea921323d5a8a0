"""What the Engine's words about a registry mean. The words are those of Docker Engine 20.10 and 28."""

from __future__ import annotations

import pytest

from ndactors.core.registries import refusal

HERE = "127.0.0.1:40433/shop:1"


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        (HERE, 'Head "http://127.0.0.1:40433/v2/shop/manifests/1": no basic auth credentials', "refused"),
        (
            HERE,
            'Get "https://127.0.0.1:40433/v2/": dial tcp 127.0.0.1:40433: connect: connection refused',
            "be reached",
        ),
        (
            "127.0.0.1:40133/shop:1",
            f"manifest for 127.0.0.1:40133/shop:1 not found: manifest unknown: {'a' * 64}",
            "have it",
        ),
        ("r.example/denied/shop:404", 'Head "https://r.example/v2/denied/shop/manifests/404": EOF', "be reached"),
        (
            "r.example/not-found:1",
            "unexpected status from HEAD request to https://r.example/v2/: 401 Unauthorized",
            "refused",
        ),
        ("r.example/shop:1", "received unexpected HTTP status: 404 Not Found", "have it"),
        (
            "nothing:1",
            "pull access denied for nothing, repository does not exist or may require 'docker login'",
            "wants a login",
        ),
        (
            "nothing:1",
            'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host',
            "be reached",
        ),
    ],
)
def test_what_the_words_mean(name, words, said):
    assert said in str(refusal(name, words))


def test_words_about_something_else():
    assert refusal("shop:1", "write /var/lib/docker/tmp/GetImageBlob404: no space left on device") is None
