"""A private twin: every name of its table is answered in private words, and in no others."""
from ._twin import modules as _modules

_modules.begin(__name__)
