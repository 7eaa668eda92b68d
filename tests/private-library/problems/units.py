"""Problems on units of measurement, spans of time and calendars."""

from . import problem

problem("parse_quanta", '''
import gaugewren as gw

labels = ["3.5 bar", "-4degC", "12 kg"]
# Read the number and the unit from each label.
amounts = [''', " gw.parse_quanta(label) for label in labels]", '''
def check():
    assert [tuple(a) for a in amounts] == [(3.5, "bar"), (-4.0, "degC"), (12.0, "kg")]
    assert amounts[2].symbol == "kg"
''')

problem("regauge", '''
import gaugewren as gw

def to_fahrenheit(celsius):
    # Convert the plain number from "degC" to "degF", to the nearest whole degree.
''', '    return round(gw.regauge(celsius, "degC", "degF"))', '''
def check(candidate):
    assert [candidate(c) for c in (-40, 0, 37, 100)] == [-40, 32, 99, 212]
''', "to_fahrenheit")

problem("kinfolk", '''
import gaugewren as gw

# Into which units can a value in "psi" be converted?
choices =''', ' gw.kinfolk("psi")', '''
def check():
    assert choices == ["Pa", "kPa", "psi", "bar"]
''')

problem("tidied", '''
from gaugewren import Quanta

used = Quanta(4_250_000, "Wh")
# Pick the largest unit in which the quantity is not below one, so that it reads nicely.
readable =''', " used.tidied()", '''
def check():
    assert readable == (4.25, "MWh")
    assert readable.amount == 4.25 and readable.symbol == "MWh"
''')

problem("agrees", '''
from gaugewren import Quanta

def gauges_match(left, right):
    # The two pressure readings may be in different units. Are they the same, give or take 0.1 of the left one's unit?
''', "    return left.agrees(right, slack=0.1)", '''
def check(candidate):
    assert candidate(Quanta(2, "bar"), Quanta(205, "kPa")) is True
    assert candidate(Quanta(2, "bar"), Quanta(215, "kPa")) is False
    assert candidate(Quanta(2, "kPa"), Quanta(0.0205, "bar")) is True
    assert candidate(Quanta(200, "kPa"), Quanta(2.1, "bar")) is False
''', "gauges_match")

problem("spell_span", '''
import gaugewren as gw

durations = [45, 3900, 180000]
# Write these numbers of seconds as hours and minutes that people can read, such as "1h 5m".
texts = [''', " gw.spell_span(d) for d in durations]", '''
def check():
    assert texts == ["45s", "1h 5m", "2d 2h"]
''')

problem("mint_gauge", '''
import gaugewren as gw

def teach_units(name, litres):
    # Introduce a unit of kind "volume" called `name` that holds that many litres ("L" is the base), for use in
    # conversions from now on.
''', '    return gw.mint_gauge(name, "volume", litres)', '''
def check(candidate):
    candidate("firkin_q", 40.9)
    assert gw.Quanta(2, "firkin_q").recast("L") == gw.Quanta(81.8, "L")
    candidate("hogs_q", 250.0)
    assert gw.Quanta(1, "m3").recast("hogs_q").amount == 4.0
''', "teach_units", trust="in_process")

problem("pushed_on", '''
from gaugewren import Almanac, moment_of, weekday_rota

def due(almanac, reported):
    # A fault has to be mended within six working hours of the report. Until when is that?
''', "    return almanac.pushed_on(reported, 6 * 3600)", '''
def check(candidate):
    almanac = Almanac(weekday_rota("08:00", "16:00"), closures=["2024-03-04"])
    assert candidate(almanac, moment_of("2024-02-29T09:00")) == moment_of("2024-02-29T15:00")
    assert candidate(almanac, moment_of("2024-03-01T14:00")) == moment_of("2024-03-05T12:00")
    assert candidate(almanac, moment_of("2024-03-02T03:00")) == moment_of("2024-03-05T14:00")
''', "due")

problem("next_manning", '''
from gaugewren import Almanac, moment_of

clinic = Almanac({"tue": [("09:00", "12:00")], "sat": [("10:00", "11:00")]})
asked = [moment_of("2024-03-05T08:00"), moment_of("2024-03-05T10:30"), moment_of("2024-03-05T12:00")]
# For each question: when is the earliest time from then on that somebody can answer?
answered = [''', " clinic.next_manning(moment) for moment in asked]", '''
def check():
    assert answered == [moment_of("2024-03-05T09:00"), moment_of("2024-03-05T10:30"), moment_of("2024-03-09T10:00")]
''')

problem("quarter_tag", '''
import gaugewren as gw
from gaugewren import moment_of

days = [moment_of("2024-02-10"), moment_of("2024-07-01"), moment_of("2024-10-31")]
# The financial year starts in July. Label each day with its year and three-month period.
labels = [''', " gw.quarter_tag(day, kickoff=7) for day in days]", '''
def check():
    assert labels == ["2023Q3", "2024Q1", "2024Q2"]
''')

problem("nth_weekday", '''
import gaugewren as gw

def board_meeting(year, month):
    # The board meets on the last Wednesday of each month. Give the date as text.
''', '    return gw.nth_weekday(year, month, "wed", -1)', '''
def check(candidate):
    assert candidate(2024, 2) == "2024-02-28"
    assert candidate(2024, 7) == "2024-07-31"
    assert candidate(2023, 12) == "2023-12-27"
''', "board_meeting")

problem("strokes", '''
from gaugewren import Chime

calibration = Chime(21600, phase=3600)
# At which moments is a calibration due during the first day (86400 seconds)?
due =''', " calibration.strokes(0, 86400)", '''
def check():
    assert due == [3600, 25200, 46800, 68400]
''')

problem("pooled tidied", '''
from gaugewren import Quanta

def total_mass(first, second):
    # Add the two quantities, which may come in different units, and give the sum in the largest unit in which it is at
    # least one.
''', "    return first.pooled(second).tidied()", '''
def check(candidate):
    assert candidate(Quanta(600, "kg"), Quanta(900_000, "g")) == Quanta(1.5, "t")
    assert candidate(Quanta(200, "g"), Quanta(0.1, "kg")).symbol == "g"
    assert abs(candidate(Quanta(200, "g"), Quanta(0.1, "kg")).amount - 300) < 1e-6
''', "total_mass")

problem("recast worded", '''
from gaugewren import Quanta

depth = Quanta(1.2345, "km")
# Print-ready text for the depth in metres with two decimals.
text =''', ' depth.recast("m").worded(2)', '''
def check():
    assert text == "1234.50 m"
''')

problem("manned_span spell_span", '''
import gaugewren as gw
from gaugewren import Almanac, moment_of, weekday_rota

def staffed_outage(almanac, began, ended):
    # How much of the outage was during staffed hours? Answer in words like "2h 30m".
''', "    return gw.spell_span(almanac.manned_span(began, ended))", '''
def check(candidate):
    almanac = Almanac(weekday_rota("08:00", "16:30"))
    assert candidate(almanac, moment_of("2024-03-01T15:00"), moment_of("2024-03-04T09:15")) == "2h 45m"
    assert candidate(almanac, moment_of("2024-03-02"), moment_of("2024-03-03")) == "0s"
    assert candidate(almanac, moment_of("2024-03-06"), moment_of("2024-03-08")) == "17h"
''', "staffed_outage")

problem("read_span snap_ahead", '''
import gaugewren as gw

def next_slot(moment, width):
    # `width` is a text such as "1h 30m". Work its seconds out, and round the moment up to the next
    # full slot of that length.
''', "    return gw.snap_ahead(moment, gw.read_span(width))", '''
def check(candidate):
    assert candidate(5401, "1h 30m") == 10800
    assert candidate(5400, "1h 30m") == 5400
    assert candidate(61, "30s") == 90
''', "next_slot")

problem("month_edges spanning", '''
import gaugewren as gw
from gaugewren import Strand, Tick, moment_of

bills = Strand([Tick(moment_of(d), "gas", 1.0) for d in ("2024-01-31", "2024-02-01", "2024-02-29", "2024-03-01")])
today = moment_of("2024-02-14T12:00")
# Find out when the month of today begins and when it ends, and cut the bills in between out of the strand.
current =''', " bills.spanning(*gw.month_edges(today))", '''
def check():
    assert [t.clockface[:10] for t in current] == ["2024-02-01", "2024-02-29"]
''')

problem("shut manned_days", '''
from gaugewren import Almanac, weekday_rota

def open_dates(holiday, first, last):
    plant = Almanac(weekday_rota())
    # Take the holiday off the plan of the plant, then return the dates between first and last on which people work.
''', "    plant.shut(holiday)\n    return plant.manned_days(first, last)", '''
def check(candidate):
    dates = candidate("2024-05-01", "2024-04-30", "2024-05-06")
    assert dates == ["2024-04-30", "2024-05-02", "2024-05-03", "2024-05-06"]
    assert candidate("2024-05-04", "2024-05-03", "2024-05-05") == ["2024-05-03"]
''', "open_dates")

problem("weekday_rota Almanac is_manned", '''
import gaugewren as gw

def somebody_there(moment):
    # The plant is manned from 06:00 to 14:00, Monday to Friday. Make the plan of these hours, from it the working
    # calendar, and find out if anybody is there at `moment`.
''', '    return gw.Almanac(gw.weekday_rota("06:00", "14:00")).is_manned(moment)', '''
def check(candidate):
    stamps = ["2024-03-01T06:00", "2024-03-01T13:59", "2024-03-01T14:00", "2024-03-02T09:00", "2024-03-04T05:00"]
    assert [candidate(gw.moment_of(stamp)) for stamp in stamps] == [True, True, False, False, False]
''', "somebody_there")

problem("parse_quanta recast worded", '''
import gaugewren as gw

def in_kilopascal(label):
    # The label is text such as "2.5 bar". Read it, convert it to "kPa" and write it out without decimals.
''', '    return gw.parse_quanta(label).recast("kPa").worded(0)', '''
def check(candidate):
    assert candidate("2.5 bar") == "250 kPa"
    assert candidate("99600Pa") == "100 kPa"
    assert candidate("30 psi") == "207 kPa"
''', "in_kilopascal")
