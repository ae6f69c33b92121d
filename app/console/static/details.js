/** The pane of one topic: its value in full, what came with it, its curve, and what was there before. */

import { clock, indent, points } from "./format.js";

const MAX_VALUE = 200_000;

export class Details {
  /** @type {import("./topics.js").Level | null} */
  level = null;
  #drawn = -1;

  /** @param {(id: string) => HTMLElement} get */
  constructor(get) {
    this.get = get;
    get("close").addEventListener("click", () => this.show(null));
    get("copy").addEventListener("click", () => this.#copy());
  }

  /** @param {import("./topics.js").Level | null} level */
  show(level) {
    this.level = level;
    this.#drawn = -1;
    this.get("details").hidden = level === null;
    this.draw();
  }

  draw() {
    const level = this.level;
    if (level === null || level.latest === null || level.count === this.#drawn) return;
    this.#drawn = level.count;
    this.get("details-title").textContent = level.path;
    this.get("value").textContent = shown(level.latest);
    this.#drawFacts(level.latest);
    this.#drawCurve(level.numbers);
    const earlier = level.history.toReversed().map((message) => {
      const item = document.createElement("li");
      const time = document.createElement("time");
      time.dateTime = message.time;
      time.textContent = clock(message.time);
      const value = document.createElement("code");
      value.textContent = message.text.slice(0, 200);
      item.append(time, " ", value);
      return item;
    });
    this.get("history").replaceChildren(...earlier);
  }

  /** @param {import("./topics.js").Message} message */
  #drawFacts(message) {
    /** @type {[string, string][]} */
    const facts = [
      ["Time", new Date(message.time).toLocaleString()],
      ["QoS", String(message.qos)],
      ["Retained", message.retain ? "yes, the broker kept it" : "no, it came live"],
      ["Encoding", message.encoding],
      ...Object.entries(message.properties).map(
        ([name, value]) =>
          /** @type {[string, string]} */ ([name, typeof value === "string" ? value : JSON.stringify(value)]),
      ),
    ];
    this.get("facts").replaceChildren(
      ...facts.flatMap(([name, value]) => {
        const term = document.createElement("dt");
        term.textContent = name;
        const text = document.createElement("dd");
        text.textContent = value;
        return [term, text];
      }),
    );
  }

  /** @param {number[]} numbers */
  #drawCurve(numbers) {
    const curve = this.get("curve");
    const line = points(numbers, 300, 60);
    curve.toggleAttribute("hidden", line === "");
    curve.firstElementChild?.setAttribute("points", line);
    this.get("curve-range").textContent = line
      ? `${Math.min(...numbers)} to ${Math.max(...numbers)}, the last ${numbers.length}`
      : "";
  }

  async #copy() {
    if (this.level?.latest) await navigator.clipboard.writeText(this.level.latest.text);
  }
}

/** @param {import("./topics.js").Message} message */
function shown({ text, encoding }) {
  if (text.length > MAX_VALUE) return `${text.slice(0, MAX_VALUE)}…`;
  if (encoding === "json") return indent(text);
  if (encoding === "text") return text;
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return `${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(" ")}\n\nbase64 ${text}`;
}
