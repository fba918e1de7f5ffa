"use strict";
// Sorting, the pointer over the figures, copying. The page is complete without any of it. Text reaches the page only
// through textContent.

// A heading sorts: first by what is good to see first (numbers descending, names ascending), then the other way round.
// What is missing stays last.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  for (const [column, head] of heads.entries()) {
    const button = head.querySelector("button");
    button.addEventListener("click", () => {
      const first = button.dataset.sort === "text" ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      for (const one of heads) one.setAttribute("aria-sort", one === head ? order : "none");
      const sign = order === "ascending" ? 1 : -1;
      const keyed = [...body.rows].map((row) => [row.cells[column].dataset.value, row]);
      keyed.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (button.dataset.sort === "text" ? a.localeCompare(b) : Number(a) - Number(b));
      });
      body.append(...keyed.map(([, row]) => row));
    });
  }
}

// The pointer, or the arrow keys, name the user under them.
const source = document.getElementById("people-data");
const people = source ? JSON.parse(source.textContent) : null;
const percent = (thousandths, signed) => {
  if (thousandths === null) return "unknown";
  const text = (Math.abs(thousandths) / 10).toFixed(1);
  return (thousandths < 0 ? "−" : signed && thousandths > 0 ? "+" : "") + text;
};
const count = (n) => (n === null ? "unknown" : n.toLocaleString("en"));

function describe(own, i) {
  const verdict = people.verdicts[own.verdict[i]];
  const outcome = { better: "better off", worse: "worse off", untested: "not tested" }[verdict] || "unclear";
  const bounds = own.gain_lo[i] === null ? "" : ` (${percent(own.gain_lo[i], true)} to ${percent(own.gain_hi[i], true)})`;
  return [
    people.ids[own.user[i]],
    `gain ${percent(own.gain[i], true)} points${bounds}, ${outcome}`,
    `accuracy ${percent(own.accuracy[i])} %; judgements: ${count(own.train[i])} in training, ${count(own.test[i])} in test`,
    ...(own.minority[i] ? ["minority user"] : []),
  ].join("\n");
}

// Where each user is drawn, as shares of the plane's width and height.
function places(plane, own) {
  const n = own.user.length;
  if (plane.dataset.figure === "gains") return own.user.map((_, i) => [(i + 0.5) / n, null]);
  const [low, high] = plane.dataset.x.split(" ").map((end) => Math.log(end));
  const [bottom, top] = plane.dataset.y.split(" ").map(Number);
  return own.user.map((_, i) => [
    own.train[i] === null ? NaN : (Math.log(Math.max(own.train[i], 1)) - low) / (high - low),
    own.accuracy[i] === null ? NaN : 1 - (own.accuracy[i] / 1000 - bottom) / (top - bottom),
  ]);
}

for (const plane of document.querySelectorAll(".plane[data-figure]")) {
  const own = people.learners[Number(plane.closest(".panel").dataset.panel)];
  const spots = places(plane, own);
  const drawn = spots.map((_, i) => i).filter((i) => !Number.isNaN(spots[i][0]) && !Number.isNaN(spots[i][1]));
  const steps = drawn.slice().sort((i, j) => spots[i][0] - spots[j][0]);
  const tip = plane.querySelector(".tip");
  const cursor = plane.querySelector(".cursor");
  let at = -1;
  const show = (i) => {
    at = i;
    tip.hidden = cursor.hidden = i < 0;
    if (i < 0) return;
    const [x, y] = spots[i];
    tip.textContent = describe(own, i);
    cursor.style.left = `${100 * x}%`;
    if (y !== null) cursor.style.top = `${100 * y}%`;
    tip.style.left = x < 0.5 ? `calc(${100 * x}% + 12px)` : "auto";
    tip.style.right = x < 0.5 ? "auto" : `calc(${100 - 100 * x}% + 12px)`;
  };
  plane.addEventListener("pointermove", (event) => {
    const box = plane.getBoundingClientRect();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    let nearest = -1;
    let least = Infinity;
    for (const i of drawn) {
      const across = spots[i][0] * box.width - x;
      const down = spots[i][1] === null ? 0 : spots[i][1] * box.height - y;
      const distance = across * across + down * down;
      if (distance < least) [nearest, least] = [i, distance];
    }
    show(nearest);
  });
  plane.addEventListener("pointerleave", () => show(-1));
  plane.addEventListener("blur", () => show(-1));
  plane.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (event.key === "Escape") return show(-1);
    if (!step || !steps.length) return;
    event.preventDefault();
    const from = steps.indexOf(at);
    show(steps[from < 0 ? (step > 0 ? 0 : steps.length - 1) : Math.min(Math.max(from + step, 0), steps.length - 1)]);
  });
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  const code = document.getElementById(button.dataset.copy);
  button.hidden = false;
  button.addEventListener("click", () => {
    // Selecting works where the clipboard is out of bounds, as it is for some files opened from a mail.
    getSelection().selectAllChildren(code);
    const copied = document.execCommand("copy");
    button.textContent = copied ? "Copied" : "Selected";
  });
}
