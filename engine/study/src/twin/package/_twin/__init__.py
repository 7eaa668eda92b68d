"""How the twin works; no part of what it answers.

Programs are compiled through `transform`, which sends every attribute, keyword and import that the table knows to
`lookup`. That knows the object's type: on what the library owns, private words stand for public names and public names
are refused; on anything else both are free. The library itself is neither changed nor slowed down.
"""
