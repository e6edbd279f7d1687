"""`engines/manifest.json` -> `engines/README.md`: a card per network, whose figures never drift."""

from typing import Any

HEAD = """\
# Engines

Networks in deploy form, written by `python -m train export`; so is this page. Each file has one
input `lr` [N, C, H, W] and one output `sr` [N, C, scale*H, scale*W], float32 in 0..1, with C = 3
(RGB) or 1 (luma, black to white); N, H and W are free. PSNR (dB) and SSIM are measured on the file
as shipped, run by OpenVINO in float32, as the papers do: on Y, borders of `scale` pixels shaved
(the one grey image of Set14 expanded to RGB).
"""

PAPERS = {
    "c-dcscn": "Yamanaka, Kuwashima, Kurita, *Fast and Accurate Image Super Resolution by Deep CNN "
    "with Skip Connection and Network in Network*, 2017; the compact form of its Table 1",
    "dcscn": "Yamanaka, Kuwashima, Kurita, *Fast and Accurate Image Super Resolution by Deep CNN "
    "with Skip Connection and Network in Network*, 2017",
    "carn-m": "Ahn, Kang, Sohn, *Fast, Accurate, and Lightweight Super-Resolution with Cascading "
    "Residual Network*, ECCV 2018; the mobile form",
}


def cards(models: dict[str, Any]) -> str:
    """The page for the `models` of a manifest."""
    return "\n".join([HEAD, *(_card(name, entry) for name, entry in sorted(models.items()))])


def _card(name: str, scales: dict[str, Any]) -> str:
    rows = [_row(key, entry) for key, entry in sorted(scales.items())]
    notes = [_recipe(key, entry) for key, entry in sorted(scales.items())]
    licence = next(iter(scales.values()))["licence"]
    table = "| scale | parameters | MultAdds (720p out) | Set5 | Set14 | BSD100 |\n"
    table += "| --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows)
    origin = f"{PAPERS[name]}. Trained by this project; licence {licence}."
    return f"## {name}\n\n{origin}\n\n{table}\n\n" + "\n".join(notes) + "\n"


def _row(key: str, entry: dict[str, Any]) -> str:
    scores = [_score(entry["psnr"].get(name)) for name in ("set5", "set14", "bsd100")]
    size = f"{entry['parameters']:,} | {entry['multadds_720p'] / 1e9:.1f}G"
    return f"| {key} | {size} | {' | '.join(scores)} |"


def _score(score: dict[str, Any] | None) -> str:
    return f"{score['psnr']:.2f} / {score['ssim']:.4f}" if score else ""


def _recipe(key: str, entry: dict[str, Any]) -> str:
    r = entry["recipe"]
    kind = "bfloat16" if r["bfloat16"] else "float32"
    return (
        f"{key}: our own recipe, not the paper's: {entry['step']:,} steps of {r['batch']} patches "
        f"of {r['patch']}x{r['patch']} (LR) from {entry['data']}, L1, Adam at {r['rate']:g} on a "
        f"cosine, averaged weights ({r['ema']}), computed in {kind}."
    )
