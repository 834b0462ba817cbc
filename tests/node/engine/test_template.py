"""Chat templates: the dialect of transformers, in a sandbox with limits."""

import json

import pytest

from node.engine.template import ChatTemplate, read_conversation, read_messages
from node.engine.text import TextError

NOON = 1_700_000_000
CHATML = (
    "{% for message in messages %}\n"
    "    {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\n"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}\n"
    "{{ '<|im_start|>assistant\\n' }}"
    "{% endif %}"
)
USER = [{"role": "user", "content": "hi"}]


def render(source: str, messages=USER, **names: str) -> str:
    return ChatTemplate.compile(source, names).render(messages, NOON)


def test_a_template_in_wide_use():
    assert render(CHATML) == "    <|im_start|>user\nhi<|im_end|>\n\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0].content }}", "<s>hi"),
        ("{{ strftime_now('%d %b %Y') }}", "14 Nov 2023"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "hi"}]'),
        ("{{ {'é': 1} | tojson(indent=1) }}", '{\n "é": 1\n}'),
        ("{% for n in range(9) %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}", "01"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "hi!"),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "1",
        ),
        ("{{ tools is defined }} {{ tools is none }} {{ documents is none }}", "True True True"),
    ],
)
def test_the_dialect(source: str, text: str):
    assert render(source, bos_token="<s>") == text


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content + 1 }}", "str"),
        ("{{ messages[9].content }}", "has no"),
        ("{{ messages.append(1) }}", "not safely callable|unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for n in range(200000) %}{% endfor %}", "Range|ranges count"),
        ("{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}", "ranges count"),
        ("{{ 'x' * 99999999 }}", "more than 1048576"),
        ("{{ 9 ** 99999999 }}", "exponent"),
        ("{% set s = 'x' * 99999 %}{% for n in range(999) %}{{ s }}{% endfor %}", "wrote more than"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)
def test_what_goes_wrong_in_a_template_is_the_requests_fault(source: str, words: str):
    with pytest.raises(TextError, match=words) as refused:
        render(source)
    assert refused.value.param == "messages"


def test_a_budget_of_ranges_is_for_one_rendering():
    template = ChatTemplate.compile("{% for n in range(100000) %}{% endfor %}x", {})
    assert [template.render(USER, NOON) for _ in range(3)] == ["x"] * 3


@pytest.mark.parametrize("source", ["{% for %}", "{{ 1", "x" * (2**20 + 1)])
def test_a_broken_template_is_found_when_it_is_compiled(source: str):
    with pytest.raises(ValueError, match="chat template"):
        ChatTemplate.compile(source, {})


def test_parts_of_text_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    (message,) = read_messages(json.dumps({"messages": [{"role": "user", "content": parts, "name": "n"}]}))
    assert message == {"role": "user", "content": "a\nb", "name": "n"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"messages": []}', "at least one"),
        ('{"messages": [1]}', "objects?"),
        ('{"messages": [{"content": "a"}]}', r"`messages\[0\].role`"),
        ('{"messages": [{"role": "user", "content": 1}]}', r"`messages\[0\].content`"),
        ('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "`image_url`"),
        ('{"messages": [{"role": "user", "content": [3]}]}', "`3`"),
    ],
)
def test_messages_that_are_none(text: str, words: str):
    with pytest.raises(TextError, match=words):
        read_messages(text)


TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def converse(source: str, document: dict) -> str:
    return ChatTemplate.compile(source, {}).converse(read_conversation(json.dumps(document)), NOON)


def test_tools_are_the_templates_to_render():
    source = "{% for tool in tools %}[{{ tool.function.name }}]{% endfor %}{{ messages[0].content }}"
    assert converse(source, {"messages": USER, "tools": [TOOL]}) == "[find]hi"


def test_a_template_that_knows_no_tools_is_told_of_them_in_words():
    history = [
        {"role": "system", "content": "Be kind."},
        *USER,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "find"}}],
        },
        {"role": "tool", "content": "7"},
    ]
    said = converse(CHATML, {"messages": history, "tools": [TOOL]})
    assert "Be kind.\n\nYou may call functions." in said
    assert json.dumps(TOOL) in said
    assert '<tool_call>\n{"name": "find"}\n</tool_call><|im_end|>' in said
    assert "user\n<tool_response>\n7\n</tool_response>" in said


def test_an_answer_begins_unless_it_is_not_wanted():
    assert converse(CHATML, {"messages": USER}).endswith("<|im_start|>assistant\n")
    assert converse(CHATML, {"messages": USER, "add_generation_prompt": False}).endswith("hi<|im_end|>\n\n")


@pytest.mark.parametrize("words", ["So far ", "<|im_end|> odd", "two\nlines\n"])
def test_the_last_message_goes_on_where_it_ends(words: str):
    messages = [*USER, {"role": "assistant", "content": words}]
    said = converse(CHATML, {"messages": messages, "continue_final_message": True})
    assert said == f"    <|im_start|>user\nhi<|im_end|>\n\n    <|im_start|>assistant\n{words}"


def test_a_template_that_changes_the_last_message_cannot_continue_it():
    with pytest.raises(TextError, match="cannot be continued"):
        converse("{{ messages[-1].content[:2] }}", {"messages": USER, "continue_final_message": True})


def test_names_are_given_but_the_models_own_win():
    program = ChatTemplate.compile("{{ thinking }} {{ bos_token }}", {"bos_token": "<s>"})
    document = {"messages": USER, "names": {"thinking": False, "bos_token": "x"}}
    assert program.converse(read_conversation(json.dumps(document)), NOON) == "False <s>"
