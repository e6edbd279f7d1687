"""The look of a latency report: one style sheet for light, dark and paper, and its only script."""

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b1f24; --dim: #57606a;
  --rule: #d8dee4; --grid: #e6eaee; --limit: #c11c2b; --event: #7d4e00; --bar: #2f6fc4;
  --c0: #1763c6; --c1: #b45309; --c2: #0f766e; --c3: #8b3fc7; --c4: #b0256b; --c5: #55682a;
  --s0: #0f6e84; --s1: #69727d; --s2: #2f5fd0; --s3: #a8480b; --s4: #7a3fb5;
  --stripe: rgb(255 255 255 / .26); --on-bar: #fff; }
@media (prefers-color-scheme: dark) { :root { --page: #0e1116; --card: #161b22; --ink: #e6edf3;
  --dim: #9aa4af; --rule: #30363d; --grid: #262c34; --limit: #ff7b72; --event: #e3b341;
  --bar: #6cb0ff; --c0: #6cb0ff; --c1: #ffa657; --c2: #4fd1c1; --c3: #cfa6ff; --c4: #ff8fc0;
  --c5: #b9cf7a; --s0: #56c5dd; --s1: #a3adb8; --s2: #82aaff; --s3: #ffa657; --s4: #cfa6ff;
  --stripe: rgb(0 0 0 / .24); --on-bar: #0b0e12; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui,
  -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 0 0 2px; }
p { margin: 0 0 10px; max-width: 80ch; }
.dim, .unit, caption { color: var(--dim); }
.dim { font-size: 13.5px; overflow-wrap: anywhere; }
.unit { font-size: 12px; margin: 10px 0 6px; }
.dim.under { margin: 12px 0 0; max-width: none; }
.unit.under { text-align: center; margin: 26px auto 0; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 18px 20px; margin-top: 16px; }
.words { margin: 0; padding-left: 20px; max-width: 88ch; overflow-wrap: anywhere; }
.words li { margin: 3px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(112px, 1fr)); gap: 1px;
  background: var(--card); border: 1px solid var(--rule); border-radius: 10px; overflow: hidden;
  margin-top: 18px; }
.tiles div { box-shadow: 0 0 0 1px var(--rule); padding: 10px; }
.tiles b { display: block; font-size: 17px; line-height: 1.3; white-space: nowrap; }
.tiles span { color: var(--dim); font-size: 12.5px; }
.tiles .bad b { color: var(--limit); }
table { border-collapse: collapse; width: 100%; }
th, td { padding: 5px 0 5px 12px; text-align: right; border-top: 1px solid var(--grid); }
thead th { border-top: 0; color: var(--dim); font-weight: 500; font-size: 13px; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tbody th { font-weight: 500; }
tr.whole > * { font-weight: 650; border-top: 2px solid var(--rule); }
.scroll { overflow-x: auto; }
.scroll table { white-space: nowrap; }
.frames { font-size: 13px; }
.plot { position: relative; margin: 0 4px 26px 52px; touch-action: pan-y; }
.chart { display: block; width: 100%; height: 260px; overflow: visible; }
.chart.tall { height: 220px; margin-top: 70px; }
.chart > svg { overflow: visible; width: 100%; height: 100%; }
.chart text { font-size: 12px; fill: var(--dim); }
.chart .label { fill: var(--ink); paint-order: stroke; stroke: var(--card); stroke-width: 4px;
  stroke-linejoin: round; }
.end { text-anchor: end; } .mid { text-anchor: middle; } .begin { text-anchor: start; }
.grid { stroke: var(--grid); }
.limit { stroke: var(--limit); stroke-width: 1.5; stroke-dasharray: 6 4; }
.mark { stroke: var(--ink); stroke-dasharray: 2 3; }
.chart path { fill: none; stroke: currentColor; stroke-width: 1.6; stroke-linejoin: round;
  stroke-linecap: round; vector-effect: non-scaling-stroke; }
.chart .dot { stroke-width: 4; }
.chart .spread { stroke-width: 1.2; opacity: .5; }
.chart rect { fill: var(--bar); } .chart rect.late { fill: var(--limit); }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
.c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
.event { color: var(--event); } .late { color: var(--limit); }
#timeline { margin-left: 222px; }
.lanes { margin: 34px 4px 0 0; }
.lane { display: grid; grid-template-columns: 126px 78px 1fr; align-items: center; gap: 0 9px;
  margin-top: 5px; font-size: 13px; line-height: 1.3; }
.lane bdi { color: var(--ink); overflow-wrap: anywhere; }
.lane b { font-weight: 500; color: var(--dim); text-align: right; }
.lane svg { display: block; width: 100%; height: 12px; background: var(--grid);
  border-radius: 2px; }
.lane path { fill: currentColor; stroke: currentColor; stroke-width: 1;
  vector-effect: non-scaling-stroke; }
.lane.event path, .lane.late path { stroke-width: 2; }
.lane i, .key i { display: inline-block; width: 12px; height: 12px; margin-right: 6px;
  border-radius: 3px; background-color: currentColor; vertical-align: -1px; }
.lane.event i, .lane.late i { width: 3px; margin: 0 10px 0 5px; }
.key { display: flex; flex-wrap: wrap; gap: 4px 18px; list-style: none; padding: 0;
  margin: 8px 0 12px; font-size: 13px; }
.bar { display: flex; position: relative; height: 20px; border-radius: 3px; overflow: hidden;
  margin: 2px 0 9px; }
.bar > i { flex: none; overflow: hidden; font-style: normal; font-weight: 600;
  font-size: 11.5px; line-height: 20px; color: var(--on-bar); white-space: nowrap;
  border-right: 1px solid var(--card); }
.bar s { position: absolute; top: 0; bottom: 0; width: 2px; background: var(--limit);
  box-shadow: 0 0 0 1px var(--card); }
.key s { display: inline-block; width: 2px; height: 13px; margin: 0 11px 0 5px;
  background: var(--limit); vertical-align: -2px; }
.bar em { font-style: normal; padding: 0 6px; }
.s0, .s1, .s2, .s3, .s4 { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.s0 { background-color: var(--s0) !important; background-image: repeating-linear-gradient(45deg,
  transparent 0 5px, var(--stripe) 5px 7px); }
.s1 { background-color: var(--s1) !important; background-image: radial-gradient(circle,
  var(--stripe) 1.4px, transparent 1.6px); background-size: 6px 6px; }
.s2 { background-color: var(--s2) !important; }
.s3 { background-color: var(--s3) !important; background-image: repeating-linear-gradient(-45deg,
  transparent 0 5px, var(--stripe) 5px 7px); }
.s4 { background-color: var(--s4) !important; background-image: repeating-linear-gradient(90deg,
  transparent 0 4px, var(--stripe) 4px 6px); }
.worst { list-style: none; padding: 0; margin: 10px 0; }
.worst li { display: grid; grid-template-columns: 370px 1fr; align-items: center; gap: 0 12px;
  margin-bottom: 6px; }
.worst .bar { margin: 0; }
.worst p { display: grid; grid-template-columns: 68px 1fr; gap: 0 12px; margin: 0;
  font-size: 13px; line-height: 1.3; overflow-wrap: anywhere; }
.worst b { text-align: right; }
.worst bdi { display: inline-block; max-width: 100%; overflow: hidden; white-space: nowrap;
  text-overflow: ellipsis; vertical-align: bottom; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); gap: 18px 28px;
  margin-top: 10px; }
.facts h3 { font-size: 13px; margin: 0 0 4px; color: var(--dim); font-weight: 600; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 2px 14px; margin: 0; font-size: 13px; }
dt { color: var(--dim); }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin-top: 8px; font-size: 13px; } summary { cursor: pointer; color: var(--dim); }
.tip { position: absolute; top: 0; z-index: 1; pointer-events: none; white-space: pre;
  background: var(--ink); color: var(--card); border-radius: 6px; padding: 6px 9px;
  font-size: 12px; line-height: 1.4; max-width: 100%; overflow: hidden; }
.hair { position: absolute; top: 0; bottom: 0; width: 1px; background: var(--dim);
  pointer-events: none; }
[hidden] { display: none; }
@media (max-width: 640px) { main { padding: 18px 12px 32px; } section { padding: 14px 12px; }
  h1 { font-size: 19px; } .minor { display: none; } .plot, #timeline, .lanes { margin-left: 40px; }
  .lane { grid-template-columns: 1fr auto; } .lane svg { grid-column: 1 / -1; height: 9px; }
  .worst li { grid-template-columns: 1fr; gap: 2px; } .worst b { text-align: left; }
  .worst p { grid-template-columns: auto 1fr; }
  .chart { height: 210px; } .chart.tall { height: 180px; } th, td { padding-left: 4px; }
  .scroll .stages { font-size: 11.5px; } .tiles { grid-template-columns: repeat(2, 1fr); } }
@media print { section { break-inside: avoid; } body { background: none; } }
"""

SCRIPT: Final = """
(() => {
  const plot = document.getElementById("timeline");
  const slots = JSON.parse(document.getElementById("slots").textContent);
  const hair = plot.appendChild(document.createElement("div"));
  const tip = plot.appendChild(document.createElement("div"));
  hair.className = "hair"; tip.className = "tip"; hair.hidden = tip.hidden = true;
  const show = (event) => {
    const box = plot.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * slots.width;
    let low = 0, high = slots.x.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((slots.x[middle] + slots.x[middle + 1]) / 2 < at) low = middle + 1; else high = middle;
    }
    tip.textContent = slots.text[low];
    hair.hidden = tip.hidden = false;
    const left = slots.x[low] / slots.width * box.width;
    hair.style.left = 100 * slots.x[low] / slots.width + "%";
    const right = left + 12 + tip.offsetWidth <= box.width;
    tip.style.left = Math.max(0, right ? left + 12 : left - 12 - tip.offsetWidth) + "px";
  };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerdown", show);
  plot.addEventListener("pointerleave", () => { hair.hidden = tip.hidden = true; });
})();
"""
"""What a column of the timeline holds, at the pointer; the page is complete without it."""
