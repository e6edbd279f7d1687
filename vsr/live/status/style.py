"""The look of the status page, light and dark, for a desk and for a phone, and its only script."""

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b1f24; --dim: #57606a;
  --rule: #d8dee4; --grid: #e6eaee; --bad: #c11c2b; --good: #1a7f37; --high: #b9d2f0;
  --c0: #1763c6; --c1: #b45309; --c2: #0f766e; --c3: #8b3fc7; --c4: #b0256b; --c5: #55682a; }
@media (prefers-color-scheme: dark) { :root { --page: #0e1116; --card: #161b22; --ink: #e6edf3;
  --dim: #9aa4af; --rule: #30363d; --grid: #262c34; --bad: #ff7b72; --good: #4ac26b;
  --high: #2b4a70; --c0: #6cb0ff; --c1: #ffa657; --c2: #4fd1c1; --c3: #cfa6ff; --c4: #ff8fc0;
  --c5: #b9cf7a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.45 system-ui,
  -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%; }
main { max-width: 1160px; margin: 0 auto; padding: 18px 20px 32px; }
h1 { font-size: 20px; line-height: 1.3; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 15px; margin: 0 0 8px; }
p { margin: 0; }
.dim, figcaption, footer, thead th, dt { color: var(--dim); font-size: 13px; }
header { position: relative; margin-bottom: 14px; overflow-wrap: anywhere; }
.state { font-weight: 600; font-size: 14px; }
header .state { float: right; margin-left: 16px; padding: 3px 11px; border-radius: 14px;
  background: var(--card); border: 1px solid var(--rule); max-width: 60%; }
.state i { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 7px;
  background: currentColor; }
.good { color: var(--good); } .bad, .tiles .bad b { color: var(--bad); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; align-items: start; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  overflow: hidden; }
img { display: block; width: 100%; height: auto; background: var(--grid); object-fit: contain;
  max-height: 46vh; color: var(--dim); font-size: 13px; }
img:not([src]) { opacity: 0; }
figcaption { padding: 6px 12px; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); margin-right: 6px; }
section, .tiles { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  margin-top: 14px; }
section { padding: 14px 16px; min-width: 0; }
.tiles { display: grid; grid: auto-flow dense / repeat(6, 1fr); gap: 1px; overflow: hidden; }
.wide { grid-column: span 2; }
.tiles div { box-shadow: 0 0 0 1px var(--rule); padding: 8px 10px; }
.tiles b { display: block; font-size: 17px; line-height: 1.3; white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis; }
.tiles span { color: var(--dim); font-size: 12.5px; }
.chart { display: block; width: 100%; height: 130px; overflow: visible; }
.chart > svg { width: 100%; height: 100%; overflow: visible; }
.chart path.high { fill: var(--high); }
.chart path.mid { fill: none; stroke: var(--c0); stroke-width: 1.8; vector-effect:
  non-scaling-stroke; stroke-linejoin: round; stroke-linecap: round; }
.chart text { font-size: 12px; fill: var(--dim); paint-order: stroke; stroke: var(--card);
  stroke-width: 4px; stroke-linejoin: round; }
.chart .end { text-anchor: end; }
.limit { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 6 4; }
.strip { display: block; width: 100%; height: 8px; margin-top: 4px; background: var(--grid);
  border-radius: 2px; }
.ends { display: flex; justify-content: space-between; gap: 4px 12px; flex-wrap: wrap;
  margin: 3px 0 0; }
.key i, th i { display: inline-block; width: 11px; height: 11px; border-radius: 3px;
  margin-right: 6px; background: var(--dim); }
.key i { margin-left: 8px; } .key i.mid { height: 3px; vertical-align: 3px; background: var(--c0); }
.key i.high { background: var(--high); }
.c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); }
.c4 { fill: var(--c4); } .c5 { fill: var(--c5); } .cx { fill: var(--dim); }
i.c0 { background: var(--c0); } i.c1 { background: var(--c1); } i.c2 { background: var(--c2); }
i.c3 { background: var(--c3); } i.c4 { background: var(--c4); } i.c5 { background: var(--c5); }
table { border-collapse: collapse; width: 100%; }
th, td { padding: 3px 0 3px 12px; text-align: right; white-space: nowrap; font-size: 14px; }
thead th { font-weight: 500; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tbody th { font-weight: 500; }
tr.total > *, tr.now > * { font-weight: 650; }
tr.part > * { color: var(--dim); }
tr.bar td { padding: 0 0 5px; line-height: 0; }
tr.bar svg { width: 100%; height: 5px; background: var(--grid); border-radius: 2px; }
.scroll { overflow-x: auto; }
dl { display: grid; grid-template-columns: auto auto; gap: 4px 14px; margin: 0;
  justify-content: space-between; align-items: baseline; font-size: 14px; }
dd { margin: 0; text-align: right; }
.cards { list-style: none; margin: 0; padding: 0; display: grid; gap: 10px 24px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.cards li { border-left: 3px solid var(--rule); padding-left: 12px; min-width: 0; }
.cards p { overflow-wrap: anywhere; }
.cards .state { float: right; margin-left: 12px; font-size: 13px; }
.name { font-weight: 600; }
.error { font-size: 13px; color: var(--bad); }
footer { margin-top: 14px; overflow-wrap: anywhere; }
footer a { color: inherit; margin-right: 12px; }
#gone { position: fixed; inset: auto 0 0; padding: 10px 16px; background: var(--bad);
  color: var(--card); font-weight: 600; text-align: center; }
[hidden] { display: none; }
@media (max-width: 700px) { main { padding: 12px 10px 28px; } .pair { grid-template-columns: 1fr; }
  .pair > section + section { margin-top: 0; } header .state { float: none; max-width: none;
  display: inline-block; margin: 0 0 8px; } .tiles { grid: auto-flow dense / repeat(3, 1fr); }
  .key { order: 1; width: 100%; } .key i:first-child { margin-left: 0; }
  img { max-height: none; } section { padding: 12px; }
  th, td { padding-left: 6px; font-size: 13px; }
  .cards .state { float: none; margin: 0; } }
"""

SCRIPT: Final = """
(() => {
  const parts = ["head", "tiles", "latency", "stages", "rungs", "flow", "outputs", "before-words",
    "after-words"];
  const gone = document.getElementById("gone");
  let asking = false, turn = 0;
  const show = (name) => {
    const next = new Image(), old = document.getElementById(name);
    next.onload = () => {
      next.id = name; next.alt = old.alt;
      next.width = next.naturalWidth; next.height = next.naturalHeight;
      old.replaceWith(next);
    };
    next.src = name + ".jpg?" + turn;
  };
  const refresh = async () => {
    if (asking || document.hidden) return;
    asking = true;
    try {
      const answer = await fetch("./", { signal: AbortSignal.timeout(4000) });
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const name of parts) {
        const old = document.getElementById(name), fresh = page.getElementById(name);
        if (old.outerHTML !== fresh.outerHTML) old.replaceWith(document.adoptNode(fresh));
      }
      document.title = page.title;
      gone.hidden = true;
      if (turn++ % 2 === 0) { show("before"); show("after"); }
    } catch (error) { gone.hidden = false; }
    asking = false;
  };
  setInterval(refresh, 1000);
  document.addEventListener("visibilitychange", refresh);
})();
"""
"""Asks for the page again and exchanges what has changed; the page is complete without it."""
