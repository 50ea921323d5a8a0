"""NextDeploy: one daemon that runs, serves and watches the apps of one nextdeploy.yml."""

__version__ = "0.1.0"
