"""Problems on tallies and placards."""

from . import problem

problem("conjoin", '''
from gaugewren import Tallier

day, night = Tallier(), Tallier()
for amount in (2.0, 4.0):
    day.absorb(amount)
for amount in (6.0, 8.0, 10.0):
    night.absorb(amount)
# Merge the statistics of both shifts into one, leaving the originals as they are.
both =''', " day.conjoin(night)", '''
def check():
    assert (both.headcount, both.centre) == (5, 6.0)
    assert abs(both.scatter - 10 ** 0.5) < 1e-9
    assert (day.headcount, night.headcount) == (2, 3)
''')

problem("oddness", '''
from gaugewren import Tallier

history = Tallier()
for amount in (10.0, 12.0, 14.0):
    history.absorb(amount)
# How many standard deviations away from the usual is a value of 17?
deviation =''', " history.oddness(17)", '''
def check():
    assert deviation == 2.5
    assert history.headcount == 3
''')

problem("Odometer clock travelled", '''
import gaugewren as gw

def water_used(readings):
    # The water meter has four digits: after 9999 comes 0000, so it starts over at 10000. Feed it the readings one
    # after the other and return the quantity that really flowed.
''', '''
    meter = gw.Odometer(10000)
    for reading in readings:
        meter.clock(reading)
    return meter.travelled''', '''
def check(candidate):
    assert candidate([9990, 10, 500, 400]) == 10410
    assert candidate([5, 25]) == 20
    assert candidate([7]) == 0
''', "water_used")

problem("podium", '''
from gaugewren import Frontrunners

votes = Frontrunners(berths=10)
for name in "ada eve ada bob eve ada cid".split():
    votes.hail(name)
# Who are the two most frequent ones, and how often did they occur?
leaders =''', " votes.podium(2)", '''
def check():
    assert leaders == [("ada", 3), ("eve", 2)]
''')

problem("portion_below", '''
from gaugewren import Trapline

waits = Trapline([30, 60, 120])
for seconds in (5, 29, 31, 45, 60, 70, 200, 300):
    waits.snare(seconds)
# Which fraction of the customers had waited less than a minute?
fraction =''', " waits.portion_below(60)", '''
def check():
    assert fraction == 0.5
''')

problem("sparkrow", '''
import gaugewren as gw

def trend(amounts):
    # Give a tiny one-line chart of the numbers, one character each.
''', "    return gw.sparkrow(amounts)", '''
def check(candidate):
    assert candidate([0, 1, 2, 3, 4]) == "_.-=^"
    assert candidate([7, 7]) == "__"
    assert candidate([10, -10, 0]) == "^_-"
''', "trend")

problem("waisted", '''
import gaugewren as gw

path = "/plant/hall-2/line-7/pump-house/north"
# The label has room for 17 characters: abbreviate the path so that its start and its end can still be seen.
label =''', " gw.waisted(path, 17)", '''
def check():
    assert label == "/plant/...e/north"
    assert len(label) == 17
''')

problem("dotleader", '''
import gaugewren as gw

entries = [("Intro", 1), ("Findings", 12)]
# Format these like a table of contents, 20 characters wide: title left, page right, dots in between.
contents = [''', " gw.dotleader(title, page, 20) for title, page in entries]", '''
def check():
    assert contents == ["Intro ............ 1", "Findings ........ 12"]
''')

problem("terse_figure", '''
import gaugewren as gw

sizes = [950, 20480, 3_200_000]
# Abbreviate the big numbers the way dashboards do, in thousands or millions with a letter behind.
short = [''', " gw.terse_figure(size) for size in sizes]", '''
def check():
    assert short == ["950", "20.5k", "3.2M"]
''')

problem("Watchman sight logbook", '''
import gaugewren as gw

def overheating_periods(readings):
    # `readings` are pairs of moment and temperature. Make an alarm with two limits that goes off at 90 and is reset at
    # 75. Let it look at one reading after another, and list the start and end of the alarms that are over.
''', '''
    guard = gw.Watchman(90, 75)
    for moment, heat in readings:
        guard.sight(moment, heat)
    return guard.logbook()''', '''
def check(candidate):
    assert candidate([(0, 80), (1, 90), (2, 80), (3, 95), (4, 75), (5, 91)]) == [(1, 4)]
    assert candidate([(0, 99), (9, 70), (20, 90), (21, 0)]) == [(0, 9), (20, 21)]
    assert candidate([]) == []
''', "overheating_periods")

problem("pour_in keepsakes", '''
from gaugewren import Cistern

sampler = Cistern(capacity=4, seed=11)
letters = "abcdefghijklmnopqrstuvwxyz"
# Run all letters through the sampler and see which random few it has retained.
retained =''', " sampler.pour_in(letters).keepsakes()", '''
def check():
    assert retained == Cistern(capacity=4, seed=11).pour_in(letters).keepsakes()
    assert len(set(retained)) == 4 and set(retained) <= set(letters)
''')

problem("snare catch", '''
from gaugewren import Trapline

ages = Trapline([18, 65])
# Add a person aged 18 to the histogram, then show how many there are in every bin.
bins =''', " ages.snare(18).catch()", '''
def check():
    assert bins == [0, 1, 0]
''')

problem("strut unfurl", '''
from gaugewren import Placard

report = Placard("Shift").remark("All quiet.")
# Finish the report with a horizontal rule and lay it out as text 12 characters wide.
text =''', " report.strut().unfurl(12)", '''
def check():
    assert text == "Shift\\n=====\\nAll quiet.\\n------------"
''')

problem("inset fuelbar unfurl", '''
from gaugewren import Placard, Slate

def status(slate, level):
    sheet = Placard("Tanks")
    # Add the table to the report, below it a bar with the label "Fill" and the percentage of the level out of 50,
    # and lay
    # the report out as text 30 characters wide.
''', '    return sheet.inset(slate).fuelbar("Fill", level, 50).unfurl(30)', '''
def check(candidate):
    text = candidate(Slate(["tank", "m3"], [["north", 7], ["s", 12]]), 25)
    assert text.splitlines() == [
        "Tanks", "=====", "tank   m3", "north   7", "s      12", "Fill ##########..........  50%"]
    assert candidate(Slate(["a"]), 50).endswith("Fill #################### 100%")
''', "status")

problem("boxed columned", '''
import gaugewren as gw

names = ["oslo", "riga", "turku", "gdansk", "visby"]
# Arrange the names in aligned columns that fit 16 characters and draw a frame around the text.
board =''', " gw.boxed(gw.columned(names, 16))", '''
def check():
    assert board.splitlines() == [
        "+----------------+", "| oslo    riga   |", "| turku   gdansk |", "| visby          |", "+----------------+"]
''')

problem("absorb scatter", '''
from gaugewren import Tallier

def spread_of(numbers):
    running = Tallier()
    # Hand the numbers to the running statistics one by one and return their standard deviation.
''', '''
    for number in numbers:
        running.absorb(number)
    return running.scatter''', '''
def check(candidate):
    assert candidate([2.0, 4.0, 6.0]) == 2.0
    assert abs(candidate([1.0, 2.0, 4.0, 9.0]) - 3.559026084010437) < 1e-9
    assert candidate([5.0]) == 0.0
''', "spread_of")
