"""From a model's words to tool calls, as they come: a pure machine of text in and events out.

Theory of operation. Models say calls in a few dialects:

    hermes    <tool_call> {"name": "f", "arguments": {...}} </tool_call>, among other words (Hermes, Qwen)
    json      the whole answer is such an object, with `parameters` as good as `arguments` (Llama 3), or a list of
              them (Mistral, and what our grammar makes a model say under `tool_choice: "required"`)
    named     the whole answer is the arguments of the one function that `tool_choice` names

Words that may be the beginning of a call are held back until it is certain; then the name is told and the
arguments as they come, in the model's own spelling. What turns out to be no call is said as it is. A bare
object counts as a call only if it names a function that the request has.
"""

import json

import attrs

OPENING, CLOSING = "<tool_call>", "</tool_call>"
CALL_CHARACTERS_MAX = 2**16
"""Most characters of a would-be call that are held back before it is taken for words."""


@attrs.frozen
class Said:
    """Words that are no call's."""

    text: str


@attrs.frozen
class Called:
    """A call begins."""

    index: int
    name: str


@attrs.frozen
class Argued:
    """More of a call's arguments, as JSON."""

    index: int
    text: str


Event = Said | Called | Argued


@attrs.define
class Scanner:
    """Reads one call's object by the character: its name, and the text of its arguments."""

    name: str | None = None
    arguments: str = ""
    """What of the arguments has been read and not yet taken."""
    argued: bool = False
    """Whether the arguments have begun."""
    done: bool = False
    failed: bool = False
    raw: str = ""
    _depth: int = 0
    _quoted: bool = False
    _escaped: bool = False
    _word: str = ""
    _key: str | None = None
    _at_value: bool = False

    def feed(self, character: str) -> None:
        """Take the next character of the object."""
        self.raw += character
        if self._quoted:
            self._in_string(character)
        elif character in "{[":
            self._open(character)
        elif character in "}]":
            self._close(character)
        elif self._depth > 1:
            self._take(character)
            self._quoted = character == '"'
        elif self._depth == 1:
            self._between(character)
        elif not character.isspace():
            self.failed = True
        self.failed = self.failed or (not self.ready and len(self.raw) > CALL_CHARACTERS_MAX)

    @property
    def ready(self) -> bool:
        """Whether it is certain to be a call."""
        return self.name is not None and self.argued

    @property
    def _arguing(self) -> bool:
        return self._key in ("arguments", "parameters")

    def _take(self, character: str) -> None:
        if self._arguing:
            self.arguments += character

    def _in_string(self, character: str) -> None:
        closes = character == '"' and not self._escaped
        self._escaped = character == "\\" and not self._escaped
        self._quoted = not closes
        if self._depth > 1:
            self._take(character)
        elif not closes:
            self._word += character
        else:
            self._string(self._word)
            self._word = ""

    def _string(self, raw: str) -> None:
        """A string at the object's own level is complete: a key, the name, or arguments that are quoted JSON."""
        try:
            text = json.loads(f'"{raw}"', strict=False)
        except ValueError:
            self.failed = True
            return
        if not self._at_value:
            self._key = text
        elif self._key == "name":
            self.name = text
        elif self._arguing:
            self.argued = True
            self.arguments += text

    def _open(self, character: str) -> None:
        if self._depth == 0 and character != "{":
            self.failed = True
        if self._depth == 1 and self._arguing:
            self.argued = True
        if self._depth >= 1:
            self._take(character)
        self._depth += 1

    def _close(self, character: str) -> None:
        self._depth -= 1
        if self._depth >= 1:
            self._take(character)
        elif not self.ready:
            self.failed = True
        else:
            self.done = True

    def _between(self, character: str) -> None:
        """Take what stands between the parts of the object itself."""
        if character == '"':
            self._quoted = True
        elif character == ":":
            self._at_value = True
        elif character == ",":
            self._at_value, self._key = False, None
        elif not character.isspace() and self._arguing and self._at_value:
            self.argued = True
            self.arguments += character


@attrs.define
class Reader:
    """One choice's words. `names`: the functions that the request has; `named`: the one that must be called."""

    names: frozenset[str]
    named: str = ""
    calls: int = attrs.field(init=False, default=0)
    """Calls that have begun."""
    _held: str = attrs.field(init=False, default="")
    _scanner: Scanner | None = attrs.field(init=False, default=None)
    _told: bool = attrs.field(init=False, default=False)
    """Whether the present call has been told of."""
    _tagged: bool = attrs.field(init=False, default=False)
    """Whether the present call stands between tags."""
    _listed: bool = attrs.field(init=False, default=False)
    """Whether the answer is a list of calls."""
    _fresh: bool = attrs.field(init=False, default=True)
    """Whether nothing but white space has been said."""

    def feed(self, text: str) -> list[Event]:
        """Take more words; return what is certain now."""
        if self.named:
            begun = [] if self.calls or not text else [Called(0, self.named)]
            self.calls = self.calls or len(begun)
            return [*begun, *([Argued(0, text)] if text else [])]
        return _joined([event for character in text for event in self._feed(character)])

    def finish(self) -> list[Event]:
        """Return what was held back, now that no more words come."""
        events: list[Event] = []
        if self._scanner is not None and not self._told:
            events = self._give_up()
        within = self._scanner is not None or (self._listed and self.calls > 0)
        return _joined([*events, *([] if within else self._say(len(self._held)))])

    def _feed(self, character: str) -> list[Event]:
        if self._scanner is not None:
            return self._scan(self._scanner, character)
        self._held += character
        if self._listed:
            return self._in_list(character)
        if self._fresh and self._held.strip() in ("{", "["):
            self._fresh = False
            return self._begin_bare(character)
        return self._free()

    def _begin_bare(self, character: str) -> list[Event]:
        if character == "[":
            self._listed = True
            return []
        self._begin()
        return []

    def _begin(self) -> None:
        """A call's object has begun with the last character held."""
        self._scanner, self._told = Scanner(), False
        self._scanner.feed("{")

    def _in_list(self, character: str) -> list[Event]:
        if character == "{":
            self._begin()
        elif character == "]" and self.calls:
            self._listed, self._held = False, ""
        elif not character.isspace() and character not in ",[":
            self._listed = False
            return self._say(len(self._held))
        return []

    def _free(self) -> list[Event]:
        """Words among which a tagged call may begin."""
        stripped = self._held.lstrip()
        if self._tagged:
            return self._in_tag(stripped)
        at = self._held.find(OPENING)
        if at >= 0:
            said = self._say(at)
            self._tagged, self._fresh = True, False
            return said
        if self._fresh and not stripped:
            return []
        self._fresh = False
        return self._say(len(self._held) - _overlap(self._held, OPENING))

    def _in_tag(self, held: str) -> list[Event]:
        """Between tags: the held text is the opening tag and what follows, or what follows a call."""
        rest = held.removeprefix(OPENING).lstrip()
        if rest == "{":
            self._begin()
        elif rest.endswith(CLOSING):
            self._tagged, self._held = False, ""
        elif rest and not CLOSING.startswith(rest):
            self._tagged = False
            return self._say(len(self._held))
        return []

    def _scan(self, scanner: Scanner, character: str) -> list[Event]:
        scanner.feed(character)
        if scanner.failed and not self._told:
            return self._give_up()
        if not self._told and not (scanner.ready and (self._tagged or scanner.name in self.names)):
            return self._give_up() if scanner.done or scanner.ready else []
        events = self._tell(scanner)
        if scanner.done or scanner.failed:
            self._scanner, self._held, self._fresh = None, "", True
        return events

    def _tell(self, scanner: Scanner) -> list[Event]:
        events: list[Event] = []
        if not self._told:
            self._told = True
            self.calls += 1
            events.append(Called(self.calls - 1, scanner.name or ""))
        text, scanner.arguments = scanner.arguments, ""
        return [*events, Argued(self.calls - 1, text)] if text else events

    def _give_up(self) -> list[Event]:
        """What was taken for a call is none: say it."""
        assert self._scanner is not None
        self._held += self._scanner.raw[1:]
        self._scanner, self._tagged, self._listed = None, False, False
        return self._say(len(self._held))

    def _say(self, count: int) -> list[Event]:
        """Say the first of what is held; white space after a call is nothing."""
        said, self._held = self._held[:count], self._held[count:]
        return [Said(said)] if said and (said.strip() or not self.calls) else []


def _overlap(text: str, word: str) -> int:
    """Return how many of the last characters of `text` may begin `word`."""
    return next((n for n in range(min(len(text), len(word) - 1), 0, -1) if word.startswith(text[-n:])), 0)


def _joined(events: list[Event]) -> list[Event]:
    """Join neighbours of the same kind."""
    joined: list[Event] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, Said) and isinstance(last, Said):
            joined[-1] = Said(last.text + event.text)
        elif isinstance(event, Argued) and isinstance(last, Argued) and last.index == event.index:
            joined[-1] = Argued(event.index, last.text + event.text)
        else:
            joined.append(event)
    return joined
