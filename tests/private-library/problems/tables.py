"""Problems on slates."""

from . import problem

CARGO = '''
from gaugewren import Slate

cargo = Slate(["port", "good", "tons"], [
    ["Oslo", "salt", 5], ["Riga", "coal", 7], ["Oslo", "coal", 1], ["Turku", "salt", 7], ["Riga", "coal", 2],
])
'''

problem("lift", CARGO + '''
# Get the column of tonnages as a plain list.
tonnages =''', ' cargo.lift("tons")', '''
def check():
    assert tonnages == [5, 7, 1, 7, 2]
    assert isinstance(tonnages, list)
''')

problem("toted", '''
from gaugewren import Slate

def heaviest_per_port(cargo):
    # One line per port, with the largest of its tonnages.
''', '    return cargo.toted("tons", by="port", rollup=max)', '''
def check(candidate):
    one = Slate(["port", "tons"], [["Oslo", 5], ["Riga", 7], ["Oslo", 9], ["Riga", 1]])
    assert candidate(one) == Slate(["port", "tons"], [["Oslo", 9], ["Riga", 7]])
    two = Slate(["tons", "port"], [[-4, "Turku"], [-6, "Turku"]])
    assert candidate(two) == Slate(["port", "tons"], [["Turku", -4]])
''', "heaviest_per_port")

problem("crosscut", CARGO + '''
# Lay this out as a matrix: a line for every port, a column for every good, tonnages summed, "-" where nothing was
# shipped.
matrix =''', ' cargo.crosscut("port", "good", "tons", blank="-")', '''
def check():
    assert matrix == Slate(["port", "salt", "coal"], [["Oslo", 5, 1], ["Riga", "-", 9], ["Turku", 7, "-"]])
''')

problem("welded", '''
from gaugewren import Slate

calls = Slate(["ship", "port"], [["Ida", "Oslo"], ["Una", "Riga"], ["Eos", "Bergen"]])
ports = Slate(["country", "port"], [["NO", "Oslo"], ["LV", "Riga"], ["FI", "Turku"]])
# Look the country up for every call by its port; write "?" if the port is not listed.
enriched =''', ' calls.welded(ports, on="port", blank="?")', '''
def check():
    assert enriched.captions == ["ship", "port", "country"]
    assert list(enriched) == [("Ida", "Oslo", "NO"), ("Una", "Riga", "LV"), ("Eos", "Bergen", "?")]
''')

problem("placed", '''
from gaugewren import Slate

def with_ranking(scores):
    # Number the teams by points, the best being 1, teams level on points getting the same number; call the column
    # "pos".
''', '    return scores.placed("points", into="pos")', '''
def check(candidate):
    scores = Slate(["team", "points"], [["a", 10], ["b", 30], ["c", 20], ["d", 30]])
    assert candidate(scores).lift("pos") == [4, 1, 3, 1]
    assert candidate(scores).captions == ["team", "points", "pos"]
''', "with_ranking")

problem("footed", CARGO + '''
# Put a line with the column sums under the table, beginning with the word "all".
summed =''', ' cargo.footed("all")', '''
def check():
    assert summed.height == 6
    assert list(summed)[-1] == ("all", "", 22)
    assert list(summed)[:5] == list(cargo)
''')

problem("from_pipetext", '''
from gaugewren import Slate

markdown = """
| item | qty |
|------|-----|
| nut  | 12  |
| bolt | 7   |
"""
# Turn the Markdown into a table object.
stock =''', " Slate.from_pipetext(markdown)", '''
def check():
    assert stock == Slate(["item", "qty"], [["nut", "12"], ["bolt", "7"]])
''')

problem("pared laddered", CARGO + '''
# Keep only the columns tons and port, in this order, and order the rows so that the heaviest loads come first.
listing =''', ' cargo.pared("tons", "port").laddered("tons", downhill=True)', '''
def check():
    assert listing == Slate(["tons", "port"], [[7, "Riga"], [7, "Turku"], [5, "Oslo"], [2, "Riga"], [1, "Oslo"]])
''')

problem("toted portioned", CARGO + '''
# Total tons for each good, and beside it what percentage of everything that is.
shares =''', ' cargo.toted("tons", by="good").portioned("tons")', '''
def check():
    assert shares.lift("good") == ["salt", "coal"]
    assert shares.lift("tons") == [12, 10]
    assert shares.lift(shares.captions[-1]) == [54.5, 45.5]
''')

problem("annex recaptioned", '''
from gaugewren import Slate

def price_list(slate):
    # Add a column "gross" that is computed as net times 1.5, and give the column "net" the new heading "before tax".
''', '    return slate.annex("gross", lambda row: row["net"] * 1.5).recaptioned({"net": "before tax"})', '''
def check(candidate):
    result = candidate(Slate(["item", "net"], [["nut", 2], ["bolt", 10]]))
    assert result == Slate(["item", "before tax", "gross"], [["nut", 2, 3.0], ["bolt", 10, 15.0]])
''', "price_list")

problem("to_slate toted", '''
from gaugewren import Strand, Tick

log = Strand([Tick(0, "a", 4.0), Tick(5, "b", 2.0), Tick(9, "a", 6.0)])
# Make a table of the readings and boil it down to the sum of "amount" for each "origin".
sums =''', ' log.to_slate().toted("amount", by="origin")', '''
def check():
    assert sums.captions == ["origin", "amount"]
    assert list(sums) == [("a", 10.0), ("b", 2.0)]
''')

problem("toted laddered footed to_pipetext", CARGO + '''
# Sum the tons of each port, sort by tons from small to large, append a line of totals and give the whole thing as
# Markdown.
report =''', ' cargo.toted("tons", by="port").laddered("tons").footed().to_pipetext()', '''
def check():
    assert report.splitlines() == [
        "| port | tons |", "|---|---|", "| Oslo | 6 |", "| Turku | 7 |", "| Riga | 9 |", "| total | 22 |"]
''')
