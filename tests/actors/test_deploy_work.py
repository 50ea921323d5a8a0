"""How an image is got ready."""

from __future__ import annotations

import pytest

from ndactors.actors.deploy_work import Workshop, prepare
from ndactors.core.images import BuildContext, ImageInfo
from ndactors.core.model import App, Build, Process
from ndactors.core.specs import Secrets
from ndactors.errors import Invalid


class Images:
    def build(self, request, progress):
        self.request = request
        return ImageInfo(id="sha256:1", name="made")


class Contexts:
    closed = 0

    def open(self, app, build, progress):
        return BuildContext(folder="/c", dockerfile="Dockerfile", tree="t")

    def close(self, context) -> None:
        self.closed += 1


def app(*secrets: str) -> App:
    return App(name="shop", build=Build(secrets=secrets), processes={"web": Process(name="web")})


def ready(workshop: Workshop, what: App, **values: str):
    secrets = Secrets(values=values, marks={})
    return prepare(workshop, what, secrets, rebuild=False, pull=False, say=lambda text: None)


def test_build_secrets_may_be_stored_by_another_name():
    images, contexts = Images(), Contexts()
    workshop = Workshop(images=images, contexts=contexts, blobs=None, registries=dict)
    done = ready(workshop, app("TOKEN", "NPM:SHOP_NPM"), TOKEN="one", SHOP_NPM="two", OTHER="three")
    assert done.app.image_id == "sha256:1"
    assert images.request.secrets == {"TOKEN": "one", "NPM": "two"}
    assert contexts.closed == 1


def test_build_secrets_that_are_not_set_are_named_as_they_are_to_be_set():
    workshop = Workshop(images=Images(), contexts=Contexts(), blobs=None, registries=dict)
    with pytest.raises(Invalid, match=r"not set: SHOP_NPM \(nextdeploy secrets shop set NAME\)"):
        ready(workshop, app("NPM:SHOP_NPM"), NPM="two")
