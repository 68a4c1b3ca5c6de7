// A table of any number of rows of which only those in sight exist: sorted, filtered, walked by keys.

import { element } from "./frame.js";

const ROW = 30;
const SPARE = 8;

export class Rows {
  // `columns`: {key, text, title, cell(row) -> Node or string, value(row), numeric}; `open` gets a row's number.
  constructor(table, scroller, columns, open, onSort) {
    Object.assign(this, { table, scroller, columns, open, onSort });
    this.order = new Uint32Array(0);
    this.active = 0;
    this.sort = { key: columns[0].key, down: false };
    this.body = table.tBodies[0];
    this.head();
    scroller.addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => this.later()).observe(scroller);
    table.addEventListener("keydown", (event) => this.keyed(event));
    table.addEventListener("dblclick", (event) => this.clicked(event, true));
    table.addEventListener("click", (event) => this.clicked(event, false));
  }

  head() {
    const row = element("tr", { ariaRowIndex: "1" });
    this.columns.forEach((column, index) => {
      const button = element("button", { type: "button", textContent: column.text, title: column.title ?? "" });
      button.addEventListener("click", () => this.sortBy(column.key));
      const cell = element("th", { scope: "col" }, button);
      cell.setAttribute("aria-colindex", String(index + 1));
      cell.dataset.key = column.key;
      cell.classList.toggle("text", !column.numeric);
      row.append(cell);
    });
    this.table.tHead.replaceChildren(row);
    this.markSort();
  }

  markSort() {
    for (const cell of this.table.tHead.rows[0].cells) {
      const on = cell.dataset.key === this.sort.key;
      cell.setAttribute("aria-sort", !on ? "none" : this.sort.down ? "descending" : "ascending");
    }
  }

  sortBy(key, down) {
    const column = this.columns.find((one) => one.key === key);
    if (!column) return;
    this.sort = { key, down: down ?? (this.sort.key === key ? !this.sort.down : column.downFirst ?? false) };
    this.markSort();
    this.onSort(this.sort);
    this.show(this.order, true);
  }

  // undefined values last, whichever way
  sorted(rows) {
    const { value } = this.columns.find((one) => one.key === this.sort.key);
    const n = rows.length, keys = new Float64Array(n), index = new Uint32Array(n);
    let defined = 0, last = n;
    for (let i = 0; i < n; i += 1) {
      const key = value(rows[i]);
      if (Number.isNaN(key)) { last -= 1; index[last] = i; } else { keys[i] = key; index[defined] = i; defined += 1; }
    }
    const sign = this.sort.down ? -1 : 1;
    index.subarray(0, defined).sort((a, b) => sign * (keys[a] - keys[b]) || rows[a] - rows[b]);
    index.subarray(defined).sort((a, b) => rows[a] - rows[b]);
    return index.map((i) => rows[i]);
  }

  show(rows, keepOrder = false) {
    const held = this.order[this.active];
    this.order = this.sorted(rows);
    const place = keepOrder ? -1 : this.order.indexOf(held);
    this.active = Math.max(0, place);
    this.table.setAttribute("aria-rowcount", String(this.order.length + 1));
    if (place < 0) this.scroller.scrollTop = 0;
    this.paint();
  }

  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.paint(); });
  }

  paint() {
    const height = this.scroller.clientHeight;
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW) - SPARE);
    const last = Math.min(this.order.length, first + Math.ceil(height / ROW) + 2 * SPARE);
    const focused = this.body.contains(document.activeElement);
    const rows = [this.spacer(first)];
    for (let i = first; i < last; i += 1) rows.push(this.row(i));
    rows.push(this.spacer(this.order.length - last));
    this.body.replaceChildren(...rows);
    if (focused) this.focus(false);
  }

  spacer(n) {
    const cell = element("td", { colSpan: this.columns.length });
    cell.style.height = `${n * ROW}px`;
    const row = element("tr", { className: "spacer", ariaHidden: "true" }, cell);
    row.hidden = n === 0;
    return row;
  }

  row(place) {
    const number = this.order[place];
    const row = element("tr", { tabIndex: place === this.active ? 0 : -1 });
    row.setAttribute("aria-rowindex", String(place + 2));
    row.dataset.place = String(place);
    for (const column of this.columns) {
      const cell = element("td", { className: column.numeric ? "" : "text" });
      cell.append(column.cell(number));
      row.append(cell);
    }
    return row;
  }

  focus(scroll = true) {
    const top = this.active * ROW, room = this.scroller.clientHeight - this.table.tHead.offsetHeight;
    if (scroll) {
      if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
      else if (top + ROW > this.scroller.scrollTop + room) this.scroller.scrollTop = top + ROW - room;
      this.paint();
    }
    this.body.querySelector(`tr[data-place="${this.active}"]`)?.focus({ preventScroll: true });
  }

  keyed(event) {
    if (!this.body.contains(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / ROW) - 2), last = this.order.length - 1;
    const to = {
      ArrowDown: this.active + 1, ArrowUp: this.active - 1, PageDown: this.active + page,
      PageUp: this.active - page, Home: 0, End: last,
    }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.active = Math.min(last, Math.max(0, to));
      this.focus();
    } else if (event.key === "Enter" && event.target.tagName !== "A") {
      this.open(this.order[this.active]);
    }
  }

  clicked(event, twice) {
    const row = event.target.closest("tbody tr[data-place]");
    if (!row || event.target.tagName === "A") return;
    if (twice) { this.open(this.order[Number(row.dataset.place)]); return; }
    this.active = Number(row.dataset.place);
    this.paint();
    this.focus(false);
  }
}
