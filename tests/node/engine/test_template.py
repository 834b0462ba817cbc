"""Chat templates: the dialect of transformers, in a sandbox with limits."""

import json

import pytest

from node.engine.template import ChatTemplate, read_messages
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
        ("{{ tools is defined }}", "False"),
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
