"""`engines/manifest.json` -> `engines/README.md`: a card per network, whose figures never drift."""

from typing import Any, Final

from train.ship.naming import PURPOSES, network_and_purpose
from train.ship.provenance import Chain

LICENCE: Final = "Apache-2.0"
"""Of weights that this project trained."""
HEAD = """\
# Engines

Networks in deploy form, written by `python -m train export`; so is this page. Each file has one
input `lr` [N, C, H, W] and one output `sr` [N, C, scale*H, scale*W], float32 in 0..1, with C = 3
(RGB) or 1 (luma, black to white); N, H and W are free. PSNR (dB) and SSIM are measured on the file
as shipped, run by OpenVINO in float32, as the papers do: on Y, borders of `scale` pixels shaved
(the one grey image of Set14 expanded to RGB).
"""

_DCSCN = (
    "Yamanaka, Kuwashima, Kurita, *Fast and Accurate Image Super Resolution by Deep CNN with Skip "
    "Connection and Network in Network*, 2017"
)
_CARN = (
    "Ahn, Kang, Sohn, *Fast, Accurate, and Lightweight Super-Resolution with Cascading Residual "
    "Network*, ECCV 2018"
)
_PCARN = (
    "Ahn, Kang, Sohn, *Efficient Deep Neural Network for Photo-realistic Image Super-Resolution*, "
    "2019 (arXiv:1903.02240)"
)
PAPERS = {
    "carn": _CARN,
    "carn-nl": f"{_CARN}; without local cascading",
    "carn-ng": f"{_CARN}; without global cascading",
    "carn-baseline": f"{_CARN}; without cascading",
    "carn-m": f"{_CARN}; the mobile form",
    "pcarn": _PCARN,
    "pcarn-l1": f"{_PCARN}; before its adversarial training",
    "pcarn-m": f"{_PCARN}; the mobile form",
    "pcarn-m-l1": f"{_PCARN}; the mobile form before its adversarial training",
    "dcscn": _DCSCN,
    "c-dcscn": f"{_DCSCN}; the compact form of its Table 1",
    "csrcnn": "Zhang, Shao, Liang, Gao, Shen, *Large Factor Image Super-Resolution with Cascaded "
    "Convolutional Neural Networks*, IEEE Transactions on Multimedia 2020",
}


def cards(models: dict[str, Any], chains: dict[str, Chain]) -> str:
    """The page for the `models` of a manifest and the trainings of their files."""
    made = (_card(name, entry, chains) for name, entry in sorted(models.items()))
    return "\n".join([HEAD, *made])


def _card(name: str, scales: dict[str, Any], chains: dict[str, Chain]) -> str:
    rows = [_row(key, entry) for key, entry in sorted(scales.items())]
    notes = [
        _training(key, chains[entry["file"]])
        for key, entry in sorted(scales.items())
        if entry["file"] in chains
    ]
    table = "| scale | parameters | MultAdds (720p out) | Set5 | Set14 | BSD100 |\n"
    table += "| --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows)
    notes += [
        _video(key, entry["video"]) for key, entry in sorted(scales.items()) if entry["video"]
    ]
    notes += _narrow(scales)
    if small := [_int8(key, entry) for key, entry in sorted(scales.items()) if "int8" in entry]:
        notes.append("In int8 (PSNR / SSIM, and the change in dB): " + "; ".join(small) + ".")
    return f"## {name}\n\n{_origin(name, scales)}\n\n{table}\n\n" + "\n\n".join(notes) + "\n"


def _narrow(scales: dict[str, Any]) -> list[str]:
    """Networks with fewer filters than the paper's; a line for all that have the same."""
    alike: dict[str, list[str]] = {}
    for key, entry in sorted(scales.items()):
        if "features" in entry:
            alike.setdefault(", ".join(map(str, entry["features"])), []).append(key)
    return [
        f"Feature layers of {' and '.join(keys)} have {filters} filters: the most useful of the "
        "paper's, trained on without the others (`train/fit/prune.py`)."
        for filters, keys in alike.items()
    ]


def _int8(key: str, entry: dict[str, Any]) -> str:
    form, known = entry["int8"], entry["psnr"]
    scores = []
    for name, score in sorted(form["psnr"].items(), key=lambda item: (len(item[0]), item[0])):
        change = f" ({score['psnr'] - known[name]['psnr']:+.3f})" if name in known else ""
        scores.append(f"{name} {_score(score)}{change}")
    return f"{key} {', '.join(scores)}"


def _video(key: str, clips: dict[str, dict[str, float]]) -> str:
    head = f"{key} on clips reduced and compressed by x264 (dB on Y, mean of crf 23, 28 and 33):"
    rows = [
        f"| {clip} | {db['bicubic']:.2f} | {db['lanczos']:.2f} | {db['ours']:.2f} |"
        for clip, db in clips.items()
    ]
    return "\n".join([head, "", "| clip | bicubic | lanczos | ours |", "| --- " * 4 + "|", *rows])


def _origin(name: str, scales: dict[str, Any]) -> str:
    """Whose network it is, whose weights, and under what licence."""
    network, purpose = network_and_purpose(name)
    found = [PAPERS[network]] if network in PAPERS else []
    if purpose:
        found.append(PURPOSES[purpose])
    licence = next(iter(scales.values()))["licence"]
    who = "Trained by this project" if licence == LICENCE else "Weights of others"
    return ". ".join([*found, f"{who}; licence {licence}."])


def _row(key: str, entry: dict[str, Any]) -> str:
    scores = [_score(entry["psnr"].get(name)) for name in ("set5", "set14", "bsd100")]
    size = f"{entry['parameters']:,} | {entry['multadds_720p'] / 1e9:.1f}G"
    return f"| {key} | {size} | {' | '.join(scores)} |"


def _score(score: dict[str, Any] | None) -> str:
    return f"{score['psnr']:.2f} / {score['ssim']:.4f}" if score else ""


def _training(key: str, chain: Chain) -> str:
    stages = [_stage(stage) for _, stage in chain.stages]
    return f"{key}: " + "; then ".join(stages) + "."


def _stage(stage: dict[str, Any]) -> str:
    """One training in words; what is not said is as in the recipe's file."""
    if "imported" in stage:
        return f"weights of others, from {stage['imported']}"
    r, data = stage["recipe"], stage["data"]
    batch = f"{r['batch']} patches of {r['patch']}x{r['patch']}"
    words = f", by `{stage['command']}`" if stage["command"] else ""
    return (
        f"recipe `{r['name']}` for {stage['step']:,} steps of {batch} at a rate of {r['rate']:g} "
        f"on {data['images']} images ({', '.join(data['folders'])}), {stage['precision']}{words}"
    )
