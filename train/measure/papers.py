"""The papers' figures, for comparison with ours: PSNR and SSIM on Y, and LPIPS if it was printed.

Every figure was read in a text and has the paper's table and row; the comment above a table says
where it was read, if not in the paper. Missing figures were not found. bsd100 is the papers' B100;
Urban100 is that of CARN's fifth arXiv version, corrected in x2 and x3.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Figure(NamedTuple):
    """One published result; None if no figure was found."""

    psnr: float | None = None
    ssim: float | None = None
    lpips: float | None = None
    source: str = ""
    """Paper, table and row."""


Pair = tuple[float | None, float | None]
"""PSNR and SSIM."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a published table: figures by data set, in the papers' order."""

    scale: int
    set5: Pair = (None, None)
    set14: Pair = (None, None)
    bsd100: Pair = (None, None)
    urban100: Pair = (None, None)
    lpips: dict[str, float] = field(default_factory=dict)
    """LPIPS by data set."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of one network in one published table."""

    source: str
    rows: tuple[Row, ...]


# As every paper prints it (MATLAB's imresize); read in the tables of VDSR's and DRRN's public
# repositories, which agree; BSD100's: DCSCN's README for PSNR, ESRGAN's Table 2 for x4.
_BICUBIC = Table(
    source="bicubic, as VDSR and DRRN print it",
    rows=(
        Row(scale=2, set5=(33.66, 0.9299), set14=(30.24, 0.8688), bsd100=(29.56, 0.8431)),
        Row(scale=3, set5=(30.39, 0.8682), set14=(27.55, 0.7742), bsd100=(27.21, None)),
        Row(scale=4, set5=(28.42, 0.8104), set14=(26.00, 0.7027), bsd100=(25.96, 0.6675)),
    ),
)
# Zhang et al., IEEE Transactions on Multimedia 2020; quoted in this project's training goals.
_BICUBIC_X8 = Table(source="CSRCNN, bicubic", rows=(Row(scale=8, set5=(24.40, None)),))

# Ahn, Kang, Sohn, ECCV 2018 (arXiv:1803.08664v5), Table 1; read in Lornatang/CARN-PyTorch, README,
# which names that version, and for x2 in xiaomi-automl/FALSR, README: the two agree.
_CARN = Table(
    source="CARN, Table 1, CARN",
    rows=(
        Row(
            scale=2, set5=(37.76, 0.9590), set14=(33.52, 0.9166), bsd100=(32.09, 0.8978),
            urban100=(31.92, 0.9256),
        ),
        Row(
            scale=3, set5=(34.29, 0.9255), set14=(30.29, 0.8407), bsd100=(29.06, 0.8034),
            urban100=(28.06, 0.8493),
        ),
        Row(
            scale=4, set5=(32.13, 0.8937), set14=(28.60, 0.7806), bsd100=(27.58, 0.7349),
            urban100=(26.07, 0.7837),
        ),
    ),
)  # fmt: skip

# The same table prints all twelve pairs; x2 read in xiaomi-automl/FALSR, README (its Urban100 SSIM
# could not be confirmed), Set5 at x3 and x4 in this project's training goals.
_CARN_M = Table(
    source="CARN, Table 1, CARN-M",
    rows=(
        Row(
            scale=2, set5=(37.53, 0.9583), set14=(33.26, 0.9141), bsd100=(31.92, 0.8960),
            urban100=(31.23, None),
        ),
        Row(scale=3, set5=(33.99, None)),
        Row(scale=4, set5=(31.92, None)),
    ),
)  # fmt: skip

# Yamanaka, Kuwashima, Kurita 2017 (arXiv:1707.05425), Table 2, as its author's README (branch ver1)
# gives it.
_DCSCN = Table(
    source="DCSCN, Table 2, DCSCN",
    rows=(Row(scale=2, set5=(37.62, None), set14=(33.05, None), bsd100=(31.91, None)),),
)
# The paper's row of c-DCSCN is a copy of DCSCN's by mistake; its author names the README's
# figures as the right ones (jiny2001/dcscn-super-resolution, issue 108).
_C_DCSCN = Table(
    source="DCSCN's README (ver1), c-DCSCN",
    rows=(
        Row(scale=2, set5=(37.12, None), set14=(32.76, None), bsd100=(31.57, None)),
        Row(scale=3, set5=(33.10, None), set14=(29.45, None), bsd100=(28.48, None)),
        Row(scale=4, set5=(30.86, None), set14=(27.74, None), bsd100=(27.04, None)),
    ),
)

# Ahn, Kang, Sohn, arXiv:1903.02240. LPIPS on Set5 at x4, `scale` pixels shaved: as quoted and
# confirmed in nmhkahn/PCARN-pytorch, issue 4. PSNR on Set5: quoted in this project's training
# goals. The numbers of the tables could not be confirmed.
_PCARN = Table(source="PCARN, row PCARN", rows=(Row(scale=4, lpips={"set5": 0.0745}),))
_PCARN_M = Table(
    source="PCARN, row PCARN-M",
    rows=(Row(scale=4, set5=(29.38, None), lpips={"set5": 0.0796}),),
)
_PCARN_L1 = Table(source="PCARN, row PCARN (L1)", rows=(Row(scale=4, lpips={"set5": 0.1769}),))
_PCARN_M_L1 = Table(
    source="PCARN, row PCARN-M (L1)",
    rows=(
        Row(scale=2, set5=(37.70, None)),
        Row(scale=3, set5=(34.09, None)),
        Row(scale=4, set5=(31.90, None), lpips={"set5": 0.1793}),
    ),
)

# Zhang, Shao, Liang, Gao, Shen, IEEE Transactions on Multimedia 2020; quoted in this project's
# training goals.
_CSRCNN = Table(source="CSRCNN", rows=(Row(scale=8, set5=(27.22, None)),))

TABLES: dict[str, tuple[Table, ...]] = {
    "bicubic": (_BICUBIC, _BICUBIC_X8),
    "carn": (_CARN,),
    "carn-m": (_CARN_M,),
    "dcscn": (_DCSCN,),
    "c-dcscn": (_C_DCSCN,),
    "pcarn": (_PCARN,),
    "pcarn-m": (_PCARN_M,),
    "pcarn-l1": (_PCARN_L1,),
    "pcarn-m-l1": (_PCARN_M_L1,),
    "csrcnn": (_CSRCNN,),
}
DATA_SETS = ("set5", "set14", "bsd100", "urban100")


def published(network: str, data_set: str, scale: int) -> Figure:
    """Return the paper's figure of a network on a data set; an empty one if none is known."""
    for name, known, figure in figures():
        if (name, known) == (network, (data_set.lower(), scale)):
            return figure
    return Figure()


def figures() -> Iterator[tuple[str, tuple[str, int], Figure]]:
    """Yield (network, (data set, scale), figure) of all known figures."""
    for network, tables in TABLES.items():
        for table in tables:
            for row in table.rows:
                for data_set in DATA_SETS:
                    psnr, ssim = getattr(row, data_set)
                    figure = Figure(psnr, ssim, row.lpips.get(data_set), table.source)
                    if figure[:3] != (None, None, None):
                        yield network, (data_set, row.scale), figure
