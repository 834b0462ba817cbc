"""A model's own text: both families of tokenisers, token by token to the byte."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from mesh.attempt import Attempt, Parameters, Segment
from node.engine.config_hf import ModelError
from node.engine.detokenizer import Detokenizer
from node.engine.text import TextError
from node.engine.tokenizer import TEXT_FILES, ModelText, special_names, text_digest, token_bytes

CORPUS = ["the cat sat on the mat, the dog did not", "un café où l'été", "def f(x):\n    return x\n"] * 3
SPECIAL = ["<s>", "</s>"]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2's: spaces are U+2581, characters without a token fall to bytes."""
    words = [
        "<s>",
        "</s>",
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *"abcdefth",
        "▁t",
        "▁th",
    ]
    vocabulary = {word: id for id, word in enumerate(words)}
    merges = [("▁", "t"), ("▁t", "h")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    stages = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(stages)
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def folder(path: Path, tokenizer: Tokenizer, **files: object) -> Path:
    tokenizer.save(str(path / "tokenizer.json"))
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module", params=[byte_level, byte_fallback])
def text(request, tmp_path_factory) -> ModelText:
    path = tmp_path_factory.mktemp("model")
    return ModelText.load(
        folder(path, request.param(), tokenizer_config={"bos_token": "<s>", "eos_token": "</s>"})
    )


def attempt(*segments: Segment, **parameters) -> Attempt:
    return Attempt("m", segments, Parameters(**parameters), seed=1, rendered_at=1_700_000_000)


def streamed(text: ModelText, ids) -> str:
    detokenizer = Detokenizer()
    return "".join(detokenizer.push(text.piece(id)) for id in ids)


@given(said=st.text(st.sampled_from("the cat é😀\n \x00"), max_size=30))
def test_a_text_survives_its_tokens(text: ModelText, said: str):
    ids = text.encode(attempt(Segment("text", said), add_special_tokens=False))
    assert streamed(text, ids).removeprefix(" ") == said.removeprefix(" ")


@given(said=st.text(max_size=20))
def test_any_text_streams_as_the_library_decodes_it(text: ModelText, said: str):
    ids = text.encode(attempt(Segment("text", said), add_special_tokens=False))
    assert streamed(text, ids).removeprefix(" ") == text.tokenizer.decode(ids).removeprefix(" ")


def test_a_continuation_keeps_its_leading_space(text: ModelText):
    ids = text.encode(attempt(Segment("text", "the the"), add_special_tokens=False))
    assert streamed(text, ids[-1:]) == text.label(ids[-1]).decode()
    assert streamed(text, ids).endswith(" the")


def test_special_tokens_are_not_said_but_have_a_label(text: ModelText):
    (end,) = text.eos_ids
    assert text.piece(end) == b""
    assert text.label(end) == b"</s>"


def test_an_id_without_a_token_says_nothing(text: ModelText):
    assert text.piece(10**6) == b""


def load(path: Path, tokenizer: Tokenizer | None = None, **files: object) -> ModelText:
    return ModelText.load(folder(path, tokenizer or byte_level(), **files))


def test_an_added_token_that_is_not_special_is_said(tmp_path: Path):
    text = load(tmp_path)
    (think,) = text.encode(attempt(Segment("text", "<think>"), add_special_tokens=False))
    assert text.piece(think) == b"<think>"


def test_only_the_first_segment_gets_special_tokens(tmp_path: Path):
    text = load(tmp_path)
    segments = (Segment("text", "a"), Segment("ids", ids=(5, 6)), Segment("text", "a"))
    ids = text.encode(attempt(*segments))
    assert (ids[0], ids[2:4], ids.count(0)) == (0, (5, 6), 1)
    assert text.encode(attempt(*segments, add_special_tokens=False)) == ids[1:]


def test_messages_go_through_the_template_which_adds_special_tokens_itself(tmp_path: Path):
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    text = load(tmp_path, tokenizer_config={"bos_token": {"content": "<s>"}, "chat_template": template})
    ids = text.encode(attempt(Segment("messages", '{"messages": [{"role": "user", "content": "cat"}]}')))
    assert ids[0] == 0
    assert ids.count(0) == 1
    assert streamed(text, ids) == "cat"


def test_the_template_may_be_a_file_or_one_of_several(tmp_path: Path):
    message = Segment("messages", '{"messages": [{"role": "user", "content": "cat"}]}')
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "dog"}]
    text = load(tmp_path, tokenizer_config={"chat_template": named})
    assert streamed(text, text.encode(attempt(message))) == "dog"
    (tmp_path / "chat_template.jinja").write_text("mat")
    text = ModelText.load(tmp_path)
    assert streamed(text, text.encode(attempt(message))) == "mat"


def test_without_a_template_chat_is_refused_and_says_what_to_use(tmp_path: Path):
    with pytest.raises(TextError, match="use /v1/completions") as refused:
        load(tmp_path).encode(
            attempt(Segment("messages", '{"messages": [{"role": "user", "content": "a"}]}'))
        )
    assert refused.value.param == "messages"


@pytest.mark.parametrize("kind", ["text", "messages"])
def test_half_a_surrogate_pair_is_refused(tmp_path: Path, kind: str):
    text = load(tmp_path, tokenizer_config={"chat_template": "{{ messages[0].content }}"})
    said = "\ud800" if kind == "text" else r'{"messages": [{"role": "user", "content": "\ud800"}]}'
    with pytest.raises(TextError, match="no Unicode text"):
        text.encode(attempt(Segment(kind, said)))


def test_a_segment_of_another_kind_is_refused(tmp_path: Path):
    with pytest.raises(TextError, match="`picture`"):
        load(tmp_path).encode(attempt(Segment("picture")))


def test_every_file_may_name_ends(tmp_path: Path):
    text = load(
        tmp_path,
        tokenizer_config={"eos_token": "</s>"},
        generation_config={"eos_token_id": [7, 1]},
        config={"eos_token_id": 9},
    )
    assert text.eos_ids == (1, 7, 9)


def test_special_tokens_are_named_by_text_or_object():
    configured = {
        "bos_token": "<s>",
        "eos_token": {"content": "</s>"},
        "pad_token": None,
        "add_bos_token": True,
    }
    assert special_names(configured) == {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize(
    "decoder", [None, {"type": "WordPiece"}, {"type": "Sequence", "decoders": [{"type": "CTC"}]}]
)
def test_another_decoder_is_refused_by_name(decoder):
    with pytest.raises(ModelError, match=r"WordPiece|CTC|None"):
        token_bytes(decoder)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", None, "does not exist"),
        ("tokenizer.json", "{}", "is no tokeniser"),
        ("tokenizer_config.json", "{", "cannot be read"),
        ("tokenizer_config.json", "[]", "no JSON object"),
        ("chat_template.jinja", "{% for %}", "chat template is broken"),
    ],
)
def test_a_broken_directory_is_an_error_with_a_hint(
    tmp_path: Path, name: str, content: str | None, words: str
):
    path = folder(tmp_path, byte_level()) / name
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(content)
    with pytest.raises(ModelError, match=words) as error:
        ModelText.load(tmp_path)
    assert "hint: " in str(error.value)


def test_a_tokeniser_that_would_truncate_or_pad_does_not(tmp_path: Path):
    tokenizer = byte_level()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    text = load(tmp_path, tokenizer)
    assert streamed(text, text.encode(attempt(Segment("text", "the cat sat")))) == "the cat sat"


def test_the_text_digest_is_the_contents_of_its_files(tmp_path: Path):
    text = load(tmp_path)
    assert len(text.digest) == 64
    assert load(tmp_path).digest == text.digest
    (tmp_path / "README.md").write_text("not read")
    assert text_digest(tmp_path) == text.digest
    seen = {text.digest}
    for name in TEXT_FILES[1:]:
        (tmp_path / name).write_text("{}")
        seen.add(text_digest(tmp_path))
    (tmp_path / TEXT_FILES[-1]).write_text("")
    seen.add(text_digest(tmp_path))
    assert len(seen) == 1 + len(TEXT_FILES)


@pytest.mark.parametrize("configured", [{"eos_token": "\ud800"}, {"\udfff_token": {"content": "a"}}])
def test_a_special_token_that_is_no_text_is_refused(configured: dict[str, object]):
    with pytest.raises(ModelError, match="no Unicode text"):
        special_names(configured)
