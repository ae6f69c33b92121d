/** Puts the parts of the console together. */

import { Access, narrowed } from "./access.js";
import { Account } from "./account.js";
import { advise } from "./advice.js";
import { Details } from "./details.js";
import { Feed } from "./feed.js";
import { clearRetained, preparePublishing } from "./publish.js";
import { Topics } from "./topics.js";
import { Tree } from "./tree.js";

const DRAW_MS = 200;
const STATUS_MS = 5_000;
const MAX_LOG = 200;
/** Messages kept while paused; beyond it the oldest go, and are counted. */
const MAX_HELD = 20_000;

const get = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const input = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (document.getElementById(id));

const NOT_GRANTED = "urn:tidegate:problem:not-granted";
/** What a stream says when it ends because whoever opened it may follow it no more. */
const ENDED_ACCESS = { token_expired: "The key or token has expired.", token_revoked: "The key or token was revoked." };

const access = new Access();
const account = new Account(access, get, signOut);
const topics = new Topics();
const feed = new Feed(access.call);
const details = new Details(get);
const tree = new Tree(get("tree"), get("rows"), topics, (level) => {
  details.show(level);
  remember();
});
/** @type {string[] | null} */
let held = null;
let dropped = 0;
let isDue = false;
/** What the notice says while all goes well: why filters are not followed. @type {string[]} */
let reasons = [];
/** Whose messages are shown. */
let shownTo = "";

feed.addEventListener("message", (event) => {
  const data = /** @type {CustomEvent} */ (event).detail;
  if (held === null) topics.take(data);
  else if (held.push(data) > MAX_HELD) {
    held.shift();
    dropped += 1;
  }
  drawSoon();
});
feed.addEventListener("control", (event) => onControl(/** @type {CustomEvent} */ (event).detail));
feed.addEventListener("thinned", () => {
  note("Very many messages: from now on the newest of each topic, four times a second.");
  log("many messages; now the newest of each topic alone");
});
feed.addEventListener("state", (event) => {
  const { state, text } = /** @type {CustomEvent} */ (event).detail;
  const shown = get("stream-state");
  if (shown.textContent !== text) log(`stream: ${text}`);
  shown.dataset.state = state;
  shown.textContent = text;
  if (state === "live") note(reasons.join(" "));
});

/** @param {{ name: string, facts: Record<string, unknown> }} event */
function onControl({ name, facts }) {
  if (name === "refused") {
    log(`refused: ${facts.detail}`);
    const refused = refusedFilters(facts);
    if (refused.length > 0) leaveOut(refused, facts);
    else note([`${facts.title}: ${facts.detail}`, facts.hint].filter(Boolean).join(" — "));
    return;
  }
  log(`${name}: ${Object.entries(facts).map(([key, value]) => `${key} ${value}`).join(", ")}`);
  // A filter that was just added has a gap by nature: nothing of it is on the page that could be stale.
  const isNew = Array.isArray(facts.filters) && facts.filters.every((filter) => feed.added.includes(filter));
  if (name === "gap" && !isNew) topics.markStale();
  const reason = /** @type {keyof typeof ENDED_ACCESS} */ (facts.reason);
  if (name === "close" && reason in ENDED_ACCESS) access.end(ENDED_ACCESS[reason]);
  if (name === "broker") tellBroker(facts.state === "up" ? "live" : "failed", facts.state === "up" ? "broker connected" : "broker away");
  drawSoon();
}

// Who may see it.

/**
 * The filters that a refusal is about: the one that it points to, or where it points to none, those that came last.
 * @param {Record<string, unknown>} facts the problem
 */
function refusedFilters({ status, field, reason_code }) {
  const index = /^\/topics\/(\d+)$/.exec(String(field))?.[1];
  if (index !== undefined) return feed.filters.slice(Number(index), Number(index) + 1);
  const mayPass = (Number(status) >= 500 || status === 429) && reason_code === undefined;
  const isClear = feed.filters.length === 1 || feed.untried.length < feed.filters.length;
  return isClear && !mayPass ? feed.untried : [];
}

/**
 * Follow the others, and of what is not granted as it is the parts that are.
 * @param {string[]} refused
 * @param {Record<string, unknown>} facts the problem
 */
function leaveOut(refused, { type, detail, hint }) {
  const granted = type === NOT_GRANTED ? narrowed(refused, access.principal?.subscribe ?? []) : [];
  const parts = granted.filter((each) => !refused.includes(each));
  const text = parts.length
    ? `Not all of it is granted (${detail}). Followed is what is granted: ${parts.join(", ")}.`
    : `Not followed: ${refused.join(", ")} (${[detail, hint].filter(Boolean).join(" — ")}).`;
  const others = feed.filters.flatMap((each) => (each === refused[0] ? parts : refused.includes(each) ? [] : [each]));
  follow(others, [...reasons, text]);
}

/** Show nothing more of what somebody else was shown. */
function forget() {
  feed.forget();
  topics.clear();
  details.show(null);
  dropped = 0;
  if (held !== null) held = [];
  get("log").replaceChildren();
  get("outcome").textContent = "";
  drawSoon();
}

/** A new page has nothing of the old one: no token, no message, no log. */
function signOut() {
  location.reload();
}

access.addEventListener("needed", (event) => {
  feed.stop("signed out");
  advise(access, feed.filters, get, followOffered);
  tellBroker("idle", "broker unknown");
  account.ask(/** @type {CustomEvent} */ (event).detail);
});
access.addEventListener("changed", () => {
  const { subject, source, subscribe } = /** @type {import("./access.js").Principal} */ (access.principal);
  const name = `${source}:${subject}`;
  if (shownTo !== "" && shownTo !== name) forget();
  shownTo = name;
  feed.qos = Math.min(1, ...subscribe.map((each) => each.qos));
  reasons = [];
  note("");
  account.draw();
  get("try").textContent = samples();
  advise(access, feed.filters, get, followOffered);
  if (feed.isOver) feed.resume();
  lookAtBroker();
});

// Drawing: seldom, and only when there is something new.

function drawSoon() {
  if (isDue) return;
  isDue = true;
  setTimeout(() => requestAnimationFrame(draw), DRAW_MS);
}

function draw() {
  isDue = false;
  get("empty").hidden = topics.topics > 0;
  get("tree").hidden = topics.topics === 0;
  tree.draw();
  details.draw();
  get("summary").textContent = summary();
}

function summary() {
  const count = (/** @type {number} */ number, /** @type {string} */ word) =>
    `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
  const parts = [count(topics.messages, "message"), count(topics.topics, "topic")];
  if (topics.ignored) parts.push(`${count(topics.ignored, "message")} of further topics not shown`);
  if (held) parts.push(`paused, ${count(held.length, "message")} waiting`);
  if (dropped) parts.push(`${count(dropped, "message")} let go while paused`);
  return topics.messages || held ? `${parts.join(", ")}.` : "No messages yet.";
}

/** @param {string} text */
function note(text) {
  get("notice").textContent = text;
  get("notice").hidden = text === "";
}

/** @param {string} text */
function log(text) {
  const item = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString();
  item.append(time, " ", text);
  const list = get("log");
  list.prepend(item);
  while (list.children.length > MAX_LOG) list.lastElementChild?.remove();
}

// Filters.

/**
 * @param {string[]} filters
 * @param {string[]} [whyNotOthers] what the notice says
 */
function follow(filters, whyNotOthers = []) {
  reasons = whyNotOthers;
  note(reasons.join(" "));
  feed.follow(filters);
  if (access.isNeeded) feed.stop("signed out");
  get("chips").replaceChildren(
    ...feed.filters.map((filter) => {
      const chip = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "×";
      button.setAttribute("aria-label", `Stop following ${filter}`);
      button.addEventListener("click", () => follow(feed.filters.filter((each) => each !== filter)));
      const name = document.createElement("code");
      name.textContent = filter;
      chip.append(name, button);
      return chip;
    }),
  );
  advise(access, feed.filters, get, followOffered);
  remember();
}

/** @param {string} filter */
function followOffered(filter) {
  follow([filter]);
  // The button that was pressed is gone; where the keyboard was, there is the way back.
  get("chips").querySelector("button")?.focus();
}

/** The filters and the topic shown stand in the address, so that a reload or a link keeps them. */
function remember() {
  const state = new URLSearchParams(feed.filters.map((filter) => ["filter", filter]));
  if (details.level !== null) state.set("topic", details.level.path);
  history.replaceState(null, "", state.size ? `#${state}` : location.pathname + location.search);
}

get("follow").addEventListener("submit", (event) => {
  event.preventDefault();
  follow([...feed.filters, input("filter").value]);
});

// Buttons.

function togglePause() {
  const isPaused = held === null;
  if (held === null) {
    held = [];
  } else {
    const waiting = held;
    held = null;
    for (const data of waiting) topics.take(data);
  }
  get("pause").setAttribute("aria-pressed", String(isPaused));
  get("pause").textContent = isPaused ? "Go on" : "Pause";
  drawSoon();
}

get("pause").addEventListener("click", togglePause);
get("expand").addEventListener("click", () => tree.openAll(true));
get("collapse").addEventListener("click", () => tree.openAll(false));
get("clear").addEventListener("click", () => {
  topics.clear();
  details.show(null);
  dropped = 0;
  drawSoon();
});
get("close").addEventListener("click", remember);
get("use").addEventListener("click", () => {
  if (details.level === null) return;
  input("topic").value = details.level.path;
  input("payload").value = details.level.latest?.encoding === "base64" ? "" : (details.level.latest?.text ?? "");
  input("payload").focus();
});
get("forget").addEventListener("click", () => {
  const topic = details.level?.path;
  if (topic !== undefined && confirm(`Clear what the broker keeps for ${topic}?`)) {
    clearRetained(access.call, topic, get("outcome"));
  }
});
for (const name of ["input", "search"]) {
  // Escape empties the field without an `input` event.
  input("search").addEventListener(name, () => tree.search(input("search").value));
}
preparePublishing(access.call, /** @type {HTMLFormElement} */ (get("publish")), get("outcome"));

// Keys.

const keys = /** @type {HTMLDialogElement} */ (get("keys"));
get("help").addEventListener("click", () => keys.showModal());
document.addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLElement && event.target.matches("input, textarea, select");
  if (account.isOpen) return;
  if (event.key === "Escape" && !keys.open) {
    if (isTyping) /** @type {HTMLElement} */ (event.target).blur();
    else if (details.level !== null) details.show(null);
    return;
  }
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
  /** @type {Record<string, () => void>} */
  const actions = {
    "/": () => input("search").focus(),
    f: () => input("filter").select(),
    p: togglePause,
    "?": () => keys.showModal(),
  };
  const action = actions[event.key];
  if (action === undefined) return;
  event.preventDefault();
  action();
});

// The broker.

/**
 * @param {"idle" | "live" | "failed"} state
 * @param {string} text
 */
function tellBroker(state, text) {
  get("broker-state").dataset.state = state;
  if (get("broker-state").textContent !== text) get("broker-state").textContent = text;
}

async function lookAtBroker() {
  if (access.isNeeded) return;
  try {
    const answer = await access.call("v1/status");
    if (answer.status === 401) return;
    if (answer.status === 403) {
      tellBroker("idle", "broker: hidden, needs the scope status:read");
      return;
    }
    const { broker } = await answer.json();
    const isUp = broker.state === "connected";
    tellBroker(isUp ? "live" : "failed", isUp ? `broker ${broker.address}, MQTT ${broker.limits?.mqtt_version ?? ""}` : `broker away: ${broker.last_error ?? broker.state}`);
  } catch {
    tellBroker("failed", "the bridge does not answer");
  }
}

setInterval(lookAtBroker, STATUS_MS);
setInterval(() => {
  feed.tick();
  get("rate").textContent = `${feed.rate.toLocaleString("en")}/s`;
  if (topics.topics && !document.hidden) tree.draw(); // ages grow
}, 1000);

// The beginning.

function samples() {
  const token = access.hasToken ? " --oauth2-bearer \"$TOKEN\"" : "";
  return [
    `curl${token} --data 21.5 '${location.origin}/v1/topics/sensors/kitchen/temperature'`,
    `curl${token} --data '{"celsius": 19}' '${location.origin}/v1/topics/sensors/hall/temperature?retain=true'`,
    `curl${token} --no-buffer '${location.origin}/v1/subscribe?topic=%23'`,
  ].join("\n");
}

get("try").textContent = samples();
const remembered = new URLSearchParams(location.hash.slice(1));
const filters = [...remembered.getAll("filter"), ...new URLSearchParams(location.search).getAll("topic")];
const wanted = remembered.get("topic");
if (wanted !== null) {
  const showWanted = () => {
    const level = topics.find(wanted);
    if (level?.latest) {
      tree.selected = wanted;
      details.show(level);
      feed.removeEventListener("message", showWanted);
    }
  };
  feed.addEventListener("message", showWanted);
}
draw();
// Who one is decides what may be asked; a bridge that is away is asked again by the stream.
await access.look().catch(() => tellBroker("failed", "the bridge does not answer"));
if (filters.length) follow(filters);
