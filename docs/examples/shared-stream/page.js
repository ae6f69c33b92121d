// Shows the newest payload of each topic. What came from a broker is set as text, never as HTML.

import { SharedStream } from "./shared-stream.js";

const MAX_ROWS = 500;

const find = (id) => document.getElementById(id);
/** Topic → the cell with its payload. */
const cells = new Map();

function cellOf(topic) {
  const known = cells.get(topic);
  if (known !== undefined) return known;
  if (cells.size >= MAX_ROWS) return null;
  const row = find("rows").insertRow();
  row.insertCell().textContent = topic;
  const made = row.insertCell();
  cells.set(topic, made);
  return made;
}

function follow(filters) {
  const stream = new SharedStream("/v1/subscribe", filters);
  stream.addEventListener("message", ({ detail }) => {
    const cell = cellOf(detail.topic);
    if (cell === null) return;
    cell.textContent = detail.encoding === "json" ? JSON.stringify(detail.payload) : detail.payload;
  });
  stream.addEventListener("state", ({ detail }) => {
    find("role").textContent = detail.role;
    find("stream").textContent = detail.stream;
  });
  stream.addEventListener("gap", ({ detail }) => {
    find("notice").textContent = `Messages may be missing: ${detail.reason}.`;
  });
  stream.addEventListener("broker", ({ detail }) => {
    find("notice").textContent = detail.state === "up" ? "" : "The bridge lost its broker.";
  });
}

const asked = new URLSearchParams(location.search).getAll("topic");
if (asked.length > 0) {
  document.querySelector("form input").value = asked[0];
  follow(asked);
}
