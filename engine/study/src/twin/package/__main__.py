"""`python -m TWIN FILE [ARGUMENT ...]`: runs a program in the twin's words."""
import sys

from ._twin import programs

sys.exit(programs.main(sys.argv[1:]))
