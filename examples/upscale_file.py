"""Upscales a file with the library: `python examples/upscale_file.py IN OUT [MODEL]`."""

import sys

import vsr


def main(source: str, target: str, model: str = "c-dcscn") -> None:
    """Upscale a file and print the frame rate and the latency."""
    report = vsr.upscale(source, target, model=model, overwrite=True)
    total = report.ledger.stages()["total"]
    sys.stdout.write(f"{report.frames_out} frames at {report.fps:.1f} fps\n")
    sys.stdout.write(f"latency: median {total['p50']:.0f} ms, 99 % under {total['p99']:.0f} ms\n")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python examples/upscale_file.py IN OUT [MODEL]")
    try:
        main(*sys.argv[1:])
    except vsr.VsrError as exc:
        sys.exit(f"error: {exc}")
