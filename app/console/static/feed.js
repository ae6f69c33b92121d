/**
 * The stream: one request for all filters, made again with the last id whenever it ends.
 *
 * It is read by `fetch`: EventSource can send no token, and does not tell why it was refused.
 */

import { eventsOf } from "./events.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
/** Messages a second from which on the server is asked for the newest of each topic alone. */
const TOO_MANY_A_SECOND = 1500;
const INTERVAL_SECONDS = 0.25;

/**
 * Events: `message` (detail: the event's data as text), `control` (detail: name and facts), `state` (detail:
 * state and text), `thinned` (from now on the newest of each topic alone comes).
 */
export class Feed extends EventTarget {
  /** @type {string[]} */
  #filters = [];
  /** @type {typeof fetch} */
  #call;
  #stop = new AbortController();
  #lastEventId = "";
  #waitMs = FIRST_WAIT_MS;
  #timer = 0;
  #isOver = false;
  #isThinned = false;
  #wasLive = false;
  #second = 0;
  #inSecond = 0;

  /** The QoS to ask for. */
  qos = 1;
  /** Messages of the last whole second. */
  rate = 0;
  /** The filters that were not followed before the last change. @type {string[]} */
  added = [];

  /** @param {typeof fetch} call makes requests, with what shows who makes them */
  constructor(call) {
    super();
    this.#call = call;
  }

  get filters() {
    return this.#filters;
  }

  /**
   * Follow these filters, and no others.
   * @param {string[]} filters
   */
  follow(filters) {
    const before = this.#filters;
    this.#filters = [...new Set(filters)];
    this.added = this.#filters.filter((filter) => !before.includes(filter));
    // With the last id the filters that stay have no hole; of a new one the bridge says that it has a gap.
    if (!this.#filters.some((filter) => before.includes(filter))) this.#lastEventId = "";
    this.#isThinned = false;
    this.#wasLive = false;
    this.resume();
  }

  /** The filters that the last change added, until a stream has them. */
  get untried() {
    return this.#wasLive ? [] : this.added;
  }

  /** Whether it was ended or refused, and waits to be resumed. */
  get isOver() {
    return this.#isOver;
  }

  /** Open the stream again where it was ended or refused. */
  resume() {
    this.#isOver = false;
    this.#waitMs = FIRST_WAIT_MS;
    this.#open("connecting");
  }

  /**
   * End the stream until it is resumed.
   * @param {string} text why
   */
  stop(text) {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#stop.abort();
    if (this.#filters.length > 0) this.#tell("failed", text);
  }

  /** End it, and begin without a past when it is resumed. */
  forget() {
    this.stop("signed out");
    this.#lastEventId = "";
  }

  /** Count what came; called now and then, so that the rate falls when nothing comes. */
  tick() {
    const second = Math.floor(performance.now() / 1000);
    if (second !== this.#second) {
      this.rate = second === this.#second + 1 ? this.#inSecond : 0;
      this.#second = second;
      this.#inSecond = 0;
      if (this.rate > TOO_MANY_A_SECOND && !this.#isThinned) {
        this.#isThinned = true;
        this.dispatchEvent(new CustomEvent("thinned"));
        this.#open("connecting");
      }
    }
  }

  /** @param {string} text */
  #open(text) {
    clearTimeout(this.#timer);
    this.#stop.abort();
    if (this.#filters.length === 0) {
      this.#tell("idle", "not following");
      return;
    }
    const wanted = {
      topics: this.#filters,
      qos: this.qos,
      policy: "latest",
      interval: this.#isThinned ? INTERVAL_SECONDS : null,
      last_event_id: this.#lastEventId,
    };
    this.#stop = new AbortController();
    this.#tell("waiting", text);
    this.#read(JSON.stringify(wanted), this.#stop.signal);
  }

  /**
   * @param {string} body as JSON: a refusal of it points to the filter that is at fault
   * @param {AbortSignal} signal
   */
  async #read(body, signal) {
    const headers = { Accept: "text/event-stream", "Content-Type": "application/json" };
    let waitMs = 0;
    try {
      const answer = await this.#call("v1/subscribe", { method: "POST", headers, body, cache: "no-store", signal });
      if (answer.ok && answer.body !== null) {
        this.#waitMs = FIRST_WAIT_MS;
        this.#wasLive = true;
        this.#tell("live", "live");
        for await (const events of eventsOf(answer.body)) {
          if (signal.aborted) return;
          for (const event of events) this.#take(event);
        }
      } else {
        const problem = await answer.json();
        if (signal.aborted) return;
        waitMs = Number(answer.headers.get("Retry-After") ?? 0) * 1000;
        this.dispatchEvent(new CustomEvent("control", { detail: { name: "refused", facts: problem } }));
        // What is too much now, or a fault of the bridge, may pass.
        if (!signal.aborted && answer.status < 500 && answer.status !== 429) this.stop("refused");
      }
    } catch {
      // The bridge is away, or this stream was given up; the next attempt tells.
    }
    if (signal.aborted || this.#isOver) return;
    this.#tell("waiting", "reconnecting");
    this.#timer = setTimeout(() => this.#open("reconnecting"), Math.max(waitMs, this.#waitMs));
    this.#waitMs = Math.min(this.#waitMs * 2, LONGEST_WAIT_MS);
  }

  /** @param {import("./events.js").StreamEvent} event */
  #take({ name, id, data }) {
    this.#lastEventId = id || this.#lastEventId;
    if (data === null) return;
    if (name === "") {
      this.#inSecond += 1;
      this.dispatchEvent(new CustomEvent("message", { detail: data }));
      return;
    }
    const facts = JSON.parse(data);
    if (name === "close" && !facts.may_reconnect) this.stop(`ended: ${facts.reason}`);
    this.dispatchEvent(new CustomEvent("control", { detail: { name, facts } }));
  }

  /**
   * @param {"idle" | "waiting" | "live" | "failed"} state
   * @param {string} text
   */
  #tell(state, text) {
    this.dispatchEvent(new CustomEvent("state", { detail: { state, text } }));
  }
}
