"""Generate `engines/README.md` from `manifest.json` and `provenance.toml`: a table and model cards.

Nothing on the page is written by hand, so that its figures always match the files.
"""

from collections.abc import Callable, Iterable
from typing import Any

from train.ship.about import (
    LICENCE,
    PAPERS,
    USES,
    differences,
    format_steps,
    good_for,
    notes,
    teacher_sentences,
    training_length,
)
from train.ship.crops import CREDIT
from train.ship.naming import PURPOSES, network_and_purpose
from train.ship.provenance import Chain, Stage

HEAD = """\
# Engines

Networks in deploy form, written by `python -m train export`; so is this page. Each file has one
input `lr` [N, C, H, W] and one output `sr` [N, C, scale*H, scale*W], float32 in 0..1, with C = 3
(RGB) or 1 (luma, black to white); N, H and W are free.
"""
MEASURED = """\
Set5, Set14, BSD100: PSNR in dB of the file as shipped, run by OpenVINO in float32, measured as the
papers do: on Y, borders of `scale` pixels shaved, the one grey image of Set14 expanded to RGB.
`-stream` and `-sharp` networks are for compressed video: these clean sets say little of them, the
tables of clips in their cards say more.
"""
MADE = f"""\
Pictures in the cards show two halved frames of {CREDIT}; the figure under each is its own PSNR.
Trained on: `yang91`, `bsds400` (BSDS500 without its `val` images, which BSD100 is cut from; both by
`python -m train fetch yang91 bsds400`), and `photos`, 84 openly licensed desktop photographs of up
to 1024x1024 (elementary, Budgie, Pop!_OS, Deepin, Lomiri, MATE and Plasma wallpapers), which are
not fetched: any folder of sharp photographs as `data/photos` does as well, but not to the bit.
[docs/training.md](../docs/training.md) says where the weights of teachers and losses come from.
int8 forms are written by `python -m train quantise`.
"""
_SETS = {"set5": "Set5", "set14": "Set14", "bsd100": "BSD100", "urban100": "Urban100"}
"""Benchmarks and their column names; the last one has a column only if it was measured."""
Entry = dict[str, Any]
Models = dict[str, dict[str, Entry]]
Clips = dict[str, dict[str, float]]
"""Figures as {clip: {method: figure}}."""


def cards(models: Models, chains: dict[str, Chain]) -> str:
    """Return the page for a manifest's `models` and the training chains of their files."""
    names = sorted(models, key=lambda name: (USES.index(good_for(name)), _work(models[name]), name))
    made = (_card(name, models[name], chains) for name in names)
    return "\n".join([HEAD, _overview(names, models), MEASURED, *_timed(models), MADE, *made])


def _work(scales: dict[str, Entry]) -> int:
    return min(entry["multadds_720p"] for entry in scales.values())


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(columns)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _overview(names: list[str], models: Models) -> str:
    sets = _measured(entry for scales in models.values() for entry in scales.values())
    rows = [
        [
            f"[{name}](#{name})", key, _ms(entry),
            *(_psnr(entry["psnr"].get(data_set)) for data_set in sets), good_for(name),
        ]
        for name in names
        for key, entry in sorted(models[name].items())
    ]  # fmt: skip
    columns = ("network", "scale", "ms here", *sets.values(), "good for")
    return _table(columns, rows) + "\n"


def _measured(entries: Iterable[Entry]) -> dict[str, str]:
    """Return the benchmarks that have a column: Urban100 only if it was measured."""
    known = {data_set for entry in entries for data_set in entry["psnr"]}
    return {key: name for key, name in _SETS.items() if key != "urban100" or key in known}


def _ms(entry: Entry) -> str:
    """Format the times of the float and the int8 network."""
    float_, int8 = (form.get("ms") for form in (entry, entry.get("int8", {})))
    words = f"{float_['ms']:g}" if float_ else ""
    return f"{words} (int8 {int8['ms']:g})" if int8 else words


def _timed(models: Models) -> list[str]:
    """Describe how and on which machine times were measured; empty without times."""
    forms = [entry for scales in models.values() for entry in scales.values()]
    forms += [entry["int8"] for entry in forms if "int8" in entry]
    where = sorted({(form["ms"]["size"], form["ms"]["machine"]) for form in forms if "ms" in form})
    return [
        f"ms here: one {size} picture on {machine}; the shortest of several runs "
        "(`python -m bench.times`).\n"
        for size, machine in where
    ]


def _psnr(score: dict[str, Any] | None) -> str:
    return f"{score['psnr']:.2f}" if score else ""


def _card(name: str, scales: dict[str, Entry], chains: dict[str, Chain]) -> str:
    items = sorted(scales.items())
    known = {key: chains[entry["file"]] for key, entry in items if entry["file"] in chains}
    parts = [f"## {name}", _origin(name, scales, known), *_differences(name, known)]
    parts += _narrow(scales)
    parts.append(_figures(items))
    parts += [_crops(name, key, entry) for key, entry in items if "crops" in entry]
    parts += [_lpips(key, entry["lpips"]) for key, entry in items if entry.get("lpips")]
    parts += [_video(key, entry["video"]) for key, entry in items if entry.get("video")]
    parts += [part for key, entry in items if "look" in entry for part in _look(key, entry["look"])]
    if known:
        parts += _training(name, known)
    return "\n\n".join(parts) + "\n"


def _origin(name: str, scales: dict[str, Entry], known: dict[str, Chain]) -> str:
    """Describe the network's paper and purpose, the origin of the weights, and their licence."""
    network, purpose = network_and_purpose(name)
    found = [PAPERS[network]] if network in PAPERS else []
    if purpose:
        found.append(PURPOSES[purpose])
    licence = next(iter(scales.values()))["licence"]
    who = "Trained by this project" if licence == LICENCE else "Weights of others"
    taught = dict.fromkeys(words for chain in known.values() for words in teacher_sentences(chain))
    return ". ".join([*found, f"{who}; licence {licence}", *taught]) + "."


def _differences(name: str, known: dict[str, Chain]) -> list[str]:
    """Describe training length and differences from the paper, with equal scales combined."""
    lines = [
        f"- Trained for {words}: {keys}." for words, keys in _alike(name, known, training_length)
    ]
    lines += [
        f"- Not as its paper says, at {keys}: {words}."
        for words, keys in _alike(name, known, differences)
        if words
    ]
    return ["\n".join(lines)] if lines else []


def _alike(
    name: str, known: dict[str, Chain], describe: Callable[[str, Chain], str]
) -> list[tuple[str, str]]:
    """Return (text of `describe`, scales with that text)."""
    found: dict[str, list[str]] = {}
    for key, chain in known.items():
        found.setdefault(describe(name, chain), []).append(key)
    return [(words, ", ".join(keys)) for words, keys in found.items()]


def _narrow(scales: dict[str, Entry]) -> list[str]:
    """Describe networks with fewer filters than the paper's, with equal scales combined."""
    alike: dict[str, list[str]] = {}
    for key, entry in sorted(scales.items()):
        if "features" in entry:
            alike.setdefault(", ".join(map(str, entry["features"])), []).append(key)
    return [
        f"Feature layers of {' and '.join(keys)} have {filters} filters: the most useful of the "
        "paper's, trained on without the others (`train/fit/prune.py`)."
        for filters, keys in alike.items()
    ]


def _crops(name: str, key: str, entry: Entry) -> str:
    file, how = entry["crops"]["file"], entry["crops"]["from"]
    return f"{key}: bicubic, {name}, truth; {how}.\n\n![{name} {key} beside bicubic]({file})"


def _figures(items: list[tuple[str, Entry]]) -> str:
    sets = _measured(entry for _, entry in items)
    rows = [
        [
            key, f"{entry['parameters']:,}", f"{entry['multadds_720p'] / 1e9:.1f}G",
            *(_score(entry["psnr"].get(data_set)) for data_set in sets), _int8(entry),
        ]
        for key, entry in items
    ]  # fmt: skip
    first, *others = sets.values()
    columns = ("scale", "parameters", "MultAdds (720p out)", f"{first} (PSNR / SSIM)",
               *others, "int8 changes PSNR by")  # fmt: skip
    return _table(columns, rows)


def _score(score: dict[str, Any] | None) -> str:
    return f"{score['psnr']:.2f} / {score['ssim']:.4f}" if score else ""


def _int8(entry: Entry) -> str:
    known = entry["psnr"]
    scores = entry.get("int8", {}).get("psnr", {})
    return ", ".join(
        f"{name} {score['psnr'] - known[name]['psnr']:+.3f}"
        for name, score in sorted(scores.items(), key=lambda item: (len(item[0]), item[0]))
        if name in known
    )


def _lpips(key: str, sets: Clips) -> str:
    head = f"{key}: LPIPS (AlexNet, on RGB) of the benchmarks; less is more alike:"
    table = _by_clip(sets, 4, "set")
    return f"{head}\n\n{table}"


def _video(key: str, clips: Clips) -> str:
    head = f"{key} on clips reduced and compressed by x264 (dB on Y, mean of crf 23, 28 and 33):"
    return f"{head}\n\n{_by_clip(clips, 2)}"


def _look(key: str, look: dict[str, Any]) -> list[str]:
    """Return the sections on qualities that PSNR does not measure: LPIPS, flicker, flat noise."""
    found = []
    if look["lpips"]:
        found.append(
            f"{key}: LPIPS (AlexNet, on Y) of the same clips, mean of crf 23, 28 and 33; less is "
            f"more alike:\n\n{_by_clip(look['lpips'], 3)}"
        )
    if look["flicker"]:
        found.append(
            f"{key}: flicker, the mean difference of consecutive enlarged pictures in codes:\n\n"
            f"{_by_clip(look['flicker'], 2)}"
        )
    noise = f"{look['flat_noise']:.2f}"
    return [*found, f"{key}: noise that it adds to a flat grey patch: {noise} codes at most."]


def _by_clip(clips: Clips, digits: int, what: str = "clip") -> str:
    """Return a table with a row per clip and a column per method: bicubic first, ours last."""
    methods = list(dict.fromkeys(method for of in clips.values() for method in of))
    methods.sort(key=lambda method: (method == "ours", method != "bicubic"))
    rows = [
        [clip, *(f"{of[m]:.{digits}f}" if m in of else "" for m in methods)]
        for clip, of in clips.items()
    ]
    return _table((what, *methods), rows)


def _training(name: str, known: dict[str, Chain]) -> list[str]:
    """Return the table of all trainings, its notes, and how to reproduce it."""
    stages: dict[str, Stage] = {}
    before: dict[str, str] = {}
    leads: dict[str, list[str]] = {}
    for key, chain in known.items():
        last = ""
        for stage_name, stage in chain.stages:
            stages[stage_name] = stage
            before[stage_name] = last
            leads.setdefault(stage_name, []).append(key)
            last = stage_name
    rows = [
        [stage_name, before[stage_name] or "-", *_stage(stage), ", ".join(leads[stage_name])]
        for stage_name, stage in stages.items()
    ]
    columns = ("stage", "starts from", "recipe", "steps", "patches", "rate", "pictures", "for")
    note_lines = [f"- {note}" for note in notes(stages)]
    again = (
        f"`python -m train reproduce {name}` trains it again, stage by stage, and exports it; "
        "`--dry-run` prints the commands."
    )
    return [_table(columns, rows), *(["\n".join(note_lines)] if note_lines else []), again]


def _stage(stage: Stage) -> list[str]:
    """Return a stage's table cells: recipe, steps, patches, rate, pictures."""
    if "imported" in stage:
        return [f"weights of others: {stage['imported']}", "", "", "", ""]
    recipe, data = stage["recipe"], stage["data"]
    taught = f", taught by {stage['teacher']['file']}" if stage.get("teacher") else ""
    pictures = f"{data['images']} of {', '.join(data['folders'])}" if data else ""
    clips = f" and {len(data['clips'])} clips" if data.get("clips") else ""
    coded = ", as compressed video" if recipe["degradation"] != "bicubic" else ""
    return [
        f"{recipe['name']}{taught}",
        format_steps(stage),
        f"{recipe['batch']} of {recipe['patch']}x{recipe['patch']}",
        f"{recipe['rate']:g}",
        f"{pictures}{clips}{coded}",
    ]
