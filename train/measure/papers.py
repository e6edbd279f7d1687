"""The papers' own figures, to stand beside ours: PSNR and SSIM on Y, LPIPS where one was printed.

Only figures that were found in print or at their authors' own hand are here; what is missing was
not found. bsd100 is the papers' B100.
"""

from typing import NamedTuple


class Figure(NamedTuple):
    """One published result; None where no figure was found."""

    psnr: float | None = None
    ssim: float | None = None
    lpips: float | None = None


Table = dict[int, dict[str, Figure]]
"""scale -> data set -> figure."""

# As every paper prints it (MATLAB's imresize); read in the tables of VDSR's and DRRN's public
# repositories, which agree; BSD100's: DCSCN's README for PSNR, ESRGAN's Table 2 for x4.
_BICUBIC: Table = {
    2: {
        "set5": Figure(33.66, 0.9299),
        "set14": Figure(30.24, 0.8688),
        "bsd100": Figure(29.56, 0.8431),
    },
    3: {"set5": Figure(30.39, 0.8682), "set14": Figure(27.55, 0.7742), "bsd100": Figure(27.21)},
    4: {
        "set5": Figure(28.42, 0.8104),
        "set14": Figure(26.00, 0.7027),
        "bsd100": Figure(25.96, 0.6675),
    },
}

# Ahn, Kang, Sohn, ECCV 2018, Table 1; read where SwinIR's Table and others repeat it.
_CARN: Table = {
    2: {
        "set5": Figure(37.76, 0.9590),
        "set14": Figure(33.52, 0.9166),
        "bsd100": Figure(32.09, 0.8978),
    },
    3: {
        "set5": Figure(34.29, 0.9255),
        "set14": Figure(30.29, 0.8407),
        "bsd100": Figure(29.06, 0.8034),
    },
    4: {
        "set5": Figure(32.13, 0.8937),
        "set14": Figure(28.60, 0.7806),
        "bsd100": Figure(27.58, 0.7349),
    },
}

# The same table; only these two could be confirmed here (in the project's issue 3).
_CARN_M: Table = {2: {"set5": Figure(37.53)}, 4: {"set5": Figure(31.92)}}

# Yamanaka, Kuwashima, Kurita 2017, Table 2, as its author's README (branch ver1) gives it.
_DCSCN: Table = {
    2: {"set5": Figure(37.62), "set14": Figure(33.05), "bsd100": Figure(31.91)},
}

# The paper's row of c-DCSCN is a copy of DCSCN's by mistake; its author names the README's
# figures as the right ones (jiny2001/dcscn-super-resolution, issue 108).
_C_DCSCN: Table = {
    2: {"set5": Figure(37.12), "set14": Figure(32.76), "bsd100": Figure(31.57)},
    3: {"set5": Figure(33.10), "set14": Figure(29.45), "bsd100": Figure(28.48)},
    4: {"set5": Figure(30.86), "set14": Figure(27.74), "bsd100": Figure(27.04)},
}

# Ahn, Kang, Sohn, arXiv:1903.02240: LPIPS on Set5 at x4, `scale` pixels shaved, as quoted and
# confirmed in nmhkahn/PCARN-pytorch, issue 4.
_PCARN: Table = {4: {"set5": Figure(lpips=0.0745)}}
_PCARN_M: Table = {4: {"set5": Figure(lpips=0.0796)}}
_PCARN_L1: Table = {4: {"set5": Figure(lpips=0.1769)}}
_PCARN_M_L1: Table = {4: {"set5": Figure(lpips=0.1793)}}

FIGURES: dict[str, Table] = {
    "bicubic": _BICUBIC,
    "carn": _CARN,
    "carn-m": _CARN_M,
    "dcscn": _DCSCN,
    "c-dcscn": _C_DCSCN,
    "pcarn": _PCARN,
    "pcarn-m": _PCARN_M,
    "pcarn-l1": _PCARN_L1,
    "pcarn-m-l1": _PCARN_M_L1,
}


def published(network: str, data_set: str, scale: int) -> Figure:
    """The paper's figure of a network on a data set; an empty one where none is known."""
    return FIGURES.get(network, {}).get(scale, {}).get(data_set.lower(), Figure())
