"""gaugewren: readings of instruments as streams, windows, units, calendars, tables and text reports.

The usual way through the package: read ticks into a :class:`Strand`, clean them with stages, cut them into
:class:`Pane` objects, gather figures in a :class:`Slate` and print a :class:`Placard`.
"""

from .almanac import (
    WEEKDAYS, Almanac, Chime, month_edges, nth_weekday, quarter_tag, snap_ahead, snap_back, week_tag, weekday_rota,
)
from .gauges import (
    ABSOLUTE_COLD, Gauge, GaugeClash, Quanta, find_gauge, kinfolk, mint_gauge, parse_quanta, read_span, regauge,
    spell_span,
)
from .panes import HollowPane, Pane
from .placard import (
    SPARK_RAMP, Placard, barline, boxed, columned, dotleader, sparkrow, terse_figure, waisted,
)
from .slate import Slate, SlateFault
from .strand import Stage, Strand, braid, known_strandops, strandop
from .tallies import Cistern, Frontrunners, Odometer, Tallier, Trapline, Watchman
from .ticks import DAY_SPAN, RIFT, Tick, TickFault, moment_of, parse_tickline, render_tickline
from . import groupings, stages

__version__ = "1.2.0"

__all__ = [
    "ABSOLUTE_COLD", "Almanac", "Chime", "Cistern", "DAY_SPAN", "Frontrunners", "Gauge", "GaugeClash", "HollowPane",
    "Odometer", "Pane", "Placard", "Quanta", "RIFT", "SPARK_RAMP", "Slate", "SlateFault", "Stage", "Strand", "Tallier",
    "Tick", "TickFault", "Trapline", "WEEKDAYS", "Watchman", "barline", "boxed", "braid", "columned", "dotleader",
    "find_gauge", "groupings", "kinfolk", "known_strandops", "mint_gauge", "moment_of", "month_edges", "nth_weekday",
    "parse_quanta", "parse_tickline", "quarter_tag", "read_span", "regauge", "render_tickline", "snap_ahead",
    "snap_back", "sparkrow", "spell_span", "stages", "strandop", "terse_figure", "waisted", "week_tag", "weekday_rota",
]
