"""Formats text and numbers for a page."""

from collections.abc import Sequence


def printable(value: object) -> str:
    """Return the text with every unprintable character except whitespace replaced by U+FFFD.

    File names may contain lone surrogates, or marks that change the direction of writing.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text)


def clock(seconds: float, ticks: Sequence[float] = ()) -> str:
    """Format a time as h:mm:ss or m:ss, with hundredths; the step of `ticks` changes the digits."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.0
    digits = 0 if step >= 1 else 2 if step > 0.095 or not step else 3
    sign = "-" if round(seconds, digits) < 0 else ""
    rounded = round(abs(seconds), digits)
    minutes, rest = divmod(rounded, 60)
    hours, minutes = divmod(int(minutes), 60)
    tail = f"{rest:0{3 + digits if digits else 2}.{digits}f}"
    return f"{sign}{hours}:{minutes:02}:{tail}" if hours else f"{sign}{minutes}:{tail}"


def duration(ms: float) -> str:
    """Format milliseconds with about three digits; from 10 s on as `span` does."""
    if abs(ms) >= 10_000:
        return span(ms / 1000)
    digits = 0 if abs(ms) >= 100 else 1 if abs(ms) >= 10 else 2
    return f"{ms:,.{digits}f} ms"


def span(seconds: float) -> str:
    """Format a duration: `12.3 s`, `4 min 05 s`, `8 h 00 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def count(number: int) -> str:
    """Format a count with thousands separators."""
    return f"{number:,}"


def share(part: int, whole: int) -> str:
    """Format a share in percent, as 0 or 100 only if it is exactly that."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 0.1:
        return "under 0.1 %"
    if 99.9 < percent < 100:
        return "over 99.9 %"
    return f"{percent:.1f} %" if 0 < percent < 100 else f"{percent:.0f} %"


def size(number: int) -> str:
    """Format a number of bytes with a suitable unit."""
    if number < 1000:
        return f"{number} bytes"
    return f"{number / 1e3:.1f} kB" if number < 1_000_000 else f"{number / 1e6:,.1f} MB"
