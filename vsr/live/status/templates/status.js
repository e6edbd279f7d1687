// Asks for the page again every second and exchanges what has changed; it is complete without.
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
