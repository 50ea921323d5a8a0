import pytest

from ndactors.runtime.roles import Arguments


def test_what_is_given():
    arguments = Arguments(
        ["--role=edge", "--state-dir=/a=b", "--workers=2", "--listen-fd=4", "--listen-fd=5", "--http="],
        *("workers", "listen-fd", "http"),
    )
    assert arguments.needed("state-dir") == "/a=b"
    assert arguments.number("workers") == 2 and arguments.numbers("listen-fd") == [4, 5]
    assert arguments.text("http", "x") == "" and arguments.text("other", "x") == "x"
    assert arguments.number("other") is None and arguments.numbers("other") == []


@pytest.mark.parametrize(
    "given", [["--nothing=1"], ["state-dir=/a"], ["--workers"], ["--workers", "2"], ["-w=2"], [""]]
)
def test_what_is_not_understood(given, capsys):
    with pytest.raises(SystemExit) as ended:
        Arguments(given, "workers")
    assert ended.value.code == 2 and "not understood" in capsys.readouterr().err


def test_what_is_missing_or_no_number(capsys):
    arguments = Arguments(["--workers=two", "--first=-1", "--huge=99999999999"], "workers", "first", "huge")
    for call in (
        lambda: arguments.needed("state-dir"),
        lambda: arguments.number("workers"),
        lambda: arguments.numbers("first"),
        lambda: arguments.number("huge"),
    ):
        with pytest.raises(SystemExit):
            call()
    assert capsys.readouterr().err.count("nextdeployd: ") == 4
