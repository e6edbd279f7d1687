// Shows a tooltip for the timeline column at the pointer; the page is complete without it.
(() => {
  const plot = document.getElementById("timeline");
  const slots = JSON.parse(document.getElementById("tooltips").textContent);
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
