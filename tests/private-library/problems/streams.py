"""Problems on ticks, strands and the stages that change single ticks."""

from . import problem

problem("settle", '''
from gaugewren import Strand, Tick

presses = Strand([Tick(m, "door", 1.0) for m in (0, 2, 4, 11, 12, 30)])
# The door switch chatters, debounce it: once a press got through, ignore further ones for 10 seconds.
clean =''', " presses.settle(10)", '''
def check():
    assert [t.moment for t in clean] == [0, 11, 30]
    assert all(t.origin == "door" for t in clean)
''')

problem("hush", '''
from gaugewren import Strand

level = Strand.metronome([20.0, 20.1, 20.3, 21.0, 21.2, 20.2], cadence=60)
# Only report a reading when it differs from the last reported one by half a unit or more.
reported =''', " level.hush(0.5)", '''
def check():
    assert [t.amount for t in reported] == [20.0, 21.0, 20.2]
    assert [t.moment for t in reported] == [0, 180, 300]
''')

problem("ripple", '''
from gaugewren import Strand

def consumption_per_second(meter):
    # The meter shows an ever growing total. Turn it into the change per second from one tick to the next.
''', "    return meter.ripple(paced=True)", '''
from gaugewren import Tick

def check(candidate):
    assert [t.amount for t in candidate(Strand.metronome([100, 130, 130, 190], 30))] == [1.0, 0.0, 2.0]
    mixed = Strand([Tick(0, "a", 1.0), Tick(0, "b", 7.0), Tick(4, "a", 3.0), Tick(8, "b", 3.0)])
    assert [(t.origin, t.amount) for t in candidate(mixed)] == [("a", 0.5), ("b", -0.5)]
    assert list(candidate(Strand([]))) == []
''', "consumption_per_second")

problem("accrue", '''
from gaugewren import Strand

parcels = Strand.metronome([4, 1, 0, 6], cadence=3600, origin="belt-1")
# Each reading is the number of parcels of one hour. Show the sum up to and including each hour instead, with 50
# already there.
so_far =''', " parcels.accrue(50)", '''
def check():
    assert [t.amount for t in so_far] == [54.0, 55.0, 55.0, 61.0]
    assert {t.origin for t in so_far} == {"belt-1"}
''')

problem("temper", '''
from gaugewren import Strand

noisy = Strand.metronome([0, 16, 16, 0], cadence=10)
# Smooth the noise out with an exponential filter in which an amount counts half after ten seconds.
smooth =''', " noisy.temper(10)", '''
def check():
    assert [t.amount for t in smooth] == [0.0, 8.0, 12.0, 6.0]
    assert [t.moment for t in smooth] == [0, 10, 20, 30]
''')

problem("fence", '''
from gaugewren import Strand

def keep_plausible(stream):
    # A valve position lies between the bounds 0 and 100. Throw away every amount outside of them.
''', "    return stream.fence(0, 100, banish=True)", '''
def check(candidate):
    assert [t.amount for t in candidate(Strand.metronome([-3, 0, 55, 100, 180], 1))] == [0.0, 55.0, 100.0]
    assert list(candidate(Strand.metronome([101], 1))) == []
    assert [t.moment for t in candidate(Strand.metronome([-1, 7], 5))] == [5]
''', "keep_plausible")

problem("detent", '''
from gaugewren import Strand

lever = Strand.metronome([2, 14, 9, 26, 31], cadence=1)
positions = [0, 10, 30]
# The lever can only stand in one of the listed positions. Replace each reading by the closest of them.
stood =''', " lever.detent(positions)", '''
def check():
    assert [t.amount for t in stood] == [0.0, 10.0, 10.0, 30.0, 30.0]
''')

problem("despike", '''
from gaugewren import Strand

heat = Strand.metronome([70, 71, 70, 71, 500, 70, 71], cadence=60)
# Get rid of the lone measurement that is absurdly far from its neighbours.
believable =''', " heat.despike()", '''
def check():
    assert [t.amount for t in believable] == [70.0, 71.0, 70.0, 71.0, 70.0, 71.0]
    assert 240 not in [t.moment for t in believable]
''')

problem("ration", '''
from gaugewren import Strand

def throttle(messages, most):
    # Rate limiting: pass on at most `most` ticks of each origin in any minute and drop the surplus.
''', "    return messages.ration(most, 60)", '''
from gaugewren import Tick

def check(candidate):
    burst = Strand([Tick(m, "s", 0.0) for m in (0, 10, 20, 59, 60, 65, 71)])
    assert [t.moment for t in candidate(burst, 2)] == [0, 10, 60, 71]
    assert [t.moment for t in candidate(burst, 1)] == [0, 60]
    two = Strand([Tick(0, "s", 0.0), Tick(1, "r", 0.0), Tick(2, "s", 0.0)])
    assert [t.origin for t in candidate(two, 1)] == ["s", "r"]
''', "throttle")

problem("marshal", '''
from gaugewren import Strand, Tick

radio = Strand([Tick(m, "r", float(m)) for m in (0, 30, 12, 25, 60, 48, 90)])
# Over the radio link readings may come in up to 20 seconds late. Restore their chronological sequence.
ordered =''', " radio.marshal(20)", '''
def check():
    assert [t.moment for t in ordered] == [0, 12, 25, 30, 48, 60, 90]
''')

problem("patchgaps", '''
from gaugewren import Strand, Tick

flow = Strand([Tick(0, "f", 3.0), Tick(60, "f", 4.0), Tick(240, "f", 5.0)])
# There should be a value every minute. Where some are missing, carry the previous one forward and label it "assumed".
whole =''', ' flow.patchgaps(60, stain="assumed")', '''
def check():
    assert [(t.moment, t.amount) for t in whole] == [(0, 3.0), (60, 4.0), (120, 4.0), (180, 4.0), (240, 5.0)]
    assert [t.moment for t in whole if "assumed" in t.marks] == [120, 180]
''')

problem("lockstep", '''
from gaugewren import Strand, Tick

def every_quarter_hour(stream):
    # Ticks come at irregular times. Resample them to a regular grid, the amount in force at each full quarter of an
    # hour.
''', "    return stream.lockstep(900)", '''
from gaugewren import Tick

def check(candidate):
    ticks = Strand([Tick(100, "p", 1.0), Tick(1000, "p", 2.0), Tick(1700, "p", 3.0), Tick(2800, "p", 4.0)])
    assert [(t.moment, t.amount) for t in candidate(ticks)] == [(900, 1.0), (1800, 3.0), (2700, 3.0)]
    assert [(t.moment, t.amount) for t in candidate(Strand([Tick(900, "p", 6.0)]))] == [(900, 6.0)]
''', "every_quarter_hour")

problem("yoke", '''
from gaugewren import Strand, Tick

weights = Strand([Tick(10, "scale", 5.0), Tick(70, "scale", 6.0), Tick(400, "scale", 7.0)])
airs = Strand([Tick(0, "air", 20.0), Tick(60, "air", 21.0), Tick(100, "air", 22.0)])
# For each weighing look up the latest air reading taken before it, provided that is no older than two minutes.
matched =''', " weights.yoke(airs, slack=120)", '''
def check():
    assert [(w.amount, a.amount if a else None) for w, a in matched] == [(5.0, 20.0), (6.0, 21.0), (7.0, None)]
''')

problem("sporting", '''
from gaugewren import Strand, Tick

log = Strand([
    Tick(0, "a", 1.0, frozenset({"checked"})), Tick(1, "a", 2.0),
    Tick(2, "a", 3.0, frozenset({"checked", "suspect"})), Tick(3, "b", 4.0, frozenset({"checked"})),
])
# Select the readings labelled "checked" but not "suspect".
trusted =''', ' log.sporting(needed=["checked"], banned=["suspect"])', '''
def check():
    assert [t.amount for t in trusted] == [1.0, 4.0]
''')

problem("relayed", '''
from gaugewren import Strand

def splice(old_meter, new_meter, swapped_at):
    # The instrument was replaced at `swapped_at`. Follow the old strand before that moment, and then the new one.
''', "    return old_meter.relayed(new_meter, swapped_at)", '''
def check(candidate):
    old, new = Strand.metronome([1, 2, 3, 4], 10), Strand.metronome([11, 12, 13, 14], 10)
    assert [t.amount for t in candidate(old, new, 20)] == [1.0, 2.0, 13.0, 14.0]
    assert [t.amount for t in candidate(old, new, 0)] == [11.0, 12.0, 13.0, 14.0]
    assert [t.amount for t in candidate(new, old, 15)] == [11.0, 12.0, 3.0, 4.0]
''', "splice")

problem("silences", '''
from gaugewren import Strand, Tick

heartbeats = Strand([Tick(m, node, 1.0) for m, node in [(0, "n1"), (5, "n2"), (60, "n1"), (400, "n2"), (410, "n1")]])
# Which node fell silent for more than 300 seconds, and from what moment to what moment?
outages =''', " heartbeats.silences(300)", '''
def check():
    assert outages == [("n2", 5, 400), ("n1", 60, 410)]
''')

problem("pinpoint", '''
from gaugewren import Strand

tank = Strand.metronome([10, 12, 15, 11], cadence=600)
# What did the tank show at second 1500, going by the newest reading at that time?
shown =''', " tank.pinpoint(1500)", '''
def check():
    assert shown == (1200, "anon", 15.0, frozenset())
''')

problem("dwell_above", '''
from gaugewren import Strand

def overheated_seconds(stream, limit):
    # For how long altogether was the temperature over the limit?
''', "    return stream.dwell_above(limit)", '''
def check(candidate):
    assert candidate(Strand.metronome([50, 90, 95, 60, 99, 10], 30), 80) == 90
    assert candidate(Strand.metronome([80, 81, 80], 7), 80) == 7
    assert candidate(Strand.metronome([1, 2], 30), 80) == 0
''', "overheated_seconds")

problem("busiest", '''
from gaugewren import Strand, Tick

calls = Strand([Tick(m, "desk", 1.0) for m in (0, 100, 130, 140, 150, 300, 310)])
# When did the most crowded minute begin, and how many calls came in it?
rush =''', " calls.busiest(60)", '''
def check():
    assert rush == (100, 4)
''')

problem("parse_tickline", '''
import gaugewren as gw

def read_reading(text):
    # A line looks like "2023-11-05T16:20;pump-1;3.5;cold,slow". Read it as a tick, minding the semicolons.
''', '    return gw.parse_tickline(text, rift=";")', '''
def check(candidate):
    first = candidate("1970-01-01T00:02;pump-1;3.5;cold,slow")
    assert (first.moment, first.origin, first.amount) == (120.0, "pump-1", 3.5)
    assert first.marks == frozenset({"cold", "slow"})
    assert candidate("1970-01-02;x;-1").moment == 86400.0
''', "read_reading")

problem("nudged rebadged", '''
from gaugewren import Tick

reading = Tick(5000, "pmp1", 7.5)
# The clock of the instrument was 120 seconds fast, and its proper name is "pump-1". Put both right.
corrected =''', ' reading.nudged(-120).rebadged("pump-1")', '''
def check():
    assert corrected == Tick(4880, "pump-1", 7.5)
    assert reading == Tick(5000, "pmp1", 7.5)
''')

problem("braid census", '''
import gaugewren as gw
from gaugewren import Strand

north = Strand.metronome([1, 2, 3], cadence=10, origin="north", outset=5)
south = Strand.metronome([7, 8], cadence=12, origin="south")
# Combine both feeds chronologically, then count how many readings each instrument contributed.
counts =''', " gw.braid(north, south).census()", '''
def check():
    assert counts == {"south": 2, "north": 3}
    assert list(counts) == ["south", "north"]
''')

problem("marshal unecho", '''
from gaugewren import Strand, Tick

events = Strand([Tick(0, "v", 1.0), Tick(20, "v", 1.0), Tick(10, "v", 0.0), Tick(40, "v", 1.0), Tick(70, "v", 0.0)])
# First put late arrivals back into order of time (at most 15 seconds late), then remove ticks that say the same as
# the one before.
changes =''', " events.marshal(15).unecho()", '''
def check():
    assert [(t.moment, t.amount) for t in changes] == [(0, 1.0), (10, 0.0), (20, 1.0), (70, 0.0)]
''')

problem("unspool crossings", '''
from gaugewren import Strand

def alarms(lines, limit):
    # Load the log lines as ticks, passing over those that are unreadable, and list the ticks whose amount came up
    # to the
    # limit from below.
''', "    return Strand.unspool(lines, lenient=True).crossings(limit)", '''
def check(candidate):
    lines = ["1970-01-01T00:00|a|1", "garbage", "1970-01-01T00:01|a|8", "", "1970-01-01T00:02|a|9",
             "1970-01-01T00:03|a|x", "1970-01-01T00:04|a|2", "1970-01-01T00:05|a|5"]
    assert [t.moment for t in candidate(lines, 5)] == [60.0, 300.0]
    assert [t.moment for t in candidate(lines, 9)] == [120.0]
    assert candidate([], 1) == []
''', "alarms")

problem("spanning dwell_above", '''
from gaugewren import Strand

load = Strand.metronome([40, 90, 95, 30, 85, 88, 20], cadence=100)
# Cut out the ticks from 100 up to 500, then tell for how many seconds the load there was over 80.
seconds =''', " load.spanning(100, 500).dwell_above(80)", '''
def check():
    assert seconds == 200
''')

problem("splay by_origin", '''
from gaugewren import Strand, Tick

faults = Strand([
    Tick(0, "crane", 3.0, frozenset({"brake", "motor"})), Tick(9, "crane", 5.0, frozenset({"motor"})),
    Tick(10, "crane", 1.0),
])
# Make a copy of each tick for every mark on it (a colon between origin and mark), and part the result into one
# strand per origin.
streams =''', ' faults.splay(":").by_origin()', '''
def check():
    assert sorted(streams) == ["crane:brake", "crane:motor"]
    assert [t.amount for t in streams["crane:motor"]] == [3.0, 5.0]
    assert [t.amount for t in streams["crane:brake"]] == [3.0]
''')

problem("marshal patchgaps accrue", '''
from gaugewren import Strand, Tick

def running_total(stream):
    # Readings may be up to 10 seconds late: bring them in order. Then repeat the last value wherever a second reading
    # within 30 seconds is missing, and finally turn the values into cumulative sums.
''', "    return stream.marshal(10).patchgaps(30).accrue()", '''
def check(candidate):
    ticks = Strand([Tick(0, "a", 1.0), Tick(38, "a", 3.0), Tick(30, "a", 2.0), Tick(98, "a", 4.0)])
    assert [(t.moment, t.amount) for t in candidate(ticks)] == [(0, 1.0), (30, 3.0), (38, 6.0), (68, 9.0), (98, 13.0)]
    assert list(candidate(Strand([]))) == []
''', "running_total")

problem("strandop", '''
import gaugewren as gw

class Doubler(gw.Stage):
    def __iter__(self):
        return (tick._replace(amount=2 * tick.amount) for tick in self.upstream)

# Make this stage available to everybody, so that people can write stream.doubled() with any strand.
Doubler =''', ' gw.strandop("doubled")(Doubler)', '''
def check():
    stream = gw.Strand([gw.Tick(0, "a", 2.0), gw.Tick(1, "b", 5.0)])
    assert [t.amount for t in stream.doubled()] == [4.0, 10.0]
    assert [t.amount for t in stream.doubled().doubled()] == [8.0, 20.0]
    assert "doubled" in gw.known_strandops() and isinstance(Doubler, type)
''', trust="in_process")

problem("metronome retouch", '''
from gaugewren import Strand

def litres_from_gallons(numbers):
    # The numbers were taken every 30 seconds, beginning at 0. Make a stream of them and multiply every amount by 4.
''', "    return Strand.metronome(numbers, 30).retouch(lambda amount: amount * 4)", '''
def check(candidate):
    assert [(t.moment, t.amount) for t in candidate([1, 2.5, 0])] == [(0, 4.0), (30, 10.0), (60, 0.0)]
    assert list(candidate([])) == []
''', "litres_from_gallons")

problem("winnow dayfrac", '''
from gaugewren import Strand, Tick, moment_of

log = Strand([Tick(moment_of(s), "door", n) for n, s in enumerate(
    ["2024-03-01T06:00", "2024-03-01T12:00", "2024-03-01T23:59", "2024-03-02T11:59", "2024-03-02T18:30"])])
# Let through only the ticks at which at least half of the UTC day had gone by.
afternoon =''', " log.winnow(lambda tick: tick.dayfrac >= 0.5)", '''
def check():
    assert [t.amount for t in afternoon] == [1, 2, 4]
''')

problem("scrubbed render_tickline", '''
import gaugewren as gw

def public_line(reading):
    # Take all marks off the tick and write what remains as a line of text.
''', "    return gw.render_tickline(reading.scrubbed())", '''
def check(candidate):
    assert candidate(gw.Tick(60, "pump", 2.5, frozenset({"secret"}))) == "1970-01-01T00:01:00|pump|2.5"
    assert candidate(gw.Tick(86400, "x", -3.0)) == "1970-01-02T00:00:00|x|-3"
''', "public_line")

problem("by_origin tail_end", '''
from gaugewren import Strand

def latest_two(log):
    # Return a dictionary with the list of the two most recent readings of every instrument.
''', "    return {name: part.tail_end(2) for name, part in log.by_origin().items()}", '''
from gaugewren import Tick

def check(candidate):
    ticks = [Tick(0, "a", 1.0), Tick(1, "b", 2.0), Tick(2, "a", 3.0), Tick(3, "a", 4.0)]
    assert candidate(Strand(ticks)) == {"a": ticks[2:], "b": ticks[1:2]}
    assert candidate(Strand(ticks[:1])) == {"a": ticks[:1]}
    assert candidate(Strand([])) == {}
''', "latest_two")
