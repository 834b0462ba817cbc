"""What a request may say: each field's range, each unbuilt field by name, each bound of the JSON."""

import json
import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import grammar
from mesh.attempt import Segment
from node.errors import RequestError
from node.http import document, limits, schema
from node.http.seeds import choice_seed

TEXT = {"model": "m", "prompt": "p"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def refusal(document_: dict, api: str = "completion") -> RequestError:
    with pytest.raises(RequestError) as caught:
        getattr(schema, api)(document_)
    return caught.value


def test_the_least_request_has_the_defaults():
    ask = schema.completion(TEXT)
    assert (ask.model, ask.prompts, ask.n, ask.seed) == ("m", (Segment("text", "p"),), 1, None)
    assert (ask.stream, ask.include_usage, ask.echo, ask.chat) == (False, False, False, False)
    assert attrs.asdict(ask.parameters) == {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "typical_p": 1.0,
        "bad_words": (),
        "prompt_logprobs": None,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "logit_bias": (),
        "logprobs": None,
        "max_tokens": 16,
        "min_tokens": 0,
        "stop": (),
        "stop_ids": (),
        "ignore_eos": False,
        "add_special_tokens": True,
        "echo": False,
    }


def test_a_chat_goes_on_until_the_model_ends_it():
    ask = schema.chat(CHAT)
    assert (ask.chat, ask.parameters.max_tokens, ask.parameters.add_special_tokens) == (True, None, False)
    assert ask.prompts == (Segment("messages", '{"messages":[{"role":"user","content":"hi"}]}'),)


def test_every_parameter_is_taken():
    given_ = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "frequency_penalty": -2,
        "presence_penalty": 2,
        "repetition_penalty": 1.1,
        "logit_bias": {"17": -100},
        "max_tokens": 9,
        "min_tokens": 3,
        "stop": ["a", "b"],
        "stop_token_ids": [4],
        "ignore_eos": True,
        "add_special_tokens": False,
        "logprobs": 5,
        "typical_p": 0.5,
        "bad_words": ["no"],
    }
    parameters = attrs.asdict(schema.completion({**TEXT, **given_, "user": "u"}).parameters)
    expected = {**given_, "logit_bias": ((17, -100.0),), "stop": ("a", "b"), "stop_ids": (4,), "echo": False}
    expected |= {"bad_words": ("no",), "prompt_logprobs": None}
    assert parameters == {key: value for key, value in expected.items() if key != "stop_token_ids"}


@pytest.mark.parametrize(
    ("prompt", "segments"),
    [
        ("x", [("text", "x", ())]),
        ([1, 2], [("ids", "", (1, 2))]),
        (["x", "y"], [("text", "x", ()), ("text", "y", ())]),
        ([[1], [2, 3]], [("ids", "", (1,)), ("ids", "", (2, 3))]),
        (["x", [1]], [("text", "x", ()), ("ids", "", (1,))]),
    ],
)
def test_the_forms_of_a_prompt(prompt: object, segments: list[tuple]):
    assert [attrs.astuple(one) for one in schema.completion({**TEXT, "prompt": prompt}).prompts] == segments


@pytest.mark.parametrize("seed", [0, -1, -(2**63), 2**63, 2**64 - 1])
def test_a_seed_is_taken_modulo_two_to_the_64(seed: int):
    assert schema.completion({**TEXT, "seed": seed}).seed == seed % 2**64


def test_null_is_as_good_as_absent():
    rows = [name for name, row in schema.FIELDS.items() if row.completions and name not in TEXT]
    nulls = dict.fromkeys([*rows, *schema.UNBUILT])
    assert schema.completion({**TEXT, **nulls}) == schema.completion(TEXT)


TEXTS = ["", 1, [], {}, "x" * (2**18 + 1)]
GRAMMARS = {
    "response_format": [
        1,
        "json",
        {},
        {"type": "xml"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "a"}},
        {"type": "json_schema", "json_schema": {"schema": "{"}},
        {"type": "json_schema", "json_schema": {"schema": {"enum": ["x" * 2**18]}}},
        {"type": "regex", "regex": 1},
    ],
    "structured_outputs": [1, {}, {"regex": "a", "json": {}}, {"regex": 1}, {"choice": []}],
    "guided_json": ["{", 1, [], "1"],
    "guided_regex": TEXTS,
    "guided_choice": [[], "a", [1], [""], ["a"] * 1025],
    "guided_grammar": TEXTS,
    "regex": TEXTS,
    "ebnf": TEXTS,
    "grammar": TEXTS,
}

BAD = {
    "model": ["", 1, "x" * 257, [], True],
    "prompt": ["", [], [[]], [""], [-1], [1, "a"], [1.5], [True], {}, 7, [2**32], ["x"] * 65, [["a"]]],
    "n": [0, 9, -1, 1.0, "1", True],
    "stream": ["true", 1],
    "resumable": ["true", 1],
    "stream_options": [1, [], {"include_usage": 1}],
    "max_tokens": [0, -1, 2**32, 1.5, "9"],
    "min_tokens": [-1, 17],
    "temperature": [-0.1, 2.1, "1", True, [1]],
    "top_p": [0, 1.1, -1],
    "top_k": [-2, 1.5],
    "min_p": [-0.1, 1.1],
    "frequency_penalty": [-2.1, 2.1],
    "presence_penalty": [-2.1, 2.1],
    "repetition_penalty": [0, 1e-300, 2.1],
    "logit_bias": [[], {"a": 1}, {"-1": 1}, {"1": 101}, {"1": "x"}, {str(2**32): 1}, {"\u0661": 1}],
    "seed": [2**64, -(2**63) - 1, 1.5, "1"],
    "stop": [1, "", [""], ["a"] * 17, "x" * 1025, [1]],
    "stop_token_ids": [1, [-1], [0] * 17],
    "logprobs": [-1, 21, True, "1"],
    "echo": [1],
    "ignore_eos": ["yes"],
    "add_special_tokens": [0],
    "user": [1, "x" * 257],
    "typical_p": [0, 1.1, -1, "1"],
    "prompt_logprobs": [-1, 21, True, "1"],
    "bad_words": ["a", [""], [1], ["x" * 257], ["a"] * 65],
    **GRAMMARS,
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_a_bad_value_is_refused_by_the_fields_name(name: str, value: object):
    error = refusal({**TEXT, name: value})
    assert (error.code, error.param.split("[")[0].split(".")[0]) == ("invalid_request", name)
    assert f"`{name}" in error.message


def test_every_field_of_completions_has_bad_values_here():
    assert {name for name, row in schema.FIELDS.items() if row.completions} == set(BAD)


def ask_for(name: str) -> object:
    """A value of an unbuilt field that asks for something."""
    return {"parallel_tool_calls": 1, "store": True, "n": 2}.get(name, {"x": "y"})


@pytest.mark.parametrize("name", schema.UNBUILT)
@pytest.mark.parametrize("api", ["completion", "chat"])
def test_what_is_not_built_is_refused_by_name(name: str, api: str):
    error = refusal({**(CHAT if api == "chat" else TEXT), name: ask_for(name)}, api)
    assert (error.code, error.param) == ("unsupported_parameter", name)
    assert f"`{name}`" in error.message


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, vs in schema.UNBUILT.items() for v in vs])
def test_what_is_not_built_may_be_asked_for_nothing(name: str, value: object):
    assert schema.chat({**CHAT, name: value}) == schema.chat(CHAT)


def test_an_unknown_field_is_refused_with_a_guess():
    error = refusal({**TEXT, "max_token": 3})
    assert (error.code, error.param) == ("unsupported_parameter", "max_token")
    assert "hint: `max_tokens`" in error.message


def test_a_field_that_nobody_knows_is_ignored_and_named():
    ask = schema.completion({**TEXT, "ordering_of_moons": {"a": 1}, "zz": None})
    assert ask.ignored == ("ordering_of_moons", "zz")
    assert attrs.evolve(ask, ignored=()) == schema.completion(TEXT)


def test_best_of_is_refused_with_what_to_do():
    assert "ask for `n` answers" in refusal({**TEXT, "best_of": 3}).message
    assert schema.completion({**TEXT, "best_of": 1}) == schema.completion(TEXT)


@pytest.mark.parametrize(
    ("api", "name"),
    [("completion", "messages"), ("chat", "prompt"), ("chat", "echo"), ("completion", "top_logprobs")],
)
def test_a_field_of_the_other_api_is_refused(api: str, name: str):
    assert refusal({**(CHAT if api == "chat" else TEXT), name: 1}, api).code == "unsupported_parameter"


@pytest.mark.parametrize(
    ("api", "name"), [("completion", "prompt"), ("completion", "model"), ("chat", "messages")]
)
def test_what_must_be_there_is_missed_by_name(api: str, name: str):
    document_ = {key: value for key, value in (CHAT if api == "chat" else TEXT).items() if key != name}
    assert refusal(document_, api).message == f"`{name}` is missing"


def test_choices_are_bounded_together():
    assert refusal({**TEXT, "prompt": ["x"] * 9, "n": 8}).param == "n"
    assert len(schema.completion({**TEXT, "prompt": ["x"] * 8, "n": 8}).prompts) == 8


def test_echo_is_refused_where_it_needs_the_model():
    assert refusal({**TEXT, "echo": True, "prompt": [1]}).param == "echo"
    asked = schema.completion({**TEXT, "echo": True, "logprobs": 3})
    assert asked.parameters.prompt_logprobs == 3
    assert schema.completion({**TEXT, "echo": True}).echo


def test_the_logprobs_of_a_chat():
    def asked(**more: object) -> int | None:
        return schema.chat({**CHAT, **more}).parameters.logprobs

    assert [asked(), asked(logprobs=False), asked(logprobs=True), asked(logprobs=True, top_logprobs=3)] == [
        None,
        None,
        0,
        3,
    ]
    for bad in ({"top_logprobs": 1}, {"logprobs": 1}, {"logprobs": True, "top_logprobs": 21}):
        assert refusal({**CHAT, **bad}, "chat").code == "invalid_request"


def test_max_completion_tokens_is_max_tokens():
    assert schema.chat({**CHAT, "max_completion_tokens": 5}).parameters.max_tokens == 5


BAD_MESSAGES = [
    "hi",
    [],
    [1],
    [{}],
    [{"role": "function", "content": "x"}],
    [{"role": "user"}],
    [{"role": "user", "content": 1}],
    [{"role": "user", "content": [1]}],
    [{"role": "user", "content": [{"type": "text"}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}],
    [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}],
    [{"role": "user", "content": "x", "name": 3}],
    [{"role": "user", "content": "x"}] * (limits.MESSAGES_MAX + 1),
]


@pytest.mark.parametrize("messages", BAD_MESSAGES, ids=range(len(BAD_MESSAGES)))
def test_bad_messages_are_refused(messages: object):
    assert refusal({"model": "m", "messages": messages}, "chat").param.startswith("messages")


def test_the_text_parts_of_a_message_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    ask = schema.chat(
        {"model": "m", "messages": [{"role": "system", "content": parts, "name": "x", "refusal": None}]}
    )
    assert json.loads(ask.prompts[0].text) == {"messages": [{"role": "system", "content": "ab", "name": "x"}]}


BAD_JSON = {
    b"": "expecting value",
    b"{": "expecting",
    b"[]": "an object is wanted",
    b'{"a": NaN}': "`NaN` is no JSON number",
    b'{"a": Infinity}': "`Infinity`",
    b'{"a": 1, "a": 2}': "the key `a` stands twice",
    b'{"a": {"b": 1, "b": 2}}': "the key `b` stands twice",
    b'{"a": "\xff"}': "not UTF-8",
    b"\xff\xfe{\x00}\x00": "not UTF-8",
    b'{"a": "\\ud800"}': "surrogate",
    b'{"a": 123456789012345678901}': "more than 20 digits",
    b'{"a": ' + b"9" * 5000 + b"}": "more than 20 digits",
    b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}": "deeper than 64",
    b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}": "deeper than 64",
    b'{"a": ' * 65 + b"1" + b"}" * 65: "deeper than 64",
    json.dumps({str(n): 1 for n in range(1025)}).encode(): "more than 1024 keys",
    b'{"a": "\n"}': "invalid control character",
}


@pytest.mark.parametrize("body", BAD_JSON, ids=range(len(BAD_JSON)))
def test_bad_json_is_refused_with_the_reason(body: bytes):
    with pytest.raises(RequestError, match=re.escape(BAD_JSON[body])) as caught:
        document.read(body)
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(
    "body", [b'{"a": ' + b"[" * 63 + b"]" * 63 + b"}", b'{"a": "[[[[' + b"[" * 99 + b'"}']
)
def test_what_is_just_within_the_depth_is_taken(body: bytes):
    assert document.read(body)["a"]


def test_a_whole_surrogate_pair_is_a_character():
    assert document.read(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists), max_size=4))
def test_any_json_is_read_or_refused(value: dict):
    try:
        assert document.read(json.dumps(value).encode()) == value
    except RequestError as error:
        assert error.code == "invalid_request"


@given(
    st.dictionaries(
        st.sampled_from([*schema.FIELDS, *schema.UNBUILT, "x"]),
        st.sampled_from([None, 0, 1, -1, 0.5, "a", [], ["a"], [1], {}, True]),
    )
)
def test_any_document_is_an_ask_or_a_typed_error(document_: dict):
    for api in (schema.chat, schema.completion):
        try:
            assert api(document_).model
        except RequestError as error:
            assert error.status == 400


def test_seeds_of_choices():
    """Choice 0 has the seed itself; the others are SplitMix64, whose first outputs for seed 0 are published."""
    assert [choice_seed(0, i) for i in range(4)] == [
        0, 0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F,
    ]  # fmt: skip
    assert all(0 <= choice_seed(2**64 - 1, i) < 2**64 for i in range(8))


SCHEMA = {"type": "object", "properties": {"z": {}, "a": {}}}


@pytest.mark.parametrize(
    ("field", "value", "kind", "what"),
    [
        ("response_format", {"type": "json_object"}, "json", {"type": "object"}),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
            "json",
            SCHEMA,
        ),
        ("response_format", {"type": "regex", "regex": "a+"}, "regex", "a+"),
        ("structured_outputs", {"json_object": True}, "json", {"type": "object"}),
        ("structured_outputs", {"choice": ["a", "b"], "regex": None}, "choice", ["a", "b"]),
        ("guided_json", json.dumps(SCHEMA), "json", SCHEMA),
        ("guided_regex", "a+", "regex", "a+"),
        ("guided_grammar", "root ::= x", "gbnf", "root ::= x"),
        ("grammar", "start: x", "lark", "start: x"),
        ("ebnf", "root ::= x", "gbnf", "root ::= x"),
    ],
)
def test_every_spelling_of_a_grammar_is_read(field: str, value: object, kind: str, what: object):
    source = schema.chat({**CHAT, field: value}).grammar
    assert grammar.read(source) == (kind, what)
    assert json.dumps(grammar.read(source)[1]) == json.dumps(what), (
        "the order of keys is the order of the output"
    )


def test_free_text_has_no_grammar():
    assert schema.chat({**CHAT, "response_format": {"type": "text"}}).grammar == b""


def test_two_grammars_are_one_too_many():
    error = refusal({**TEXT, "regex": "a", "guided_json": {}})
    assert (error.code, error.param) == ("invalid_request", "regex")
    assert "`guided_json`" in error.message
