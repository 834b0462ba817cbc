"""`python -m node forget`: which member is meant, and what happens when nobody answers."""

import pytest

from node.cli import main
from node.cli.forget import Refusal, pick

MEMBERS = [
    {"node": "00000000000000aa", "name": "one"},
    {"node": "00000000000000bb", "name": "two"},
    {"node": "00000000000000cc", "name": "two"},
    {"node": "00000000000000dd", "name": "00000000000000aa"},
]


def test_an_id_goes_before_a_name():
    assert pick(MEMBERS, "00000000000000aa") == "00000000000000aa"
    assert pick(MEMBERS, "one") == "00000000000000aa"


@pytest.mark.parametrize(("node", "said"), [("two", "00000000000000cc"), ("three", "one"), ("", "one")])
def test_a_name_of_several_or_of_nobody_is_refused_with_what_there_is(node, said):
    with pytest.raises(Refusal) as caught:
        pick(MEMBERS, node)
    assert said in caught.value.hint


def test_where_no_node_answers_that_is_said(capsys):
    assert main.main(["forget", "one", "--ops", "127.0.0.1:1"]) == 1
    assert "no node answers at 127.0.0.1:1" in capsys.readouterr().err
