/**
 * Who uses the console. A key or token is kept in this object alone: not in the browser's storage, not in a
 * cookie, and not in the address.
 */

/**
 * @typedef {object} Grant
 * @property {string} filter
 * @property {number} qos
 * @property {boolean} retain
 *
 * @typedef {object} Principal
 * @property {string} subject
 * @property {string} source
 * @property {string[]} scopes
 * @property {string | null} expires_at
 * @property {Grant[]} publish
 * @property {Grant[]} subscribe
 */

/** Events: `changed` (there is another principal, or none), `needed` (detail: why one has to sign in). */
export class Access extends EventTarget {
  #token = "";
  /** @type {Principal | null} */
  principal = null;
  /** Whether the bridge asked for a key or token and has none. */
  isNeeded = false;

  /** Whether there is a token to forget; a cookie is somebody else's. */
  get hasToken() {
    return this.#token !== "";
  }

  /**
   * `fetch`, with the token.
   * @param {string | URL | Request} path
   * @param {RequestInit} [options]
   */
  call = async (path, options = {}) => {
    const token = this.#token;
    const headers = new Headers(options.headers);
    if (token) headers.set("Authorization", `Bearer ${token}`);
    const answer = await fetch(path, { ...options, headers });
    if (answer.status === 401 && token === this.#token) {
      const problem = await answer.clone().json();
      this.end(token ? problem.detail : "");
    }
    return answer;
  };

  /** Find out who one is to the bridge. */
  async look() {
    const answer = await this.call("v1/principal");
    if (!answer.ok) return;
    this.principal = await answer.json();
    this.isNeeded = false;
    this.dispatchEvent(new CustomEvent("changed"));
  }

  /**
   * Try a key or token.
   * @param {string} token
   * @returns {Promise<string>} what is wrong; empty where it is good
   */
  async signIn(token) {
    let headers;
    try {
      headers = new Headers({ Authorization: `Bearer ${token}` });
    } catch {
      return "It has characters that no key or token has.";
    }
    try {
      const answer = await fetch("v1/principal", { headers, cache: "no-store" });
      const body = await answer.json();
      if (!answer.ok) return [body.detail, body.hint].filter(Boolean).join(" — ");
      this.#token = token;
      this.principal = body;
    } catch {
      return "The bridge does not answer.";
    }
    this.isNeeded = false;
    this.dispatchEvent(new CustomEvent("changed"));
    return "";
  }

  /**
   * Forget the token.
   * @param {string} reason why one has to sign in again
   */
  end(reason) {
    const isNew = !this.isNeeded || this.#token !== "";
    this.#token = "";
    this.principal = null;
    this.isNeeded = true;
    if (isNew) this.dispatchEvent(new CustomEvent("needed", { detail: reason }));
  }
}

/**
 * Whether all that one filter matches, another matches too (MQTT 5 §4.7).
 * @param {string} granted
 * @param {string} asked
 */
export function covers(granted, asked) {
  const levels = granted.split("/");
  const others = asked.replace(/^\$share\/[^/]*\//, "").split("/");
  if ("+#".includes(levels[0]) && others[0].startsWith("$")) return false;
  for (const [index, level] of levels.entries()) {
    if (level === "#") return true;
    if (index === others.length || others[index] === "#" || (level !== "+" && level !== others[index])) return false;
  }
  return levels.length === others.length;
}

/**
 * What of some filters is granted: those that are, and of the others the granted parts.
 * @param {string[]} filters
 * @param {Grant[]} grants
 */
export function narrowed(filters, grants) {
  const granted = grants.map((each) => each.filter);
  const parts = filters.flatMap((filter) =>
    granted.some((each) => covers(each, filter)) ? [filter] : granted.filter((each) => covers(filter, each)),
  );
  return [...new Set(parts)];
}
