"""Filters flicker over time in a run of segments, each the same however the run is divided.

The filter of a segment does not depend on the run's beginning, which a worker or a resumed run has
not seen. It begins with the frames of a short time before the segment, `Cuts.lead`, so that the
detail of a still picture does not change visibly where segments meet.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from vsr.files.pipeline import Enlarge
from vsr.inference.flicker import FlickerFilter, with_originals
from vsr.media.clips import Cuts
from vsr.media.frame import Frame

T = TypeVar("T")


def with_flicker_filter(
    enlarge: Enlarge,
    enabled: bool | None,
    start: int = 0,
    cuts_of: Callable[[Frame], Cuts] | None = None,
) -> Enlarge:
    """Return `enlarge`, followed by a new filter if that is enabled.

    Frames with a lower index than `start` only prepare the filter and are not yielded. `cuts_of`
    returns where the run is cut, given its first frame; None: a single filter for all frames.
    """
    if not enabled:
        return enlarge
    if cuts_of is None:
        process = partial(FlickerFilter().process, enlarge=enlarge)
    else:
        process = partial(_process_segments, enlarge=enlarge, cuts_of=cuts_of)
    return lambda items: (
        item for item in process(items) if not isinstance(item, Frame) or item.index >= start
    )


def _process_segments(
    items: Iterable[Frame | T], enlarge: Enlarge, cuts_of: Callable[[Frame], Cuts]
) -> Iterator[Frame | T]:
    """Yield what `enlarge` makes of the items, each frame filtered by its segment's filter."""
    filters: dict[int, FlickerFilter] = {}
    first = FlickerFilter()
    for before, item in with_originals(items, enlarge):
        if before is None:
            yield item
            continue
        cuts, time = cuts_of(before), before.pts * before.time_base
        own = cuts.number(time)
        filters = {number: each for number, each in filters.items() if number >= own}
        for number in range(own, cuts.number(time + cuts.lead) + 1):
            filters.setdefault(number, first.another())
        assert isinstance(item, Frame)
        made = {number: each.filtered(before, item) for number, each in filters.items()}
        yield made[own]
