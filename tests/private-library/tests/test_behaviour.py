"""Behaviour at the edges: what the examples in the docstrings do not show."""

import unittest

import gaugewren
from gaugewren import strand
from gaugewren import (
    Almanac, Chime, Cistern, Frontrunners, GaugeClash, HollowPane, Odometer, Pane, Quanta, Slate, SlateFault, Stage,
    Strand, Tallier, Tick, TickFault, Trapline, Watchman, braid, find_gauge, kinfolk, mint_gauge, moment_of,
    month_edges, nth_weekday, parse_quanta, parse_tickline, quarter_tag, read_span, render_tickline, spell_span,
    strandop, waisted, weekday_rota,
)


class Ticks(unittest.TestCase):
    def test_line_round_trip(self):
        for line in ["2024-03-01T08:00:00|pump|3.5|cold,slow", "1999-12-31T23:59:59|a|-1"]:
            self.assertEqual(render_tickline(parse_tickline(line)), line)

    def test_bad_lines_name_the_fault(self):
        for line, fault in [("", "fields"), ("a|b", "fields"), ("x|a|1", "ISO"), ("2024-01-01|a|x", "number"),
                            ("2024-01-01|a|1|m|n", "fields")]:
            with self.subTest(line=line), self.assertRaisesRegex(TickFault, fault):
                parse_tickline(line)

    def test_offsets_are_honoured(self):
        self.assertEqual(moment_of("1970-01-01T02:00:00+02:00"), 0.0)
        self.assertEqual(moment_of("1970-01-01T00:00:01Z"), 1.0)


class Strands(unittest.TestCase):
    def test_a_strand_can_be_walked_twice(self):
        strand = Strand(Tick(i, "a", float(i)) for i in range(4)).winnow(lambda t: t.amount > 1).accrue()
        self.assertEqual(strand.reap(), strand.reap())
        self.assertEqual(len(strand.reap()), 2)

    def test_stages_treat_origins_apart(self):
        mixed = [Tick(0, "a", 1.0), Tick(1, "b", 5.0), Tick(2, "a", 4.0), Tick(3, "b", 6.0)]
        self.assertEqual([t.amount for t in Strand(mixed).ripple()], [3.0, 1.0])
        self.assertEqual([t.amount for t in Strand(mixed).accrue()], [1.0, 5.0, 5.0, 11.0])
        self.assertEqual(len(Strand(mixed).settle(10).reap()), 2)
        self.assertEqual([len(p.ticks) for p in Strand(mixed).bouts(idle=1.5)], [1, 1, 1, 1])

    def test_overlapping_panes_share_ticks(self):
        panes = Strand.metronome([1, 1, 1], 30).panes(breadth=60, stride=30).reap()
        self.assertEqual([(p.opening, len(p.ticks)) for p in panes], [(-30, 1), (0, 2), (30, 2), (60, 1)])

    def test_panes_with_a_stride_beyond_the_breadth_leave_ticks_out(self):
        panes = Strand.metronome([1, 2, 3, 4], 30).panes(breadth=30, stride=60).reap()
        self.assertEqual([p.amassed() for p in panes], [1.0, 3.0])

    def test_marshal_drops_what_is_too_late(self):
        strand = Strand([Tick(m, "a", 1.0) for m in (0, 100, 5, 101)])
        self.assertEqual([t.moment for t in strand.marshal(patience=20)], [0, 5, 100, 101])
        strand = Strand([Tick(m, "a", 1.0) for m in (0, 100, 200, 5)])
        self.assertEqual([t.moment for t in strand.marshal(patience=20)], [0, 100, 200])

    def test_despike_accepts_a_lasting_change(self):
        amounts = [t.amount for t in Strand.metronome([1, 1, 1, 50, 50, 50, 50, 50], 1).despike(memory=3)]
        self.assertEqual(amounts[:3], [1.0] * 3)
        self.assertTrue(50.0 in amounts)

    def test_yoke_forgets_old_partners(self):
        pairs = Strand.metronome([1, 2], 100).yoke([Tick(0, "b", 9.0)], slack=50).reap()
        self.assertEqual([partner is None for _, partner in pairs], [False, True])

    def test_braid_and_relay(self):
        a, b = Strand.metronome([1, 2], 10, "a"), Strand.metronome([3, 4], 10, "b", outset=5)
        self.assertEqual([t.origin for t in braid(a, b)], ["a", "b", "a", "b"])
        self.assertEqual(a.relayed(b, 10).census(), {"a": 1, "b": 1})

    def test_empty_strands(self):
        empty = Strand([])
        self.assertEqual((empty.extent(), empty.pinpoint(0), empty.census(), empty.silences(1)), (None, None, {}, []))
        for alias in ("unecho", "ripple", "accrue", "splay"):
            self.assertEqual(getattr(empty, alias)().reap(), [])
        with self.assertRaises(ValueError):
            empty.busiest(10)

    def test_bad_arguments(self):
        strand = Strand([])
        for alias, arguments in [("settle", (0,)), ("hush", (-1,)), ("panes", (0,)), ("fence", (2, 1)),
                                 ("detent", ([],)), ("handfuls", (0,)), ("ration", (0, 1)), ("lockstep", (0,))]:
            with self.subTest(stage=alias), self.assertRaises(ValueError):
                getattr(strand, alias)(*arguments)

    def test_registration_guards_its_names(self):
        for alias in ("reap", "settle", "no-name"):
            with self.subTest(alias=alias), self.assertRaises(ValueError):
                strandop(alias)
        with self.assertRaises(TypeError):
            strandop("tested_only")(int)

    def test_every_stage_is_registered(self):
        for module in (gaugewren.stages, gaugewren.groupings):
            for name in module.__all__:
                stage = getattr(module, name)
                self.assertTrue(issubclass(stage, Stage))
                self.assertEqual(sum(known is stage for known in strand._ENROLLED.values()), 1, name)


class Panes(unittest.TestCase):
    def test_hollow_panes(self):
        for figure in ("middling", "swing", "crest", "trough", "dwellmean"):
            with self.subTest(figure=figure), self.assertRaises(HollowPane):
                getattr(Pane(0, 1), figure)()
        self.assertEqual((Pane(0, 1).amassed(), Pane(0, 0).tempo()), (0.0, 0.0))


class Slates(unittest.TestCase):
    def setUp(self):
        self.slate = Slate(["port", "tons"], [["Oslo", 5], ["Riga", 7], ["Oslo", 1]])

    def test_unknown_captions(self):
        for call in (lambda: self.slate.lift("x"), lambda: self.slate.pared("x"), lambda: self.slate.laddered("x"),
                     lambda: self.slate.recaptioned({"x": "y"}), lambda: self.slate.toted("x", by="port"),
                     lambda: self.slate.annex("port", len), lambda: self.slate.reaped_row(9)):
            with self.assertRaises(SlateFault):
                call()

    def test_ragged_rows(self):
        with self.assertRaisesRegex(SlateFault, "cells"):
            Slate(["a"], [[1, 2]])

    def test_pipetext_round_trip(self):
        texts = Slate(["a", "b"], [["1", "x"], ["2", ""]])
        self.assertEqual(Slate.from_pipetext(texts.to_pipetext()), texts)

    def test_originals_stay(self):
        before = repr(self.slate)
        self.slate.laddered("tons").footed().portioned("tons")
        self.assertEqual(repr(self.slate), before)


class Gauges(unittest.TestCase):
    def test_temperatures(self):
        self.assertTrue(Quanta(212, "degF").agrees(Quanta(100, "degC"), slack=1e-6))
        self.assertAlmostEqual(Quanta(0, "K").recast("degC").amount, gaugewren.ABSOLUTE_COLD)

    def test_clashes(self):
        for call in (lambda: find_gauge("zz"), lambda: Quanta(1, "kg").recast("bar"), lambda: parse_quanta("bar 3"),
                     lambda: mint_gauge("bar", "pressure", 1), lambda: mint_gauge("new", "x", 0), lambda: kinfolk("zz"),
                     lambda: read_span("soon")):
            with self.assertRaises(GaugeClash):
                call()

    def test_spans_round_trip(self):
        for seconds in (0, 1, 59, 60, 3600, 90061, 86399):
            self.assertEqual(read_span(spell_span(seconds)), seconds)


class Calendars(unittest.TestCase):
    def test_working_time_skips_weekends_and_closures(self):
        almanac = Almanac(weekday_rota(), closures=["2024-03-04"])
        friday = moment_of("2024-03-01T16:00")
        self.assertEqual(almanac.pushed_on(friday, 2 * 3600), moment_of("2024-03-05T09:00"))
        self.assertEqual(almanac.manned_span(friday, moment_of("2024-03-05T10:00")), 3 * 3600)
        self.assertEqual(almanac.next_manning(moment_of("2024-03-01T17:00")), moment_of("2024-03-05T08:00"))

    def test_bad_rotas(self):
        for rota in ({"moon": []}, {"mon": [("12:00", "08:00")]}):
            with self.assertRaises(ValueError):
                Almanac(rota)
        with self.assertRaises(ValueError):
            Almanac({}).next_manning(0)

    def test_edges(self):
        self.assertEqual(month_edges(moment_of("2023-12-31")), (moment_of("2023-12-01"), moment_of("2024-01-01")))
        self.assertEqual(quarter_tag(moment_of("2024-03-31"), kickoff=4), "2023Q4")
        self.assertEqual(Chime(10).strokes(5, 5), [])
        with self.assertRaises(ValueError):
            nth_weekday(2024, 2, "fri", 5)


class Tallies(unittest.TestCase):
    def test_joined_talliers_equal_one(self):
        left, right, both = Tallier(), Tallier(), Tallier()
        for i, amount in enumerate([3.0, 1.5, 8.0, -2.0, 4.0]):
            (left if i % 2 else right).absorb(amount)
            both.absorb(amount)
        joint = left.conjoin(right)
        self.assertEqual(joint.headcount, 5)
        self.assertAlmostEqual(joint.centre, both.centre)
        self.assertAlmostEqual(joint.scatter, both.scatter)

    def test_samples_repeat_and_are_fair(self):
        self.assertEqual(Cistern(3, 7).pour_in(range(50)).keepsakes(), Cistern(3, 7).pour_in(range(50)).keepsakes())
        hits = sum(9 in Cistern(2, seed).pour_in(range(10)).keepsakes() for seed in range(2000))
        self.assertTrue(320 < hits < 480, hits)

    def test_counters(self):
        meter = Odometer(100)
        for reading in (90, 5, 50, 2):
            meter.clock(reading)
        self.assertEqual((meter.travelled, meter.turnovers), (112, 2))
        with self.assertRaises(ValueError):
            meter.clock(101)
        runners = Frontrunners(2)
        for label in "abacada":
            runners.hail(label)
        self.assertEqual(runners.podium(1)[0][0], "a")

    def test_alarm_stays_between_the_limits(self):
        watchman = Watchman(10, 5)
        self.assertEqual([watchman.sight(m, a) for m, a in enumerate([9, 10, 6, 5, 6])],
                         [False, True, True, False, False])
        self.assertFalse(watchman.alarmed)

    def test_histogram(self):
        line = Trapline([0, 10])
        for amount in (-1, 0, 9, 10, 11):
            line.snare(amount)
        self.assertEqual((line.catch(), line.portion_below(10)), ([1, 2, 2], 0.6))
        for edges in ([], [2, 1]):
            with self.assertRaises(ValueError):
                Trapline(edges)


class Texts(unittest.TestCase):
    def test_shortening(self):
        for girth in range(5, 20):
            self.assertLessEqual(len(waisted("a" * 12, girth)), girth)
        with self.assertRaises(ValueError):
            waisted("abc", 4)


if __name__ == "__main__":
    unittest.main()
