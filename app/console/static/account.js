/** The two dialogs of signing in, and of who is signed in. */

/** @param {string} text */
function term(text) {
  const made = document.createElement("dt");
  made.textContent = text;
  return made;
}

/** @param {string[]} texts one below the other */
function described(texts) {
  const made = document.createElement("dd");
  for (const text of texts.length ? texts : ["nothing"]) {
    const line = document.createElement("div");
    line.textContent = text;
    made.append(line);
  }
  return made;
}

/** @param {import("./access.js").Grant} grant */
function grantText({ filter, qos, retain }, isPublish = false) {
  return [filter, qos < 2 && `QoS ${qos} at most`, isPublish && !retain && "not retained"].filter(Boolean).join(", ");
}

export class Account {
  #access;
  #get;
  #signIn;
  #shown;

  /**
   * @param {import("./access.js").Access} access
   * @param {(id: string) => HTMLElement} get
   * @param {() => void} onSignOut
   */
  constructor(access, get, onSignOut) {
    this.#access = access;
    this.#get = get;
    this.#signIn = /** @type {HTMLDialogElement} */ (get("sign-in"));
    this.#shown = /** @type {HTMLDialogElement} */ (get("account"));
    get("who").addEventListener("click", () => (access.principal ? this.#shown.showModal() : this.ask("")));
    get("sign-out").addEventListener("click", () => {
      this.#shown.close();
      onSignOut();
    });
    get("sign-in-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#try();
    });
    this.#signIn.addEventListener("close", () => (this.#token.value = ""));
  }

  /** Whether one of the dialogs is open. */
  get isOpen() {
    return this.#signIn.open || this.#shown.open;
  }

  get #token() {
    return /** @type {HTMLInputElement} */ (this.#get("token"));
  }

  /**
   * Ask for a key or token.
   * @param {string} reason why, where it is more than the first time
   */
  ask(reason) {
    this.#get("sign-in-reason").textContent = reason || "This bridge asks who you are.";
    this.#fault("");
    this.draw();
    this.#shown.close();
    if (!this.#signIn.open) this.#signIn.showModal();
  }

  /** Show who is signed in. */
  draw() {
    const { principal, isNeeded, hasToken } = this.#access;
    const who = this.#get("who");
    who.hidden = !isNeeded && (principal === null || principal.source === "none");
    who.textContent = principal === null ? "Sign in" : principal.subject;
    who.setAttribute("aria-label", principal === null ? "Sign in" : `Signed in as ${principal.subject}`);
    this.#get("sign-out").hidden = !hasToken;
    if (principal === null) return;
    const until = principal.expires_at === null ? "until it is revoked" : new Date(principal.expires_at).toLocaleString();
    this.#get("account-facts").replaceChildren(
      term("Name"),
      described([principal.subject]),
      term("By"),
      described([principal.source.replaceAll("_", " ")]),
      term("Good"),
      described([until]),
      term("May follow"),
      described(principal.subscribe.map((each) => grantText(each))),
      term("May publish to"),
      described(principal.publish.map((each) => grantText(each, true))),
      term("Scopes"),
      described(principal.scopes),
    );
  }

  async #try() {
    const fault = await this.#access.signIn(this.#token.value.trim());
    this.#fault(fault);
    if (fault === "") this.#signIn.close();
    else this.#token.select();
  }

  /** @param {string} text */
  #fault(text) {
    this.#get("sign-in-fault").textContent = text;
    this.#get("sign-in-fault").hidden = text === "";
    this.#token.setAttribute("aria-invalid", String(text !== ""));
  }
}
