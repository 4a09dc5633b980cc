"use strict";

// Tables: a click on a column's head sorts by that column, a second click reverses the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("th[data-column]")];
  const body = table.tBodies[0];
  for (const head of heads) {
    head.querySelector("button").addEventListener("click", () => {
      const isText = "text" in head.dataset;
      const first = isText ? "ascending" : "descending";
      const other = isText ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      for (const one of heads) one.setAttribute("aria-sort", one === head ? order : "none");
      const column = Number(head.dataset.column);
      const value = (row) => row.cells[column].dataset.value;
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].sort((a, b) => {
        const x = value(a);
        const y = value(b);
        // Rows without a figure stay at the end.
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (isText ? x.localeCompare(y) : Number(x) - Number(y));
      });
      body.append(...rows);
    });
  }
}

// Pictures in layers: the slider uncovers each picture over the one before.
for (const figure of document.querySelectorAll("figure[data-wipe]")) {
  const layers = [...figure.querySelectorAll(".wipe img")];
  const names = layers.map((layer) => layer.dataset.name);
  const slider = figure.querySelector("input[type=range]");
  const buttons = [...figure.querySelectorAll(".steps button")];
  const edge = figure.querySelector(".edge");
  const show = () => {
    const at = Number(slider.value);
    const part = at % 1;
    layers.forEach((layer, i) => {
      const seen = Math.min(1, Math.max(0, at - i + 1));
      layer.style.clipPath = i === 0 || seen === 1 ? "" : `inset(0 ${100 * (1 - seen)}% 0 0)`;
    });
    edge.hidden = part === 0;
    edge.style.left = `${100 * part}%`;
    const below = names[Math.floor(at)];
    const text = part === 0 ? below : `${names[Math.floor(at) + 1]} over ${below}`;
    slider.setAttribute("aria-valuetext", text);
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === at)));
  };
  slider.addEventListener("input", show);
  buttons.forEach((button, i) =>
    button.addEventListener("click", () => {
      slider.value = String(i);
      show();
    })
  );
  show();
}

// Views: one of them is visible at a time.
for (const group of document.querySelectorAll("[data-views]")) {
  const buttons = [...group.querySelectorAll("button[data-view]")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const one of buttons) {
        one.setAttribute("aria-pressed", String(one === button));
        document.getElementById(one.dataset.view).hidden = one !== button;
      }
    });
  }
}
