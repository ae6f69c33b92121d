/**
 * What is known of each topic, as a tree of levels. Nothing here touches the page: messages only go into maps,
 * and whoever draws looks when it has time.
 *
 * Topics are somebody else's input: a level may be called `__proto__`, so levels live in Maps.
 */

const MAX_TOPICS = 10_000;
const MAX_NUMBERS = 60;
const MAX_HISTORY = 50;
const MAX_SHOWN = 300;

/**
 * @typedef {object} Message
 * @property {string} text the payload as text: JSON as it came, every digit of it
 * @property {"json" | "text" | "base64"} encoding
 * @property {number} qos
 * @property {boolean} retain
 * @property {string} time
 * @property {Record<string, unknown>} properties
 */

/** One level of a topic, and the topic that ends with it, if there was a message. */
export class Level {
  /**
   * @param {string} name
   * @param {Level | null} parent
   */
  constructor(name, parent) {
    this.name = name;
    this.parent = parent;
    this.depth = parent === null ? 0 : parent.depth + 1;
    this.path = parent === null || parent.parent === null ? name : `${parent.path}/${name}`;
    /** @type {Map<string, Level>} */
    this.children = new Map();
    /** @type {Level[] | null} */
    this.sorted = null;
    this.isOpen = true;
    this.isStale = false;
    this.count = 0;
    this.updatedAt = 0;
    /** @type {Message | null} */
    this.latest = null;
    /** @type {Message[]} */
    this.history = [];
    /** @type {number[]} */
    this.numbers = [];
  }

  /** The children in order of their names. */
  get ordered() {
    this.sorted ??= [...this.children.values()].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
    return this.sorted;
  }

  /** The latest value on one line. */
  get shown() {
    if (this.latest === null) return "";
    const text = this.latest.text.length > MAX_SHOWN ? `${this.latest.text.slice(0, MAX_SHOWN)}…` : this.latest.text;
    return this.latest.encoding === "base64" ? `base64 ${text}` : text;
  }
}

/** All topics. */
export class Topics {
  root = new Level("", null);
  messages = 0;
  topics = 0;
  ignored = 0;
  /** Rises when a level came or went, and not for a new value. */
  shape = 0;

  /**
   * Take a message.
   * @param {string} data the event's data
   */
  take(data) {
    const envelope = JSON.parse(data);
    const level = this.#levelOf(envelope.topic);
    this.messages += 1;
    if (level === null) {
      this.ignored += 1;
      return;
    }
    if (level.latest !== null) {
      level.history.push(level.latest);
      if (level.history.length > MAX_HISTORY) level.history.shift();
    } else {
      this.topics += 1;
      this.shape += 1;
    }
    level.latest = {
      text: textOf(envelope, data),
      encoding: envelope.encoding,
      qos: envelope.qos,
      retain: envelope.retain,
      time: envelope.time,
      properties: envelope.properties,
    };
    level.count += 1;
    level.updatedAt = performance.now();
    level.isStale = false;
    const number = numberIn(envelope);
    if (number !== null) {
      level.numbers.push(number);
      if (level.numbers.length > MAX_NUMBERS) level.numbers.shift();
    }
  }

  /** Values may be out of date, until a new one comes. */
  markStale() {
    for (const level of this.walk()) level.isStale = level.latest !== null;
  }

  /** @param {string} path */
  find(path) {
    /** @type {Level | undefined} */
    let level = this.root;
    for (const name of path.split("/")) level = level?.children.get(name);
    return level ?? null;
  }

  /** Every level, in order. */
  *walk(level = this.root) {
    for (const child of level.ordered) {
      yield child;
      yield* this.walk(child);
    }
  }

  clear() {
    this.root = new Level("", null);
    this.messages = this.topics = this.ignored = 0;
    this.shape += 1;
  }

  /** @param {string} topic */
  #levelOf(topic) {
    let level = this.root;
    const names = topic.split("/");
    for (const [index, name] of names.entries()) {
      let child = level.children.get(name);
      if (child === undefined) {
        if (this.topics >= MAX_TOPICS) return null;
        child = new Level(name, level);
        level.children.set(name, child);
        level.sorted = null;
        this.shape += 1;
      }
      if (index === names.length - 1 && child.latest === null && this.topics >= MAX_TOPICS) return null;
      level = child;
    }
    return level;
  }
}

/**
 * The payload as text. JSON is cut out of the event as it came: reading it into numbers would lose digits.
 * @param {{ payload: unknown, encoding: string }} envelope
 * @param {string} data
 */
function textOf(envelope, data) {
  if (envelope.encoding !== "json") return String(envelope.payload);
  const start = data.indexOf('"payload":') + '"payload":'.length;
  return data.slice(start, data.lastIndexOf(',"encoding":"'));
}

/**
 * A number to draw: the payload, or the first member that is one.
 * @param {{ payload: unknown, encoding: string }} envelope
 */
function numberIn({ payload, encoding }) {
  if (encoding !== "json") return null;
  if (typeof payload === "number") return payload;
  if (typeof payload !== "object" || payload === null || Array.isArray(payload)) return null;
  return Object.values(payload).find((value) => typeof value === "number") ?? null;
}
