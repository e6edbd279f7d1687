// Requests the page every second and replaces the parts that changed; the page works without it.
(() => {
  const parts = ["head", "tiles", "latency", "stages", "rungs", "counters", "outputs", "before-words",
    "after-words"];
  const gone = document.getElementById("gone");
  let loading = false, count = 0;
  const show = (name) => {
    const next = new Image(), old = document.getElementById(name);
    next.onload = () => {
      next.id = name; next.alt = old.alt;
      next.width = next.naturalWidth; next.height = next.naturalHeight;
      old.replaceWith(next);
    };
    next.src = name + ".jpg?" + count;
  };
  const refresh = async () => {
    if (loading || document.hidden) return;
    loading = true;
    try {
      const response = await fetch("./", { signal: AbortSignal.timeout(4000) });
      if (!response.ok) throw new Error(response.status);
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      for (const name of parts) {
        const old = document.getElementById(name), fresh = page.getElementById(name);
        if (old.outerHTML !== fresh.outerHTML) old.replaceWith(document.adoptNode(fresh));
      }
      document.title = page.title;
      gone.hidden = true;
      if (count++ % 2 === 0) { show("before"); show("after"); }
    } catch (error) { gone.hidden = false; }
    loading = false;
  };
  setInterval(refresh, 1000);
  document.addEventListener("visibilitychange", refresh);
})();
