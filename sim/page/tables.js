"use strict";
// Of a run's page and of a search's.
(() => {
// Tables sort by the value behind each cell; numbers start with the largest.
function cellValue(cell, text) {
  if (text) return cell.textContent.trim().toLowerCase();
  const raw = cell.dataset.value ?? cell.querySelector("data")?.value ?? cell.textContent;
  return raw === "" ? -Infinity : Number(raw);
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    const sort = () => {
      const text = head.dataset.sort === "text";
      const up   = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") !== "ascending" : text;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const compare = (a, b) => a < b ? -1 : a > b ? 1 : 0;
      const rows = [...body.rows].map((row) => [cellValue(row.cells[column], text), row]);
      rows.sort((a, b) => up ? compare(a[0], b[0]) : compare(b[0], a[0]));
      body.append(...rows.map((pair) => pair[1]));
    };
    head.addEventListener("click", (e) => { if (!e.target.closest("a")) sort(); });
    head.addEventListener("keydown", (e) => { if (e.target === head && e.key === "Enter") sort(); });
  });
}
})();
