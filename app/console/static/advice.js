/** What the page says while there is no topic to show. */

/** Filters that are offered where nothing is followed. */
const MAX_OFFERS = 6;
/** What a bridge that asks nobody is for: trying out. The made-up sensors of `tidegate dev` are in both. */
const ANYBODYS = ["demo/#", "#"];

/**
 * Say what to do, and offer filters where none is followed.
 * @param {import("./access.js").Access} access
 * @param {string[]} followed
 * @param {(id: string) => HTMLElement} get
 * @param {(filter: string) => void} follow takes the filter of a button that was pressed
 */
export function advise({ principal, isNeeded }, followed, get, follow) {
  const granted = principal?.source === "none" ? ANYBODYS : (principal?.subscribe ?? []).map((each) => each.filter);
  const offers = followed.length || isNeeded ? [] : [...new Set(granted)].slice(0, MAX_OFFERS);
  get("next").textContent = words(isNeeded, followed.length > 0, principal !== null && granted.length === 0, offers);
  get("offers").hidden = offers.length === 0;
  get("offers").replaceChildren(...offers.map((filter) => button(filter, follow)));
}

/**
 * @param {boolean} isSignInNeeded
 * @param {boolean} isFollowing
 * @param {boolean} hasNothing
 * @param {string[]} offers
 */
function words(isSignInNeeded, isFollowing, hasNothing, offers) {
  if (isSignInNeeded) return "Sign in, by the button at the top of the page, to see what you may follow.";
  if (isFollowing) return "Nothing has come yet. Topics show here as soon as a message does.";
  if (hasNothing) return "Nothing is granted to you to follow: whoever runs the bridge gives out grants.";
  return `Follow a filter to watch its topics here: type one above${offers.length ? ", or begin with" : "."}`;
}

/**
 * @param {string} filter
 * @param {(filter: string) => void} follow
 */
function button(filter, follow) {
  const made = document.createElement("button");
  const name = document.createElement("code");
  name.textContent = filter;
  made.type = "button";
  made.append("Follow ", name);
  made.addEventListener("click", () => follow(filter));
  return made;
}
