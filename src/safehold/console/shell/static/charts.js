// A chart is drawn from the table beneath it, so that both always say the same.
"use strict";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Hours of a day as 14:00, a day's first as its date.
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
function hours(_, all) {
  return all.map((one) => {
    const at = new Date(one * 1000);
    const day = `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`;
    return at.getUTCHours() === 0 && at.getUTCMinutes() === 0
      ? day : `${String(at.getUTCHours()).padStart(2, "0")}:${String(at.getUTCMinutes()).padStart(2, "0")}`;
  });
}

function numbers(table) {
  const rows = [...table.tBodies[0].rows];
  const columns = [...table.tHead.rows[0].cells].length;
  const data = Array.from({ length: columns }, () => []);
  for (const row of rows) {
    [...row.cells].forEach((cell, index) => {
      const value = cell.dataset.v ?? cell.textContent.replaceAll(",", "");
      data[index].push(value === "" || value === "–" ? null : Number(value));
    });
  }
  return data;
}

function draw(table) {
  const place = table.closest("section, .card").querySelector(".plot");
  if (!place || !table.tBodies[0].rows.length) return;
  place.replaceChildren();
  const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  const inks = ["--l1", "--l2", "--l3", "--l4"].map(colour);
  const dashes = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
  const unit = table.dataset.unit ?? "";
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
  const options = {
    width: Math.max(240, place.clientWidth),
    height: Math.min(600, Math.max(Number(table.dataset.height ?? 220), place.clientHeight - 34)),
    legend: { live: false },
    cursor: { drag: { x: false, y: false } },
    scales: { x: { time: table.dataset.x !== "number" },
      y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.15 : 1] } },
    axes: [{ ...axis, values: table.dataset.x === "number" ? undefined : hours, space: 64 }, { ...axis, size: 58 + 8 * unit.length, values: (_, all) => all.map((one) => one.toLocaleString("en") + unit) }],
    series: [
      table.dataset.x === "number" ? { label: heads[0] } : { label: heads[0], value: "{YYYY}-{MM}-{DD} {HH}:{mm}" },
      ...heads.slice(1).map((label, index) => ({
        label,
        stroke: inks[index % 4],
        dash: dashes[index % 4],
        width: 2,
        points: { show: table.tBodies[0].rows.length < 3 },
        value: (_, one) => (one === null || one === undefined ? "–" : one.toLocaleString("en") + unit),
      })),
    ],
  };
  if (table.dataset.x !== "number") options.tzDate = (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC");
  new uPlot(options, numbers(table), place);
}

function drawAll() {
  document.querySelectorAll("table[data-chart]").forEach(draw);
}

document.querySelectorAll("details.num").forEach((one) => { one.open = false; });
drawAll();
document.addEventListener("htmx:after:swap", () => {
  document.querySelectorAll("details.num").forEach((one) => { one.open = false; });
  drawAll();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
let waiting = 0;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 150); });
