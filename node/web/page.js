// The chat page: asks this node for tokens, shows them as they come, and shows who computes them.
"use strict";

const $ = (id) => document.getElementById(id);
const MESH_EVERY_MS = 2000;

// ember-py learned the standard library with each file's path as its first line.
const SAMPLES = {
  "Lib/json/tool.py": '# Lib/json/tool.py\nimport argparse\nimport json\nimport sys\n\n\ndef main():\n',
  "Lib/heapq.py": '# Lib/heapq.py\ndef heappush(heap, item):\n    """Push item onto heap, maintaining the heap invariant."""\n',
  "Lib/test/test_queue.py": '# Lib/test/test_queue.py\nimport queue\nimport threading\nimport unittest\n\n\nclass QueueTest(unittest.TestCase):\n',
  "Lib/http/client.py": '# Lib/http/client.py\nclass HTTPConnection:\n\n    def __init__(self, host, port=None,',
};
const EMPTY = {
  code: "Pick an example or write the start of a Python file; the model goes on from there.",
  chat: "Say something. (The embedded model ember-py completes code and cannot chat: load one with --model for that.)",
};

const state = { mode: "code", turns: [], drafts: { code: SAMPLES["Lib/json/tool.py"], chat: "" }, abort: null, worker: "" };

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// -- asking ---------------------------------------------------------------------------------------

function number(id) {
  const text = $(id).value.trim();
  return text === "" ? undefined : Number(text);
}

function request(text) {
  const body = {
    model: $("model").value, stream: true, stream_options: { include_usage: true },
    temperature: number("temperature"), max_tokens: number("max_tokens"), seed: number("seed"),
  };
  if (state.mode === "code") return ["/v1/completions", { ...body, prompt: text }];
  return ["/v1/chat/completions", { ...body, messages: [...state.turns, { role: "user", content: text }] }];
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) yield part.slice(6);
  }
}

async function run() {
  const text = $("prompt").value;
  if (state.abort || !text.trim() || !$("model").value) return;
  const answer = begin(text);
  state.abort = new AbortController();
  refresh();
  try {
    const [path, body] = request(text);
    const response = await fetch(path, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal: state.abort.signal,
    });
    if (!response.ok) throw new Error(await reason(response));
    answer.accepted(response);
    for await (const data of events(response)) {
      if (data === "[DONE]") { answer.whole = true; break; }
      answer.take(JSON.parse(data));
    }
    if (!answer.whole) throw new Error("the connection ended before the answer did");
  } catch (error) {
    if (error.name !== "AbortError") answer.fail(error.message);
  }
  answer.end();
  state.abort = null;
  refresh();
}

async function reason(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the node answered ${response.status}`;
  }
}

// -- showing --------------------------------------------------------------------------------------

function begin(text) {
  const output = $("output"), chat = state.mode === "chat";
  if (!chat || !state.turns.length) output.replaceChildren();
  if (chat) {
    turn("you", text);
    $("prompt").value = "";
  } else {
    output.append(element("span", "prompt", text));
  }
  const target = element("span", "busy");
  (chat ? turn("model", "") : output).append(target);
  for (const id of ["f-worker", "f-moves", "f-tokens", "f-rate", "f-first"]) figure(id, "–");
  $("f-moves").className = "";
  return new Answer(text, target, chat);
}

function turn(who, text) {
  const made = element("p", "turn", text);
  made.prepend(element("b", "", who));
  $("output").append(made);
  return made;
}

function figure(id, text) {
  $(id).textContent = text;
}

class Answer {
  constructor(prompt, target, chat) {
    Object.assign(this, { prompt, target, chat, text: "", moves: 0, worker: "", first: 0, whole: false });
    this.began = performance.now();
  }

  accepted(response) {
    figure("f-entry", response.headers.get("x-inferno-node"));
    this.serve(response.headers.get("x-inferno-worker"), 0);
  }

  take(event) {
    if (event.error) throw new Error(event.error.message);
    if (event.usage) figure("f-tokens", event.usage.completion_tokens);
    for (const choice of event.choices) {
      if (event.inferno && event.inferno.worker) this.serve(event.inferno.worker, event.inferno.moves);
      this.write(choice.delta ? choice.delta.content || "" : choice.text);
      if (event.inferno && event.inferno.tokens) this.count(event.inferno.tokens);
    }
  }

  write(text) {
    if (!text) return;
    const output = $("output"), follow = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
    this.text += text;
    this.target.append(text);
    if (follow) output.scrollTop = output.scrollHeight;
  }

  count(tokens) {
    const now = performance.now();
    if (!this.first) {
      Object.assign(this, { first: now, before: tokens });
      figure("f-first", `${Math.round(now - this.began)} ms`);
    } else if (tokens > this.before) {
      figure("f-rate", ((tokens - this.before) / Math.max(0.001, (now - this.first) / 1000)).toFixed(1));
    }
    figure("f-tokens", tokens);
  }

  serve(worker, moves) {
    if (moves > this.moves) {
      const mark = element("span", "move", `↪ moved from ${this.worker} to ${worker}`);
      mark.title = "This stream's worker was lost; another went on from the same token.";
      this.target.append(mark);
      $("f-moves").className = "moved";
    }
    Object.assign(this, { worker, moves });
    if (state.worker !== worker) { state.worker = worker; mesh(); }
    figure("f-worker", worker);
    figure("f-moves", moves);
  }

  fail(message) {
    this.target.append(element("span", "failed", message));
    this.failed = true;
  }

  end() {
    this.target.classList.remove("busy");
    state.worker = "";
    if (this.chat && !this.failed) {
      state.turns.push({ role: "user", content: this.prompt }, { role: "assistant", content: this.text });
    }
  }
}

function refresh() {
  const busy = state.abort !== null;
  $("run").disabled = busy || !$("model").value;
  $("stop").disabled = !busy;
  $("output").setAttribute("aria-busy", String(busy));
}

function clear() {
  stop();
  state.turns = [];
  $("prompt").value = "";
  $("output").replaceChildren(element("p", "quiet", EMPTY[state.mode]));
  $("prompt").focus();
}

function stop() {
  if (state.abort) state.abort.abort();
}

function choose(mode) {
  stop();
  state.drafts[state.mode] = $("prompt").value;
  Object.assign(state, { mode, turns: [] });
  for (const name of ["code", "chat"]) {
    $(`tab-${name}`).setAttribute("aria-selected", String(name === mode));
    $(`tab-${name}`).tabIndex = name === mode ? 0 : -1;
  }
  $("form").className = mode;
  $("form").setAttribute("aria-labelledby", `tab-${mode}`);
  $("samples").hidden = mode !== "code";
  $("prompt-label").textContent = mode === "code" ? "Code to go on from" : "Your message";
  $("run").textContent = mode === "code" ? "Complete" : "Send";
  $("prompt").rows = mode === "code" ? 7 : 3;
  $("prompt").value = state.drafts[mode];
  $("output").replaceChildren(element("p", "quiet", EMPTY[mode]));
}

// -- the mesh -------------------------------------------------------------------------------------

async function mesh() {
  try {
    const [seen, models] = await Promise.all(["/v1/mesh", "/v1/models"].map(async (path) => (await fetch(path)).json()));
    figure("entry", `through ${seen.name}, a mesh of ${seen.members.filter((one) => one.state === "alive").length}`);
    figure("f-entry", seen.name);
    showModels(models.data);
    showMembers(seen.members, seen.name);
    notice(seen.ready ? "" : `No model is ready yet: ${seen.why}. This page will notice when one is.`);
  } catch {
    figure("entry", "this node does not answer");
    notice("This node does not answer. If it was stopped, open the page of another one.");
  }
}

function notice(text) {
  if ($("notice").textContent !== text) $("notice").textContent = text;
  $("notice").hidden = !text;
}

function showModels(models) {
  const select = $("model"), names = models.map((model) => model.id);
  const shown = [...select.options].map((option) => option.value);
  if (names.join("\n") !== shown.join("\n")) {
    const chosen = select.value;
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(chosen)) select.value = chosen;
  }
  refresh();
}

function showMembers(members, entry) {
  $("members").replaceChildren(...members.map((member) => {
    const row = element("li", member.state), serving = member.name === state.worker;
    if (serving) row.classList.add("serving");
    const where = element("span", "where quiet");
    const open = element("a", "", member.http);
    open.href = `http://${member.http}/`;
    where.append(member.name === entry || !member.http ? member.http || "no clients" : open);
    const notes = { answering: serving, "this page": member.name === entry, quarantined: member.quarantined, draining: member.draining };
    for (const [note, holds] of Object.entries(notes)) if (holds) where.append(` · ${note}`);
    row.append(element("span", "dot"), element("strong", "", member.name), element("span", "quiet", member.state), where);
    return row;
  }));
}

// -- start ----------------------------------------------------------------------------------------

for (const [name, text] of Object.entries(SAMPLES)) {
  const button = element("button", "", name);
  button.type = "button";
  button.addEventListener("click", () => { $("prompt").value = text; $("prompt").focus(); });
  $("samples").append(button);
}
$("form").addEventListener("submit", (event) => { event.preventDefault(); run(); });
$("stop").addEventListener("click", stop);
$("clear").addEventListener("click", clear);
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") stop(); });
for (const [name, other] of [["code", "chat"], ["chat", "code"]]) {
  $(`tab-${name}`).addEventListener("click", () => choose(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") { choose(other); $(`tab-${other}`).focus(); }
  });
}
$("prompt").value = state.drafts.code;
choose("code");
mesh();
setInterval(() => { if (!document.hidden) mesh(); }, MESH_EVERY_MS);
