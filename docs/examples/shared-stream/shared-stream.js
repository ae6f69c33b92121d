// One stream for all tabs of an origin: one of them holds it, and hands every event on to the others.
//
// Rules:
// 1. Who holds the Web Lock is the leader, and has the only EventSource. The browser frees the lock of a tab that
//    is closed or crashes, and the next in line leads.
// 2. Every tab hears every event and remembers the last id, so that whoever leads next can go on from there.
// 3. Filters are added to the stream and never taken from it while tabs are left. Where filters overlap, which of
//    them a message counts for depends on all of them: with fewer, a message might come a second time.
// 4. Ids are compared, and never put in order: they are the bridge's business.

const MAX_TOPICS = 1000;
const MAX_SEEN = 2000;
/** Tabs that are opened together bring their filters together: wait for all of them before opening anew. */
const SETTLE_MILLISECONDS = 50;
const FIRST_PAUSE_MILLISECONDS = 1000;
const LAST_PAUSE_MILLISECONDS = 30_000;
const CONTROLS = ["gap", "broker", "lag", "close"];
/** Not an id. The bridge answers with a `gap`, whose id is where the stream stands: EventSource shows none before. */
const NO_ID = "none";

/**
 * @typedef {{topic: string, payload: unknown, encoding: "json" | "text" | "base64", qos: 0 | 1 | 2, retain: boolean,
 *   time: string, properties?: object}} Envelope
 * @typedef {"connecting" | "open" | "waiting" | "closed"} StreamState
 * @typedef {{id: string, detail: Envelope}} Heard
 * @typedef {{kind: "event", type: string, id: string, detail: any}
 *   | {kind: "state", stream: StreamState, filters: string[], id: string}
 *   | {kind: "hello", tab: string, filters: string[], isNew: boolean}
 *   | {kind: "current", tab: string, messages: Heard[]}} Note what tabs say to one another
 */

/** What is matched of a shared subscription (MQTT 5 §4.8.2). @type {(filter: string) => string} */
const unshared = (filter) => filter.replace(/^\$share\/[^/]*\//, "");

/** Whether there are topics that both filters match (MQTT 5 §4.7). @type {(one: string, other: string) => boolean} */
const meet = (one, other) => {
  if ((one.startsWith("$") && /^[+#]/.test(other)) || (other.startsWith("$") && /^[+#]/.test(one))) return false;
  const [ours, theirs] = [one.split("/"), other.split("/")];
  for (let index = 0; ; index += 1) {
    const [our, their] = [ours[index], theirs[index]];
    // Before the ends are looked at: "a/#" matches "a" too.
    if (our === "#" || their === "#") return true;
    if (our === undefined || their === undefined) return our === their;
    if (our !== their && our !== "+" && their !== "+") return false;
  }
};

/** Whether two filters may match the same topic. @type {(one: string, other: string) => boolean} */
export const overlap = (one, other) => meet(unshared(one), unshared(other));

/** A topic is a filter without wildcards. @type {(filter: string, topic: string) => boolean} */
export const matches = (filter, topic) => meet(unshared(filter), topic);

/** @type {(filters: string[], topic: string) => boolean} */
const matchesAny = (filters, topic) => filters.some((filter) => matches(filter, topic));

/** Whether a filter is valid (MQTT 5 §4.7.1): the bridge refuses a bad one with all others. @param {unknown} filter */
const isFilter = (filter) => typeof filter === "string" && filter !== "" && !filter.includes("\0") &&
  filter.split("/").every((level, index, { length }) =>
    level === "#" ? index === length - 1 : level === "+" || !/[+#]/.test(level));

/**
 * The stream, as a tab sees it. Events: `message` (`detail` is an {@link Envelope} with `id`, and `current` where it
 * came before this tab); `gap`, `broker`, `lag` and `close` (what the bridge said); `state` (`role` and `stream`).
 */
export class SharedStream extends EventTarget {
  #address;
  #filters;
  /** @type {Set<string>} */ #union;
  #tab = crypto.randomUUID();
  #channel;
  #leaving = new AbortController();
  /** Frees the lock; there is one as long as this tab leads. @type {(() => void) | null} */
  #release = null;
  /** @type {EventSource | null} */ #source = null;
  /** @type {StreamState} */ #stream = "connecting";
  /** Somebody has followed the stream: what is lacking from here on is a gap. */
  #wasOpen = false;
  #wasGreeted = false;
  #lastId = "";
  /** Ids of late. A leader that goes may have told some tabs more than the next leader knew. @type {Set<string>} */
  #seen = new Set();
  /** Topic → the newest message, of all filters: this tab may be the next leader. @type {Map<string, Heard>} */
  #newest = new Map();
  #timer = 0;
  #pauseMilliseconds = FIRST_PAUSE_MILLISECONDS;

  /**
   * @param {string} address where the bridge's streams are, such as "/v1/subscribe"
   * @param {string[]} filters topic filters of this tab
   * @param {{qos?: 0 | 1 | 2}} [options] the highest QoS wanted; tabs that want another share another stream
   * @throws {TypeError} there is no filter, or one is not valid
   */
  constructor(address, filters, { qos = 1 } = {}) {
    super();
    if (filters.length === 0 || !filters.every(isFilter)) throw new TypeError("topic filters are needed, each valid");
    this.#address = new URL(address, location.href);
    this.#address.searchParams.set("qos", String(qos));
    this.#filters = [...filters];
    this.#union = new Set(filters);
    const name = `shared-stream ${this.#address.href}`;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = (event) => this.#hear(event.data);
    this.#hello();
    const { signal } = this.#leaving;
    const lead = () => new Promise((/** @type {(value?: unknown) => void} */ release) => this.#lead(release));
    navigator.locks.request(name, { signal }, lead).catch((error) => signal.aborted || Promise.reject(error));
  }

  /** What the stream is doing, and whether this tab holds it. */
  get state() {
    return { role: this.#release === null ? "follower" : "leader", stream: this.#stream };
  }

  /** Leave. Where this tab leads, another takes over. */
  close() {
    clearTimeout(this.#timer);
    this.#leaving.abort();
    this.#source?.close();
    this.#channel.close();
    this.#release?.();
    this.#release = null;
    this.#stream = "closed";
  }

  // As any tab.

  #hello() {
    this.#say({ kind: "hello", tab: this.#tab, filters: this.#filters, isNew: !this.#wasGreeted });
  }

  /** @param {Note} note */
  #hear(note) {
    if (this.#leaving.signal.aborted) return;
    if (note.kind === "event") {
      if (note.id !== "") this.#lastId = note.id;
      if (note.type === "message") this.#take(note);
      else if (note.type !== "gap" || this.#isConcerned(note.detail)) this.#dispatch(note.type, note.detail);
    } else if (note.kind === "state") {
      this.#learn(note);
    } else if (note.kind === "hello") {
      // Every tab notes the filter: the leader may be gone before it can.
      const size = this.#union.size;
      note.filters.forEach((filter) => this.#union.add(filter));
      if (this.#release !== null) this.#greet(note, this.#union.size > size);
    } else if (note.kind === "current" && note.tab === this.#tab) {
      this.#wasGreeted = true;
      note.messages.forEach((heard) => this.#take(heard, { current: true }));
    }
  }

  /** @param {Heard} heard @param {object} [more] */
  #take({ id, detail }, more = {}) {
    // Which message it is stands before the first "-" of an id; the rest is about the stream that it came on.
    const [key] = id.split("-", 1);
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    if (this.#seen.size > MAX_SEEN) this.#seen.delete(/** @type {string} */ (this.#seen.keys().next().value));
    // Taken out first, so that the topic that was quiet longest is the first in the Map.
    this.#newest.delete(detail.topic);
    this.#newest.set(detail.topic, { id, detail });
    if (this.#newest.size > MAX_TOPICS) this.#newest.delete(/** @type {string} */ (this.#newest.keys().next().value));
    if (matchesAny(this.#filters, detail.topic)) this.#dispatch("message", { ...detail, id, ...more });
  }

  /**
   * Whether a gap may be one of this tab. A filter that overlaps a named one is enough: of a message that both match,
   * the bridge may count only the copy that is lacking.
   * @param {{filters?: string[]}} gap those concerned, where not all are
   */
  #isConcerned({ filters }) {
    return filters?.some((each) => this.#filters.some((own) => overlap(own, each))) ?? true;
  }

  /** @param {Extract<Note, {kind: "state"}>} note */
  #learn({ stream, filters, id }) {
    filters.forEach((filter) => this.#union.add(filter));
    if (id !== "") this.#lastId = id;
    this.#stream = stream;
    this.#wasOpen ||= stream === "open";
    // A leader that came after this tab's hello has not heard it.
    const isKnown = this.#wasGreeted && this.#filters.every((filter) => filters.includes(filter));
    if (this.#release === null && !isKnown) this.#hello();
    this.#dispatch("state", this.state);
  }

  /** @param {Note} note */
  #say(note) {
    // Listeners run in between, and may have closed the stream.
    if (!this.#leaving.signal.aborted) this.#channel.postMessage(note);
  }

  /** @param {string} type @param {unknown} detail */
  #dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // As the leader.

  /** @param {() => void} release */
  #lead(release) {
    this.#release = release;
    this.#open();
  }

  #open() {
    if (this.#leaving.signal.aborted) return;
    const isFirst = !this.#wasOpen;
    const address = new URL(this.#address);
    [...this.#union].sort().forEach((filter) => address.searchParams.append("topic", filter));
    address.searchParams.set("last_event_id", this.#lastId || NO_ID);
    // The old stream first: two at a time would each count messages of overlapping filters their own way.
    this.#source?.close();
    const source = new EventSource(address);
    this.#source = source;
    this.#tell("connecting");
    source.onopen = () => {
      this.#pauseMilliseconds = FIRST_PAUSE_MILLISECONDS;
      this.#tell("open");
    };
    source.onmessage = (event) => this.#relay(event);
    source.onerror = () => {
      // A lost connection EventSource mends by itself; after an error status it stops for good.
      if (source.readyState === EventSource.CONNECTING) return this.#tell("connecting");
      this.#tell("waiting");
      // At random, so that not all browsers come back at once.
      this.#openIn(this.#pauseMilliseconds * (0.5 + Math.random() / 2));
      this.#pauseMilliseconds = Math.min(this.#pauseMilliseconds * 2, LAST_PAUSE_MILLISECONDS);
    };
    CONTROLS.forEach((type) => source.addEventListener(type, (event) => this.#relay(event, isFirst)));
  }

  /** @param {number} milliseconds */
  #openIn(milliseconds) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), milliseconds);
  }

  /** @param {MessageEvent<string>} event @param {boolean} [isFirst] the stream was opened when there was none before */
  #relay({ type, data, lastEventId: id }, isFirst = false) {
    const detail = JSON.parse(data);
    if (isFirst && type === "gap" && detail.last_event_id === NO_ID) {
      this.#lastId = id;
      return this.#tell("open");
    }
    const note = /** @type {Note} */ ({ kind: "event", type, id, detail });
    this.#say(note);
    this.#hear(note);
    if (type === "close" && !detail.may_reconnect) {
      this.#source?.close();
      this.#tell("closed");
    }
  }

  /** @param {Extract<Note, {kind: "hello"}>} note @param {boolean} isLarger there are filters to add to the stream */
  #greet({ tab, filters, isNew }, isLarger) {
    const messages = [...this.#newest.values()].filter(({ detail }) => matchesAny(filters, detail.topic));
    if (isNew) this.#say({ kind: "current", tab, messages });
    if (!isLarger || this.#stream === "waiting") return this.#tell(this.#stream);
    // Not "open" until it is open with the newcomer's filters too.
    this.#tell("connecting");
    this.#openIn(SETTLE_MILLISECONDS);
  }

  /** @param {StreamState} stream */
  #tell(stream) {
    const note = /** @type {Note} */ ({ kind: "state", stream, filters: [...this.#union], id: this.#lastId });
    this.#say(note);
    this.#hear(note);
  }
}
