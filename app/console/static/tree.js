/**
 * The tree on the page. Only the rows in sight exist: thousands of topics cost no more than a screenful.
 * Keyboard and roles follow the ARIA pattern of a tree view, with `aria-activedescendant`.
 */

import { age, points } from "./format.js";

const SPARE_ROWS = 4;
const SVG = "http://www.w3.org/2000/svg";

export class Tree {
  /** @type {import("./topics.js").Level[]} */
  #visible = [];
  /** @type {HTMLElement[]} */
  #pool = [];
  #shape = -1;
  #search = "";
  #active = 0;
  #rowPx = 40;

  /**
   * @param {HTMLElement} box
   * @param {HTMLElement} rows
   * @param {import("./topics.js").Topics} topics
   * @param {(level: import("./topics.js").Level) => void} onSelect
   */
  constructor(box, rows, topics, onSelect) {
    this.box = box;
    this.rows = rows;
    this.topics = topics;
    this.onSelect = onSelect;
    /** @type {string | null} */
    this.selected = null;
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    box.addEventListener("keydown", (event) => this.#onKey(event));
    rows.addEventListener("click", (event) => this.#onClick(event));
    new ResizeObserver(() => this.#measure()).observe(box);
  }

  /** @param {string} text */
  search(text) {
    this.#search = text.trim().toLowerCase();
    this.#shape = -1;
    this.draw();
  }

  /** @param {boolean} isOpen */
  openAll(isOpen) {
    for (const level of this.topics.walk()) level.isOpen = isOpen;
    this.#shape = -1;
    this.draw();
  }

  /** Bring the page up to date. */
  draw() {
    if (this.#shape !== this.topics.shape) this.#list();
    const first = Math.max(0, Math.floor(this.box.scrollTop / this.#rowPx) - SPARE_ROWS);
    const count = Math.ceil(this.box.clientHeight / this.#rowPx) + 2 * SPARE_ROWS;
    const shown = this.#visible.slice(first, first + count);
    while (this.#pool.length < shown.length) this.#pool.push(this.rows.appendChild(makeRow(this.#pool.length)));
    for (const [index, row] of this.#pool.entries()) {
      const level = shown[index];
      row.hidden = level === undefined;
      if (level !== undefined) this.#drawRow(row, level, first + index);
    }
    const active = this.#pool.find((row) => !row.hidden && Number(row.dataset.index) === this.#active);
    if (active) this.box.setAttribute("aria-activedescendant", active.id);
    else this.box.removeAttribute("aria-activedescendant");
  }

  #measure() {
    this.#rowPx = parseFloat(getComputedStyle(this.box).getPropertyValue("--row")) || 40;
    this.#shape = -1;
    this.draw();
  }

  #list() {
    const held = this.#visible[this.#active];
    this.#shape = this.topics.shape;
    this.#visible = [];
    for (const child of this.topics.root.ordered) this.#collect(child);
    this.rows.style.height = `${this.#visible.length * this.#rowPx}px`;
    const at = held === undefined ? -1 : this.#visible.indexOf(held);
    this.#active = at >= 0 ? at : Math.min(this.#active, Math.max(0, this.#visible.length - 1));
  }

  /** @param {import("./topics.js").Level} level */
  #collect(level) {
    if (!this.#search) {
      this.#visible.push(level);
      if (level.isOpen) for (const child of level.ordered) this.#collect(child);
      return true;
    }
    const at = this.#visible.length;
    this.#visible.push(level);
    let isWanted = level.latest !== null && level.path.toLowerCase().includes(this.#search);
    for (const child of level.ordered) isWanted = this.#collect(child) || isWanted;
    if (!isWanted) this.#visible.length = at;
    return isWanted;
  }

  /**
   * @param {HTMLElement} row
   * @param {import("./topics.js").Level} level
   * @param {number} index
   */
  #drawRow(row, level, index) {
    const [twist, name, retained, value, curve, count, when] = row.children;
    row.dataset.index = String(index);
    row.style.transform = `translateY(${index * this.#rowPx}px)`;
    row.style.setProperty("--depth", String(level.depth - 1));
    row.setAttribute("aria-level", String(level.depth));
    const siblings = level.parent?.ordered ?? [];
    row.setAttribute("aria-setsize", String(siblings.length));
    row.setAttribute("aria-posinset", String(siblings.indexOf(level) + 1));
    const hasChildren = level.children.size > 0;
    if (hasChildren) row.setAttribute("aria-expanded", String(level.isOpen || this.#search !== ""));
    else row.removeAttribute("aria-expanded");
    row.setAttribute("aria-selected", String(level.path === this.selected && level.latest !== null));
    row.classList.toggle("active", index === this.#active);
    row.classList.toggle("stale", level.isStale);
    write(twist, hasChildren ? (level.isOpen || this.#search ? "▾" : "▸") : "");
    write(name, level.name === "" ? "(empty)" : level.name);
    name.classList.toggle("nameless", level.name === "");
    write(retained, level.latest?.retain ? "retained" : "");
    write(value, level.latest === null && !level.isOpen ? `${level.children.size} below` : level.shown);
    const line = points(level.numbers, 72, 20);
    if (curve.firstElementChild?.getAttribute("points") !== line) curve.firstElementChild?.setAttribute("points", line);
    write(count, level.latest === null ? "" : `${level.count}×`);
    write(when, level.latest === null ? "" : age(level.updatedAt));
  }

  /** @param {MouseEvent} event */
  #onClick(event) {
    const target = /** @type {Element} */ (event.target);
    const row = /** @type {HTMLElement | null} */ (target.closest("[role=treeitem]"));
    if (row === null) return;
    this.#active = Number(row.dataset.index);
    const level = this.#visible[this.#active];
    if (target.classList.contains("twist") || level.latest === null) this.#toggle(level, !level.isOpen);
    else this.#select(level);
    this.draw();
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const level = this.#visible[this.#active];
    if (level === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.#visible.length - 1;
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.#rowPx) - 1);
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowDown: () => this.#move(this.#active + 1),
      ArrowUp: () => this.#move(this.#active - 1),
      PageDown: () => this.#move(this.#active + page),
      PageUp: () => this.#move(this.#active - page),
      Home: () => this.#move(0),
      End: () => this.#move(last),
      ArrowRight: () => {
        if (level.children.size === 0) return;
        if (level.isOpen) this.#move(this.#active + 1);
        else this.#toggle(level, true);
      },
      ArrowLeft: () => {
        if (level.children.size > 0 && level.isOpen) this.#toggle(level, false);
        else if (level.parent?.parent) this.#move(this.#visible.indexOf(level.parent));
      },
      Enter: () => (level.latest === null ? this.#toggle(level, !level.isOpen) : this.#select(level)),
      " ": () => (level.latest === null ? this.#toggle(level, !level.isOpen) : this.#select(level)),
    };
    const act = keys[event.key];
    if (act === undefined) return;
    event.preventDefault();
    act();
    this.draw();
  }

  /** @param {number} index */
  #move(index) {
    this.#active = Math.max(0, Math.min(index, this.#visible.length - 1));
    const top = this.#active * this.#rowPx;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    const overflow = top + this.#rowPx - this.box.scrollTop - this.box.clientHeight;
    if (overflow > 0) this.box.scrollTop += overflow;
  }

  /**
   * @param {import("./topics.js").Level} level
   * @param {boolean} isOpen
   */
  #toggle(level, isOpen) {
    level.isOpen = isOpen;
    this.#shape = -1;
  }

  /** @param {import("./topics.js").Level} level */
  #select(level) {
    this.selected = level.path;
    this.onSelect(level);
  }
}

/** @param {number} index */
function makeRow(index) {
  const row = document.createElement("div");
  row.setAttribute("role", "treeitem");
  row.id = `row-${index}`;
  for (const name of ["twist", "name", "tag", "value"]) row.append(span(name));
  const curve = document.createElementNS(SVG, "svg");
  curve.setAttribute("viewBox", "0 0 72 20");
  curve.setAttribute("aria-hidden", "true");
  curve.append(document.createElementNS(SVG, "polyline"));
  row.append(curve, span("count"), span("age"));
  return row;
}

/** @param {string} name */
function span(name) {
  const made = document.createElement("span");
  made.className = name;
  if (name === "twist") made.setAttribute("aria-hidden", "true");
  return made;
}

/**
 * Text that has not changed is left alone: writing it again would cost a layout.
 * @param {Element} element
 * @param {string} text
 */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
