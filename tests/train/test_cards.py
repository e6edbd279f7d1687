"""Tests of the page of model cards: the table of all networks, and the content of each card."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from train.fit.recipe import Recipe, find_recipe, recipe_record
from train.ship.about import USES, differences, good_for, notes, teacher_sentences, training_length
from train.ship.cards import cards
from train.ship.manifest import read_manifest
from train.ship.provenance import Chain, chains_of, complete_record

ENGINES = Path(__file__).parents[2] / "engines"

CARN_M = "d48a759a84509351facb6b7c6d5bd6edec98b98519b8c464ee4ab44d2ba964ff"


def _stage(recipe: Recipe, **changes: Any) -> dict[str, Any]:
    made = {
        "network": "dcscn", "scales": [2], "recipe": recipe_record(recipe), "step": recipe.steps,
        "data": {"folders": ["yang91"], "images": 91}, "precision": "32-true", "command": "",
        "commit": "0123456789ab",
    }  # fmt: skip
    return complete_record({**made, **changes})


def _chain(*stages: dict[str, Any], sha256: str = "a") -> Chain:
    return Chain(sha256=sha256, stages=tuple((f"s{n}", stage) for n, stage in enumerate(stages)))


def _entry(**changes: Any) -> dict[str, Any]:
    score = {"psnr": 37.5, "ssim": 0.95, "n": 5}
    return {
        "file": "dcscn/x2.onnx", "sha256": "a", "licence": "Apache-2.0", "parameters": 1_234_567,
        "multadds_720p": 36_500_000_000, "psnr": {"set5": score}, "video": {}, **changes,
    }  # fmt: skip


def test_every_model_is_for_something() -> None:
    models = ("carn-m", "pcarn-m-l1", "dcscn-stream", "dcscn-sharp", "pcarn-m", "csrcnn")
    found = [good_for(model) for model in models]
    assert found == [
        "film, clean", "film, clean", "compressed stream", "compressed stream, sharp",
        "clean, sharp", "large factor",
    ]  # fmt: skip
    assert set(found) == set(USES)


def test_the_table_comes_first_by_purpose_then_by_work() -> None:
    light = {**_entry(file="c-dcscn/x2.onnx"), "multadds_720p": 6_000_000_000}
    models = {
        "dcscn-stream": {"x2": _entry(file="dcscn/x2.stream.onnx")},
        "dcscn": {"x2": _entry(ms={"ms": 41.2, "size": "320x180", "machine": "a CPU"})},
        "c-dcscn": {"x2": light},
    }
    page = cards(models, {})
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| [")]
    assert rows == [f" [{n}](#{n}) " for n in ("c-dcscn", "dcscn", "dcscn-stream")]
    assert "| [dcscn](#dcscn) | x2 | 41.2 | 37.50 |  |  | film, clean |" in page
    assert "ms here: one 320x180 picture on a CPU" in page
    assert page.index("| [c-dcscn]") < page.index("## c-dcscn")


def test_the_shipped_pages_tables_are_those_of_the_shipped_manifest() -> None:
    """If this fails, regenerate the page with `python -m train cards`."""
    models = read_manifest(ENGINES)["models"]
    anew = cards(models, chains_of(ENGINES, models)).splitlines()
    page = (ENGINES / "README.md").read_text(encoding="utf-8").splitlines()
    tables = [[line for line in text if line.startswith("|")] for text in (anew, page)]
    assert tables[0] == tables[1]


def test_urban100_has_a_column_where_somebody_measured_it() -> None:
    without, measured = _entry(), _entry()
    measured["psnr"] = {**measured["psnr"], "urban100": {"psnr": 31.2, "ssim": 0.919, "n": 100}}
    assert "Urban100" not in cards({"dcscn": {"x2": without}}, {})
    page = cards({"dcscn": {"x2": measured}, "c-dcscn": {"x2": without}}, {})
    assert "| Set5 | Set14 | BSD100 | Urban100 | good for |" in page
    assert "| 37.50 |  |  | 31.20 | film, clean |" in page
    assert "| 37.50 |  |  |  | film, clean |" in page
    assert page.count("BSD100 | Urban100 | int8") == 1  # only in that network's card


def test_a_training_is_held_against_its_paper() -> None:
    """DCSCN, section 4.1: batches of 64 patches of 32x32 HR pixels at stride 16, L2 loss plus 1e-4
    * weight norms, dropout with keep 0.8, a rate of 2e-3 halved after five epochs without gain."""
    chain = _chain(_stage(replace(find_recipe("dcscn", "ours").with_steps(900), rate=1e-3)))
    assert training_length("dcscn", chain) == (
        "900 steps of 32 patches (its authors: 64 patches, steps not given, on yang91 and BSD200)"
    )
    assert differences("dcscn", chain).split("; ") == [
        "loss L1 instead of L2",
        "rate on a half cosine instead of halved after epochs without gain",
        "patches of 32 LR pixels instead of 32 HR pixels",
        "pictures turned, not only flipped",
        "patches from anywhere instead of every 16 pixels",
        "flat boxes drawn into up to 25 % of the patches",
        "highest rate 0.001 instead of 0.002",
        "a start as plain enlargement",
        "weights averaged over steps",
        "no dropout",
        "no penalty on the weights' norms",
    ]
    assert differences("dcscn", _chain(_stage(find_recipe("dcscn", "paper")))) == ""
    assert differences("mine", chain) == ""


def test_an_adversarial_network_is_held_against_both_stages_of_its_paper() -> None:
    """PCARN, section 4: L1 loss, then GAN and VGG19 losses; 64 patches of 48x48, Adam at 1e-4."""
    l1, gan = find_recipe("pcarn-m-l1", "paper"), find_recipe("pcarn-m", "gan")
    together = {"scales": [2, 3, 4]}
    assert differences("pcarn-m", _chain(_stage(l1) | together, _stage(gan) | together)) == ""
    chain = _chain(
        _stage(find_recipe("pcarn-m-l1", "distil")) | together,
        _stage(find_recipe("pcarn-m", "sharp")) | together,
    )
    assert training_length("pcarn-m", chain) == (
        "5,600 steps of 6 to 8 patches (its authors: 600,000 of 64, then 200,000 of 64, "
        "on the 800 pictures of DIV2K)"
    )
    assert differences("pcarn-m", chain).split("; ") == [
        "loss L1, then `sharp` instead of L1, then `gan`",
        "optimiser Muon, then Adam instead of Adam",
        "rate on a half cosine, then halved at shares of the steps instead of halved after so many "
        "steps",
        "patches of 24 to 40 LR pixels instead of 48 LR pixels",
        "flat boxes drawn into up to 25 % of the patches",
        "highest rate 0.0008 instead of 0.0001",
        "weights averaged over steps",
    ]
    alone = _chain(_stage(l1) | together, _stage(gan) | {"scales": [4]})
    assert differences("pcarn-m", alone) == "scales not always trained together"


def test_a_paper_that_gives_no_steps_and_rate_is_not_said_to_have_some() -> None:
    """CSRCNN's gives batch, copies, weight decay and the order of levels and losses only."""
    chain = _chain(_stage(find_recipe("csrcnn", "ours")))
    assert training_length("csrcnn", chain) == (
        "6,000 steps of 4 patches (its authors: 32 patches, steps not given)"
    )
    assert differences("csrcnn", chain).split("; ") == [
        "loss L1 instead of L1, then `alternate`",
        "optimiser Adam instead of SGD",
        "scales x2, then x2 + x4, then x4 + x8, then x8 instead of x2, then x2 + x4, "
        "then x2 + x4 + x8",
        "patches of 96 HR pixels instead of 32 LR pixels",
        "no scaled copies of the pictures",
        "flat boxes drawn into up to 25 % of the patches",
        "a start as plain enlargement",
        "weights averaged over steps",
        "no weight decay",
    ]


def test_what_a_command_does_not_repeat_is_said_in_words() -> None:
    plain = _stage(Recipe(steps=9))
    stages = {
        "first": {**plain, "note": "On a laptop.", "commit": ""},
        "second": {**plain, "commit": "0123456789ab+"},
        "third": plain,
    }
    assert notes(stages) == [
        "`first`: On a laptop.",
        "The code's commit is not recorded for `first`: it ran from a copy of the code without a "
        "history.",
        "`second` ran with changes that were not committed (`+` after the commit).",
    ]


def test_the_training_table_says_what_was_stopped_and_moved() -> None:
    first = _stage(Recipe(steps=3000), step=1446)
    second = _stage(Recipe(steps=11000, degradation="stream"), moved=[[6425, 15000]])
    page = cards({"dcscn": {"x2": _entry()}}, {"dcscn/x2.onnx": _chain(first, second)})
    assert "| s0 | - | ours | 1,446 of 3,000 | 32 of 32x32 | 0.002 | 91 of yang91 | x2 |" in page
    assert "| s1 | s0 | ours | 11,000 (15,000 planned until step 6,425) |" in page
    assert "| 91 of yang91, as compressed video | x2 |" in page


def test_a_teacher_is_named_with_its_licence() -> None:
    teacher = {"file": "carn_m.pth", "network": "carn-m", "sha256": CARN_M}
    chain = _chain({**_stage(Recipe(steps=9)), "teacher": teacher})
    words = "Taught by the public CARN-M weights (nmhkahn/CARN-pytorch, MIT), `carn_m.pth`"
    assert teacher_sentences(chain) == [words]
    page = cards({"dcscn": {"x2": _entry()}}, {"dcscn/x2.onnx": chain})
    assert f"licence Apache-2.0. {words}." in page
    assert "| ours, taught by carn_m.pth | 9 |" in page
    other = {**teacher, "sha256": "0" * 64, "file": "x4.onnx"}
    assert teacher_sentences(_chain({**_stage(Recipe(steps=9)), "teacher": other})) == [
        "Taught by `x4.onnx`"
    ]


def test_int8_says_its_time_and_its_change() -> None:
    ms = {"ms": 9.5, "size": "320x180", "machine": "a CPU"}
    int8 = {"psnr": {"set5": {"psnr": 37.46, "ssim": 0.95}}, "ms": ms}
    page = cards({"dcscn": {"x2": _entry(int8=int8, ms={**ms, "ms": 20.0})}}, {})
    assert "| 20 (int8 9.5) |" in page
    assert "| set5 -0.040 |" in page


def test_likeness_on_benchmarks_is_said_beside_bicubic() -> None:
    lpips = {"set5": {"bicubic": 0.3443, "ours": 0.0996}}
    page = cards({"pcarn-m": {"x4": _entry(file="pcarn-m/x4.onnx", lpips=lpips)}}, {}).splitlines()
    assert "| set5 | 0.3443 | 0.0996 |" in page


def test_how_a_sharp_network_looks_is_said_beside_bicubic_and_its_stream_form() -> None:
    lpips = {"web": {"ours": 0.0914, "stream": 0.1031, "bicubic": 0.1456, "lanczos": 0.14}}
    flicker = {"web": {"ours": 0.771, "bicubic": 0.709, "truth": 1.26}}
    look = {"lpips": lpips, "flicker": flicker, "flat_noise": 0.1234}
    models = {"dcscn-sharp": {"x2": _entry(file="dcscn/x2.sharp.onnx", look=look)}}
    page = cards(models, {}).splitlines()
    assert page[page.index("| clip | bicubic | stream | lanczos | ours |") + 2] == (
        "| web | 0.146 | 0.103 | 0.140 | 0.091 |"
    )
    assert page[page.index("| clip | bicubic | truth | ours |") + 2] == (
        "| web | 0.71 | 1.26 | 0.77 |"
    )
    assert "x2: noise that it adds to a flat grey patch: 0.12 codes at most." in page
