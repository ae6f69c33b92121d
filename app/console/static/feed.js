/**
 * The stream: one EventSource for all filters, opened again with the last id whenever it ends.
 *
 * A browser connects again by itself after a lost connection, but not after an error status, such as the 503
 * of a broker that is away. So the feed does it, and waits a little longer each time.
 */

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
/** Messages a second from which on the server is asked for the newest of each topic alone. */
const TOO_MANY_A_SECOND = 1500;
const INTERVAL_SECONDS = 0.25;
const CONTROLS = ["broker", "gap", "lag", "close"];

/**
 * Events: `message` (detail: the event's data as text), `control` (detail: name and facts), `state` (detail:
 * state and text), `thinned` (from now on the newest of each topic alone comes).
 */
export class Feed extends EventTarget {
  /** @type {string[]} */
  #filters = [];
  /** @type {EventSource | null} */
  #source = null;
  #lastEventId = "";
  #waitMs = FIRST_WAIT_MS;
  #timer = 0;
  #isOver = false;
  #isThinned = false;
  #second = 0;
  #inSecond = 0;

  /** Messages of the last whole second. */
  rate = 0;
  /** The filters that were not followed before the last change. @type {string[]} */
  added = [];

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
    this.#isOver = false;
    this.#waitMs = FIRST_WAIT_MS;
    this.#open();
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
        this.#open();
      }
    }
  }

  #open() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
    if (this.#filters.length === 0) {
      this.#tell("idle", "not following");
      return;
    }
    const query = new URLSearchParams(this.#filters.map((filter) => ["topic", filter]));
    query.set("qos", "1");
    query.set("policy", "latest");
    if (this.#isThinned) query.set("interval", String(INTERVAL_SECONDS));
    if (this.#lastEventId) query.set("last_event_id", this.#lastEventId);
    const source = new EventSource(`v1/subscribe?${query}`);
    this.#source = source;
    this.#tell("waiting", "connecting");
    source.onopen = () => {
      this.#waitMs = FIRST_WAIT_MS;
      this.#tell("live", "live");
    };
    source.onmessage = (event) => {
      this.#inSecond += 1;
      this.#lastEventId = event.lastEventId;
      this.dispatchEvent(new CustomEvent("message", { detail: event.data }));
    };
    for (const name of CONTROLS) {
      source.addEventListener(name, (event) => this.#control(name, event));
    }
    source.onerror = () => this.#onError(source);
  }

  /**
   * @param {string} name
   * @param {MessageEvent} event
   */
  #control(name, event) {
    this.#lastEventId = event.lastEventId || this.#lastEventId;
    const facts = JSON.parse(event.data);
    if (name === "close" && !facts.may_reconnect) {
      this.#isOver = true;
      this.#source?.close();
      this.#tell("failed", `ended: ${facts.reason}`);
    }
    this.dispatchEvent(new CustomEvent("control", { detail: { name, facts } }));
  }

  /** @param {EventSource} source */
  #onError(source) {
    if (source !== this.#source || this.#isOver) return;
    this.#tell("waiting", "reconnecting");
    if (source.readyState !== EventSource.CLOSED) return;
    this.#explain();
    this.#timer = setTimeout(() => this.#open(), this.#waitMs);
    this.#waitMs = Math.min(this.#waitMs * 2, LONGEST_WAIT_MS);
  }

  /** EventSource does not tell why it was refused; asking again as NDJSON does. */
  async #explain() {
    const query = new URLSearchParams(this.#filters.map((filter) => ["topic", filter]));
    try {
      const stop = new AbortController();
      const answer = await fetch(`v1/subscribe?${query}`, {
        headers: { Accept: "application/x-ndjson" },
        signal: stop.signal,
      });
      if (answer.ok) {
        stop.abort();
        return;
      }
      const problem = await answer.json();
      if (answer.status < 500) {
        this.#isOver = true;
        clearTimeout(this.#timer);
        this.#tell("failed", "refused");
      }
      this.dispatchEvent(new CustomEvent("control", { detail: { name: "refused", facts: problem } }));
    } catch {
      // The bridge is away; the next attempt tells.
    }
  }

  /**
   * @param {"idle" | "waiting" | "live" | "failed"} state
   * @param {string} text
   */
  #tell(state, text) {
    this.dispatchEvent(new CustomEvent("state", { detail: { state, text } }));
  }
}
