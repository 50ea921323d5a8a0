from ndactors.runtime.silence import Silences
from ndactors.runtime.tree import ActorNode


def node(name, mailbox=0, handled=0, state="running", children=()):
    return ActorNode(
        name=name,
        cls="A",
        state=state,
        mailbox=mailbox,
        handled=handled,
        dropped=0,
        restarts=0,
        children=tuple(children),
    )


def test_one_that_hangs_is_silent_for_longer_and_longer():
    silences = Silences()
    tree = node("root", children=[node("a", mailbox=3, handled=7), node("b", handled=7)])
    assert silences.look(tree, 100.0) == {"a": 0.0}
    assert silences.look(tree, 170.0) == {"a": 70.0}


def test_one_that_works_is_not():
    silences = Silences()
    for handled in range(5):
        found = silences.look(node("root", children=[node("a", mailbox=3, handled=handled)]), handled * 100.0)
        assert found == {"a": 0.0}


def test_one_that_rests_between_is_not():
    silences = Silences()
    silences.look(node("root", mailbox=1, handled=1), 0.0)
    assert silences.look(node("root", mailbox=0, handled=1), 50.0) == {}
    assert silences.look(node("root", mailbox=1, handled=1), 100.0) == {"root": 0.0}


def test_one_that_is_to_be_restarted_is_told_of_otherwise():
    assert Silences().look(node("root", mailbox=1, state="waiting"), 0.0) == {}
