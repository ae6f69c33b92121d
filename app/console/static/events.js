/** Server-Sent Events read from a `fetch`, which can carry a header where EventSource can't (WHATWG HTML §9.2.6). */

/**
 * @typedef {object} StreamEvent
 * @property {string} name empty for a message
 * @property {string} id the last id so far
 * @property {string | null} data null where only the id was told
 */

/**
 * The events of a stream, together as they come.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<StreamEvent[]>}
 */
export async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let id = "";
  let name = "";
  /** @type {string | null} */
  let data = null;
  let isIdNew = false;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop() ?? "";
    const events = [];
    for (const line of lines) {
      if (line === "") {
        if (data !== null || isIdNew) events.push({ name, id, data });
        name = "";
        data = null;
        isIdNew = false;
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const text = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
      if (field === "data") data = data === null ? text : `${data}\n${text}`;
      else if (field === "event") name = text;
      else if (field === "id") {
        id = text;
        isIdNew = true;
      }
    }
    if (events.length > 0) yield events;
  }
}
