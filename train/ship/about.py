"""Write the parts of the model cards that are not measured: paper, training, purpose."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from train.errors import TrainError
from train.fit.recipe import Recipe, find_recipe, recipe_from
from train.ship.naming import ADVERSARIAL_NETWORKS, network_and_purpose
from train.ship.provenance import Chain, Stage

LICENCE: Final = "Apache-2.0"
"""Licence of weights trained by this project."""

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
PAPERS: Final = {
    "carn": _CARN,
    "carn-nl": f"{_CARN}; without local cascading",
    "carn-ng": f"{_CARN}; without global cascading",
    "carn-baseline": f"{_CARN}; without cascading",
    "carn-m": f"{_CARN}; the mobile form",
    "pcarn": f"{_PCARN}; after its adversarial training",
    "pcarn-l1": f"{_PCARN}; before its adversarial training",
    "pcarn-m": f"{_PCARN}; the mobile form after its adversarial training",
    "pcarn-m-l1": f"{_PCARN}; the mobile form before its adversarial training",
    "dcscn": _DCSCN,
    "c-dcscn": f"{_DCSCN}; the compact form of its Table 1",
    "rt": "No paper: a plain stack of 3x3 convolutions of this project, for 8-bit arithmetic",
    "csrcnn": "Zhang, Shao, Liang, Gao, Shen, *Large Factor Image Super-Resolution with Cascaded "
    "Convolutional Neural Networks*, IEEE Transactions on Multimedia 2020",
}
_DATA: Final = {
    "carn": "the 800 pictures of DIV2K",
    "pcarn": "the 800 pictures of DIV2K",
    "dcscn": "yang91 and BSD200",
}
"""Training data of the papers, by a word of the network's name."""
_NOT_PUBLISHED: Final = {
    "dcscn": frozenset({"steps"}),
    "csrcnn": frozenset({"steps", "rate", "schedule"}),
}
"""Settings of a `paper` recipe that the paper does not give, by a word of the network's name."""
_ALL_SCALES: Final = frozenset({"carn", "pcarn"})
"""First words of the networks whose papers train one network for all scales together."""
_WEIGHTS: Final = {
    "d48a759a84509351facb6b7c6d5bd6edec98b98519b8c464ee4ab44d2ba964ff": "the public CARN-M weights "
    "(nmhkahn/CARN-pytorch, MIT)",
}
"""Descriptions of known third-party weight files, by SHA-256."""

USES: Final = ("film, clean", "compressed stream", "compressed stream, sharp", "clean, sharp",
               "large factor")  # fmt: skip
"""Purposes of networks, in the order of the cards page."""


def good_for(model: str) -> str:
    """Return a model's purpose, one of USES."""
    network, purpose = network_and_purpose(model)
    if purpose:
        return "compressed stream" if purpose == "stream" else f"compressed stream, {purpose}"
    if network == "csrcnn":
        return "large factor"
    return "clean, sharp" if network in ADVERSARIAL_NETWORKS else "film, clean"


def teacher_sentences(chain: Chain) -> list[str]:
    """Return a sentence for each teacher of the network's trainings."""
    found: dict[str, None] = {}
    for _, stage in chain.stages:
        if teacher := stage.get("teacher"):
            file = f"`{teacher['file']}`"
            whose = _WEIGHTS.get(teacher["sha256"])
            found[f"Taught by {f'{whose}, {file}' if whose else file}"] = None
    return list(found)


def training_length(model: str, chain: Chain) -> str:
    """Describe the training length of the network and of its paper."""
    ours = [stage for _, stage in chain.stages if "recipe" in stage]
    batches = sorted({stage["recipe"]["batch"] for stage in ours})
    size = " to ".join(map(str, (batches[0], batches[-1])[: len(batches)])) if batches else ""
    words = f"{sum(stage['step'] for stage in ours):,} steps of {size} patches"
    theirs = [f"{paper.steps:,} of {paper.batch}" for paper in _paper(model)]
    if "steps" in _not_published(model):
        theirs = [f"{paper.batch} patches, steps not given" for paper in _paper(model)]
    if not theirs:
        return words
    known = [word for word in model.split("-") if word in _DATA]
    data = f", on {_DATA[known[0]]}" if known else ""
    return f"{words} (its authors: {', then '.join(theirs)}{data})"


def differences(model: str, chain: Chain) -> str:
    """Describe the other differences from the paper's training; "" without any."""
    ours = [recipe_from(s["recipe"], "") for _, s in chain.stages if "recipe" in s]
    papers = _paper(model)
    if not papers or not ours:
        return ""
    silent = _not_published(model)
    parts = [
        *_sequence_differences(papers, ours, silent),
        *_patch_differences(papers, ours),
        *_start_differences(papers, ours, silent),
        *_omissions(papers[-1], ours),
    ]
    together = not papers[-1].scales and model.split("-", maxsplit=1)[0] in _ALL_SCALES
    if together and any(len(s["scales"]) == 1 for _, s in chain.stages if "recipe" in s):
        parts.append("scales not always trained together")
    return "; ".join(parts)


def _not_published(model: str) -> frozenset[str]:
    found = (_NOT_PUBLISHED[word] for word in model.split("-") if word in _NOT_PUBLISHED)
    return next(found, frozenset())


def _paper(model: str) -> list[Recipe]:
    """Return the paper's recipes for a network in training order; empty without a paper."""
    network = network_and_purpose(model)[0]
    if network in ADVERSARIAL_NETWORKS:
        return [find_recipe(f"{network}-l1", "paper"), find_recipe(network, "gan")]
    try:
        return [find_recipe(network, "paper")]
    except TrainError:
        return []


_SCHEDULES: Final = {
    "cosine": "on a half cosine",
    "halve": "halved after so many steps",
    "plateau": "halved after epochs without gain",
    "shares": "halved at shares of the steps",
}


def _sequence_differences(
    papers: list[Recipe], ours: list[Recipe], silent: frozenset[str]
) -> Iterator[str]:
    """Describe settings that change from training to training and differ from the papers'."""
    settings: tuple[tuple[str, Callable[[Recipe], list[str]]], ...] = (
        ("loss", lambda r: [kind.upper() if len(kind) == 2 else f"`{kind}`" for _, kind in r.loss]),
        ("optimiser", lambda r: [{"sgd": "SGD"}.get(r.optimiser, r.optimiser.capitalize())]),
        ("rate", lambda r: [] if "schedule" in silent else [_SCHEDULES[r.schedule]]),
        ("scales", lambda r: [" + ".join(f"x{s}" for s in phase) for _, phase in r.scales]),
    )
    for what, describe in settings:
        first, second = (
            ", then ".join(dict.fromkeys(word for recipe in of for word in describe(recipe)))
            for of in (ours, papers)
        )
        if first != second:
            yield f"{what} {first} instead of {second}"


def _patches(recipes: list[Recipe]) -> str:
    """Describe the range of the patches' sides."""
    sides = sorted({recipe.patch for recipe in recipes})
    kind = "HR" if recipes[0].hr_patch else "LR"
    return f"{' to '.join(map(str, (sides[0], sides[-1])[: len(sides)]))} {kind} pixels"


def _patch_differences(papers: list[Recipe], ours: list[Recipe]) -> Iterator[str]:
    """Describe differences in how the patches are made."""
    paper = papers[-1]
    if (sides := _patches(ours)) != (theirs := _patches(papers)):
        yield f"patches of {sides} instead of {theirs}"
    if paper.turns == "flips" and any(recipe.turns == "all" for recipe in ours):
        yield "pictures turned, not only flipped"
    if paper.grid and not any(recipe.grid for recipe in ours):
        yield f"patches from anywhere instead of every {paper.grid} pixels"
    if paper.copies and not any(recipe.copies for recipe in ours):
        yield "no scaled copies of the pictures"
    if boxes := max(recipe.boxes for recipe in ours):
        yield f"flat boxes drawn into up to {100 * boxes:.0f} % of the patches"


def _start_differences(
    papers: list[Recipe], ours: list[Recipe], silent: frozenset[str]
) -> Iterator[str]:
    """Describe differences in the initialisation, the rate and the averaging of the weights."""
    rate, most = (max(recipe.rate for recipe in of) for of in (ours, papers))
    if rate != most and "rate" not in silent:
        yield f"highest rate {rate:g} instead of {most:g}"
    if ours[0].init != papers[0].init:
        yield f"start weights as `{ours[0].init}` draws them instead of `{papers[0].init}`"
    if ours[0].start_small and not papers[0].start_small:
        yield "a start as plain enlargement"
    if ours[-1].ema and not papers[-1].ema:
        yield "weights averaged over steps"


def _omissions(paper: Recipe, ours: list[Recipe]) -> Iterator[str]:
    """Describe the paper's regularisations that our trainings lack."""
    if paper.network.get("keep", 1.0) < 1 and ours[-1].network.get("keep", 1.0) == 1:
        yield "no dropout"
    if paper.weight_norm and not any(recipe.weight_norm for recipe in ours):
        yield "no penalty on the weights' norms"
    if paper.weight_decay and not any(recipe.weight_decay for recipe in ours):
        yield "no weight decay"


def notes(stages: dict[str, Stage]) -> list[str]:
    """Return notes for the table of trainings, a sentence each."""
    found = [f"`{name}`: {stage['note']}" for name, stage in stages.items() if stage.get("note")]
    found += [_teacher_note(name, stage) for name, stage in stages.items() if stage.get("teacher")]
    found += [
        f"`{name}` took weights that its start lacked from {other['file']} "
        f"(sha256 {other['sha256'][:12]})."
        for name, stage in stages.items()
        for other in stage.get("joined", [])
    ]
    found += [
        f"What is shipped has {blend['share']:g} of the weights of `{name}` and "
        f"{1 - blend['share']:g} of those of {blend['stages_back']} stage(s) before."
        for name, stage in stages.items()
        if (blend := stage.get("blend"))
    ]
    without = [f"`{name}`" for name, stage in stages.items() if stage.get("commit") == ""]
    if without:
        ran = "it" if len(without) == 1 else "they"
        found.append(
            f"The code's commit is not recorded for {', '.join(without)}: "
            f"{ran} ran from a copy of the code without a history."
        )
    changed = [f"`{name}`" for name, s in stages.items() if s.get("commit", "").endswith("+")]
    if changed:
        found.append(
            f"{', '.join(changed)} ran with changes that were not committed (`+` after the commit)."
        )
    return found


def _teacher_note(name: str, stage: Stage) -> str:
    """Describe a training's teacher, and state that none of its weights were used."""
    teacher, share = stage["teacher"], stage["recipe"]["teacher_weight"]
    scores = [
        f"{scale} {db:.2f} dB on {folder}"
        for folder, scales in teacher.get("psnr", {}).items()
        for scale, db in scales.items()
    ]
    known = ", ".join([teacher["network"], *scores, f"sha256 {teacher['sha256'][:12]}"])
    part = "" if share == 1 else f" at {share:.0%} of the loss"
    return (
        f"`{name}` is distilled from the outputs of {teacher['file']} ({known}){part}; "
        "no weight of it is in the network."
    )


def format_steps(stage: dict[str, Any]) -> str:
    """Format a stage's steps for the table."""
    steps, planned = stage["step"], stage["recipe"]["steps"]
    words = f"{steps:,}" + (f" of {planned:,}" if steps < planned else "")
    ends = [f"{end:,} planned until step {at:,}" for at, end in stage["moved"]]
    return words + (f" ({'; '.join(ends)})" if ends else "")
