"""Problems on stages that group ticks, and on panes."""

from . import problem

problem("panes", '''
from gaugewren import Strand

clicks = Strand.metronome([1, 1, 1, 1, 1], cadence=25)
# Cut the stream into one-minute windows, a new one starting every 30 seconds.
windows =''', " clicks.panes(60, stride=30)", '''
def check():
    assert [(w.opening, w.closing, len(w.ticks)) for w in windows] == [
        (-30, 30, 2), (0, 60, 3), (30, 90, 2), (60, 120, 2), (90, 150, 1)]
''')

problem("bouts", '''
from gaugewren import Strand, Tick

steps = Strand([Tick(m, "gate", 1.0) for m in (0, 20, 45, 200, 230, 900)])
# A visit is over when nothing happens at the gate for more than a minute. Collect the visits.
visits =''', " steps.bouts(60)", '''
def check():
    assert [(v.opening, v.closing, len(v.ticks)) for v in visits] == [(0, 45, 3), (200, 230, 2), (900, 900, 1)]
''')

problem("handfuls", '''
from gaugewren import Strand

def complete_crates(bottles):
    # Group the stream into crates of six ticks each; a crate at the end that is not full does not come out.
''', "    return bottles.handfuls(6, ragged=False)", '''
def check(candidate):
    crates = list(candidate(Strand.metronome(range(14), 1)))
    assert [[t.amount for t in crate.ticks] for crate in crates] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert list(candidate(Strand.metronome(range(5), 1))) == []
''', "complete_crates")

problem("dwellmean", '''
from gaugewren import Pane, Tick

hour = Pane(0, 3600, (Tick(0, "boiler", 60.0), Tick(2700, "boiler", 80.0)))
# What was the average temperature, taking into account how long each value lasted?
average =''', " hour.dwellmean()", '''
def check():
    assert average == 65.0
''')

problem("crest", '''
from gaugewren import Pane, Tick

def when_was_the_peak(window):
    # Return the moment of the highest reading in the window.
''', "    return window.crest().moment", '''
def check(candidate):
    assert candidate(Pane(0, 9, (Tick(1, "a", 3.0), Tick(4, "a", 9.0), Tick(8, "a", -9.0)))) == 4
    assert candidate(Pane(0, 9, (Tick(1, "a", 7.0), Tick(4, "a", 7.0), Tick(8, "a", 1.0)))) == 1
    assert candidate(Pane(0, 9, (Tick(2, "a", -5.0), Tick(3, "b", -1.0)))) == 3
''', "when_was_the_peak")

problem("has_quorum", '''
from gaugewren import Pane, Tick

window = Pane(0, 60, (Tick(1, "s1", 1.0), Tick(9, "s3", 1.0), Tick(12, "s1", 4.0)))
teams = [["s1", "s3"], ["s1", "s2"], ["s3"]]
# For each team of sensors: did all the listed instruments report within the window?
complete = [''', " window.has_quorum(team) for team in teams]", '''
def check():
    assert complete == [True, False, True]
''')

problem("overlap_with", '''
from gaugewren import Pane

def shared_minutes(shift, outage):
    # How many minutes of the outage fell into the shift? Both are windows in seconds.
''', "    return shift.overlap_with(outage) / 60", '''
def check(candidate):
    assert candidate(Pane(0, 3600), Pane(3000, 7200)) == 10
    assert candidate(Pane(0, 600), Pane(60, 120)) == 1
    assert candidate(Pane(0, 600), Pane(900, 1200)) == 0
''', "shared_minutes")

problem("panes amassed", '''
from gaugewren import Strand

rain = Strand.metronome([1, 0, 2, 5, 0, 0, 3], cadence=1200)
# Rainfall per hour: split the stream into windows one hour long and total the rain of each.
hourly = [''', " w.amassed() for w in rain.panes(3600)]", '''
def check():
    assert hourly == [3.0, 5.0, 3.0]
''')

problem("bouts tempo", '''
from gaugewren import Strand, Tick

def pace_of_sessions(keystrokes):
    # Break the keystrokes up wherever the user paused for more than 30 seconds, and give for every such session the
    # number of keystrokes per minute, as a list.
''', "    return [session.tempo() for session in keystrokes.bouts(30)]", '''
def check(candidate):
    ticks = Strand([Tick(m, "u", 1.0) for m in (0, 10, 20, 100, 130, 160)])
    assert candidate(ticks) == [9.0, 3.0]
    assert candidate(Strand([])) == []
''', "pace_of_sessions")

problem("handfuls middling", '''
from gaugewren import Strand

shots = Strand.metronome([5, 900, 6, 7, 7, 1, 3], cadence=2)
# Group the shots into lots of three ticks, an incomplete last lot included, and list the median amount of each.
medians = [''', " g.middling() for g in shots.handfuls(3)]", '''
def check():
    assert medians == [6.0, 7.0, 3.0]
''')

problem("despike panes swing", '''
from gaugewren import Strand

volts = Strand.metronome([230, 231, 230, 231, 999, 229, 232, 230], cadence=15)
# Remove the glitches, split what is left into windows of 60 seconds and tell for each the gap between its highest
# and lowest value.
spreads = [''', " w.swing() for w in volts.despike().panes(60)]", '''
def check():
    assert spreads == [1.0, 3.0]
''')

problem("lockstep panes trough", '''
from gaugewren import Strand, Tick

def lows(stream):
    # Resample the irregular ticks to a grid of one a minute, cut that into windows of five minutes and return the
    # smallest amount in each window.
''', "    return [w.trough().amount for w in stream.lockstep(60).panes(300)]", '''
def check(candidate):
    readings = [(10, 9.0), (130, 4.0), (140, 6.0), (250, 8.0), (610, 2.0)]
    ticks = Strand([Tick(moment, "a", amount) for moment, amount in readings])
    assert candidate(ticks) == [6.0, 8.0, 8.0]
    assert candidate(Strand([])) == []
''', "lows")
