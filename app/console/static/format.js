/** Values and times as people read them. */

/**
 * JSON, indented. It works on the text, so that every digit stays as it came.
 * @param {string} text valid JSON
 */
export function indent(text) {
  let depth = 0;
  let out = "";
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) ?? [];
  for (const [index, token] of tokens.entries()) {
    if (token === "{" || token === "[") {
      const isEmpty = tokens[index + 1] === (token === "{" ? "}" : "]");
      depth += 1;
      out += isEmpty ? token : `${token}\n${"  ".repeat(depth)}`;
    } else if (token === "}" || token === "]") {
      depth -= 1;
      const isEmpty = tokens[index - 1] === (token === "}" ? "{" : "[");
      out += isEmpty ? token : `\n${"  ".repeat(depth)}${token}`;
    } else if (token === ",") {
      out += `,\n${"  ".repeat(depth)}`;
    } else {
      out += token === ":" ? ": " : token;
    }
  }
  return out;
}

/**
 * How long ago, short.
 * @param {number} at milliseconds on the page's clock
 */
export function age(at) {
  const seconds = Math.max(0, Math.round((performance.now() - at) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h`;
}

/** @param {string} time as the bridge tells it */
export function clock(time) {
  return new Date(time).toLocaleTimeString();
}

/**
 * Points of a line through numbers, for a box of this size.
 * @param {number[]} numbers
 * @param {number} width
 * @param {number} height
 */
export function points(numbers, width, height) {
  if (numbers.length < 2) return "";
  const low = Math.min(...numbers);
  const span = Math.max(...numbers) - low || 1;
  const step = width / (numbers.length - 1);
  const margin = 2;
  return numbers
    .map((number, index) => {
      const y = height - margin - ((number - low) / span) * (height - 2 * margin);
      return `${(index * step).toFixed(1)},${y.toFixed(1)}`;
    })
    .join(" ");
}
