// The console: follows a filter, keeps the latest message of each topic, publishes.
//
// Rules:
// 1. What came from a broker is set as text, never as HTML.
// 2. An event changes a Map; the page is touched once a frame, and only where something changed.
// 3. Addresses are relative, so that the page works behind a prefix.

const MAX_TOPICS = 2000;
const MAX_CHARACTERS = 2000;

const find = (id) => document.getElementById(id);
const state = find("state");
const notice = find("notice");
const rows = find("rows");
const outcome = find("outcome");

/** Topic → { message, count, cells }; cells once the row is on the page. */
const latest = new Map();
const changed = new Set();
/** The topics on the page, sorted. */
let shown = [];
let received = 0;
let ignored = 0;
let frame = 0;
let source = null;
/** The probe that asks why a stream did not open; aborted when another begins. */
let probe = null;

function show(name, text) {
  if (state.dataset.state !== name || state.textContent !== text) {
    state.dataset.state = name;
    state.textContent = text;
  }
}

function tell(text) {
  notice.textContent = text;
  notice.hidden = text === "";
}

function schedule() {
  if (frame === 0) frame = requestAnimationFrame(render);
}

function cut(text) {
  if (text.length <= MAX_CHARACTERS) return text;
  return `${text.slice(0, MAX_CHARACTERS)} … (${text.length} characters)`;
}

function payloadText({ payload, encoding }) {
  if (encoding === "json") return cut(JSON.stringify(payload));
  if (encoding === "text") return cut(payload);
  return payload === "" ? "(empty)" : cut(`base64 ${payload}`);
}

function cell(className) {
  const made = document.createElement("td");
  made.className = className;
  return made;
}

function place(topic) {
  let low = 0;
  let high = shown.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (shown[middle] < topic) low = middle + 1;
    else high = middle;
  }
  return low;
}

function addRow(topic) {
  const row = document.createElement("tr");
  const name = cell("topic");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = topic;
  button.title = "Publish to this topic";
  button.dataset.topic = topic;
  const tag = document.createElement("span");
  tag.className = "tag";
  tag.textContent = "retained";
  name.append(button, tag);
  const cells = { tag, value: cell("value"), qos: cell("qos"), time: cell("time"), count: cell("number") };
  row.append(name, cells.value, cells.qos, cells.time, cells.count);
  const index = place(topic);
  rows.insertBefore(row, rows.children[index] ?? null);
  shown.splice(index, 0, topic);
  return cells;
}

function counted(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function summary() {
  if (received === 0) return "No messages yet.";
  const text = `${counted(received, "message")}, ${counted(latest.size, "topic")}.`;
  if (ignored === 0) return text;
  return `${text} There are more topics than ${MAX_TOPICS}: ${ignored} messages are not shown; narrow the filter.`;
}

function render() {
  frame = 0;
  for (const topic of changed) {
    const entry = latest.get(topic);
    entry.cells ??= addRow(topic);
    const { message, cells } = entry;
    const time = new Date(message.time);
    cells.tag.hidden = !message.retain;
    cells.value.textContent = payloadText(message);
    cells.qos.textContent = message.qos;
    cells.time.textContent = time.toLocaleTimeString();
    cells.time.title = time.toLocaleString();
    cells.count.textContent = entry.count;
  }
  changed.clear();
  find("summary").textContent = summary();
}

function take(event) {
  const message = JSON.parse(event.data);
  received += 1;
  const entry = latest.get(message.topic);
  if (entry !== undefined) {
    entry.message = message;
    entry.count += 1;
    changed.add(message.topic);
  } else if (latest.size < MAX_TOPICS) {
    latest.set(message.topic, { message, count: 1, cells: null });
    changed.add(message.topic);
  } else {
    ignored += 1;
  }
  schedule();
}

function clear() {
  latest.clear();
  changed.clear();
  rows.replaceChildren();
  shown = [];
  received = 0;
  ignored = 0;
  tell("");
  schedule();
}

function stop(name = "idle", text = "not subscribed") {
  source?.close();
  probe?.abort();
  source = null;
  probe = null;
  find("stop").disabled = true;
  show(name, text);
}

async function problemText(answer) {
  try {
    const problem = await answer.json();
    return [problem.title, problem.detail, problem.hint].filter(Boolean).join(": ");
  } catch {
    return `status ${answer.status}`;
  }
}

/** An EventSource that was refused does not say why: ask once more, and read the answer. */
async function explain(address) {
  const asking = new AbortController();
  probe = asking;
  let text = "the stream was closed; subscribe again";
  try {
    const answer = await fetch(address, { headers: { Accept: "text/event-stream" }, signal: asking.signal });
    if (!answer.ok) text = await problemText(answer);
  } catch {
    text = "the bridge cannot be reached";
  }
  if (probe !== asking) return;
  asking.abort();
  tell(text);
}

function follow(filter) {
  stop();
  clear();
  const address = `v1/subscribe?topic=${encodeURIComponent(filter)}`;
  const stream = new EventSource(address);
  source = stream;
  find("stop").disabled = false;
  show("waiting", "connecting");
  stream.onopen = () => show("live", `live: ${filter}`);
  stream.onmessage = take;
  stream.onerror = () => {
    if (source !== stream) return;
    if (stream.readyState === EventSource.CONNECTING) {
      show("waiting", "connection lost, trying again");
    } else {
      stop("failed", "not subscribed");
      explain(address);
    }
  };
  stream.addEventListener("broker", (event) => {
    const { state: broker, reason } = JSON.parse(event.data);
    if (broker === "up") {
      show("live", `live: ${filter}`);
      tell("");
    } else {
      show("waiting", "the bridge lost its broker");
      tell(reason ?? "");
    }
  });
  stream.addEventListener("gap", () => tell("Messages were missed while the connection was away."));
  stream.addEventListener("close", (event) => {
    const { reason, may_reconnect: mayReconnect } = JSON.parse(event.data);
    tell(`The bridge closed the stream: ${reason}.`);
    if (!mayReconnect) stop("failed", "closed by the bridge");
  });
}

async function publish(form) {
  const fields = new FormData(form);
  const retain = fields.has("retain") ? "&retain=true" : "";
  const query = `topic=${encodeURIComponent(fields.get("topic"))}&qos=${fields.get("qos")}${retain}`;
  outcome.dataset.outcome = "";
  outcome.textContent = "sending …";
  try {
    // A Blob without a type sends no Content-Type, which would become a property of the message.
    const answer = await fetch(`v1/topics?${query}`, { method: "POST", body: new Blob([fields.get("payload")]) });
    if (answer.ok) {
      const { topic, reason } = await answer.json();
      outcome.dataset.outcome = "good";
      const how = answer.status === 202 ? "sent; at QoS 0 nobody acknowledges" : `acknowledged: ${reason}`;
      outcome.textContent = `${topic}: ${how}`;
    } else {
      outcome.dataset.outcome = "bad";
      outcome.textContent = await problemText(answer);
    }
  } catch {
    outcome.dataset.outcome = "bad";
    outcome.textContent = "The bridge cannot be reached; whether the message went out is unknown.";
  }
}

find("follow").addEventListener("submit", (event) => {
  event.preventDefault();
  follow(find("filter").value);
});
find("publish").addEventListener("submit", (event) => {
  event.preventDefault();
  publish(event.target);
});
find("stop").addEventListener("click", () => stop());
find("clear").addEventListener("click", clear);
rows.addEventListener("click", (event) => {
  const topic = event.target.dataset?.topic;
  if (topic === undefined) return;
  find("topic").value = topic;
  find("payload").focus();
});

const asked = new URLSearchParams(location.search).get("topic");
if (asked !== null && asked !== "") {
  find("filter").value = asked;
  follow(asked);
}
