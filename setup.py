"""How the daemon is installed: `pip install .` gives the commands `nextdeployd` (the daemon) and `nextdeploy` (the client)."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = (HERE / "ndactors" / "__init__.py").read_text().split('__version__ = "')[1].split('"')[0]

setup(
    name="nextdeploy",
    version=VERSION,
    description="One daemon that runs, serves and watches the apps of one nextdeploy.yml",
    python_requires=">=3.11",
    packages=find_packages(include=["ndactors", "ndactors.*", "web", "web.*"]),
    package_data={"web": ["templates/*", "static/*"], "ndactors.cli": ["templates/*"]},
    install_requires=[line.replace("==", ">=") for line in (HERE / "requirements.txt").read_text().split()],
    extras_require={"s3": ["boto3>=1.44.8"], "notify": ["apprise>=2.3.0"]},
    entry_points={
        "console_scripts": ["nextdeployd = ndactors.__main__:main", "nextdeploy = ndactors.cli.main:main"],
    },
)
