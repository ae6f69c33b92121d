/** Publishing, and what became of it, in words. */

/**
 * @param {Response} answer
 * @returns {Promise<[boolean, string]>} whether it went well, and what to say
 */
async function outcomeOf(answer) {
  const body = await answer.json();
  if (answer.ok) {
    const told = body.qos === 0 ? "handed over; nobody acknowledges QoS 0" : `acknowledged: ${body.reason} (${body.reason_code})`;
    return [true, `${body.topic}: ${told}`];
  }
  // The page signs in; which header to send is for programs.
  if (answer.status === 401) return [false, `${body.title}: sign in first, by the button at the top of the page.`];
  return [false, [`${body.title}: ${body.detail}`, body.hint].filter(Boolean).join(" — ")];
}

/**
 * Make a call, and say in `output` what became of it.
 * @param {HTMLElement} output
 * @param {() => Promise<Response>} call
 */
async function tell(output, call) {
  output.dataset.outcome = "waiting";
  output.textContent = "…";
  try {
    const [isGood, text] = await outcomeOf(await call());
    output.dataset.outcome = isGood ? "good" : "bad";
    output.textContent = text;
  } catch {
    output.dataset.outcome = "bad";
    output.textContent = "The bridge does not answer. Whether the message arrived is unknown.";
  }
}

/**
 * @param {typeof fetch} call makes requests, with what shows who makes them
 * @param {HTMLFormElement} form
 * @param {HTMLElement} output
 */
export function preparePublishing(call, form, output) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = new FormData(form);
    const query = new URLSearchParams({ topic: String(given.get("topic")), qos: String(given.get("qos")) });
    if (given.get("retain")) query.set("retain", "true");
    // A form's text has CRLF line ends; what was typed has not.
    const body = String(given.get("payload")).replaceAll("\r\n", "\n");
    tell(output, () => call(`v1/topics?${query}`, { method: "POST", body: new Blob([body]) }));
  });
}

/**
 * Clear what the broker keeps for a topic.
 * @param {typeof fetch} call makes requests, with what shows who makes them
 * @param {string} topic
 * @param {HTMLElement} output
 */
export function clearRetained(call, topic, output) {
  return tell(output, () => call(`v1/topics?${new URLSearchParams({ topic })}`, { method: "DELETE" }));
}
