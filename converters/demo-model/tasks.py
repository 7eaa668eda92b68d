"""Documentation-to-call tasks: an API block with invented names, a context, and the call it asks for.

Every API is renamed anew for every task, so that its name can come from nowhere but the prompt.
"""

import keyword
import re
import textwrap
from dataclasses import dataclass

from sources import reserved

ONSETS = "b br c ch cl d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sh sk sl sp st t th tr v w y z".split()
VOWELS = "a e i o u ai ea ee oo ou".split()
CODAS = ["", "", "", "", "n", "r", "l", "m", "t", "k", "p", "s", "nd", "rt", "x", "st"]

INTS = ("0", "1", "2", "3", "4", "5", "7", "8", "10", "12", "16", "20", "50", "64", "100")
STRINGS = ("'a'", "'b'", "'key'", "'red'", "'left'", "'name'", "'abc'", "'x y z'", "'hello'", "'data.txt'", "'north'", "'A-1'")
LISTS = ("[1, 2, 3]", "[3, 1, 2]", "['a', 'b', 'c']", "[0, 5, 5, 9]", "[(1, 2), (3, 4)]", "range(10)", "[1.5, 2.5]", "['x', 'yy']", "[]")
DICTS = ("{'a': 1, 'b': 2}", "{}", "{'x': [1, 2]}", "{1: 'one', 2: 'two'}")
FUNCTIONS = ("str", "len", "lambda x: x + 1", "lambda x: x % 2", "lambda x: x > 3", "int", "lambda a, b: a + b")
OTHERS = ("True", "False", "None", "0.5", "1.25", "('a', 3)")
KINDS = (
    (re.compile(r"^(n|k|i|j|m|num|count|size|width|height|length|limit|index|start|stop|step|depth|maxlen|times|prec|level|port|fd|x|y)$|_(n|size|count|len)$"), INTS),
    (re.compile(r"^(s|name|key|text|path|string|prefix|suffix|filename|value|label|pattern|url|msg|message|char|sep|line|word|attr)$|name$|text$|str$"), STRINGS),
    (re.compile(r"iter|seq|list|items|array|values|nodes|args|elements|lines|words|tokens|data|^(it|xs|points)$"), LISTS),
    (re.compile(r"dict|map|kwargs|attrs|params|options|headers|environ"), DICTS),
    (re.compile(r"func|callback|predicate|pred|^(f|fn|key_func)$|_fn$"), FUNCTIONS),
)
VARIABLES = ("a", "b", "x", "y", "data", "items", "values", "left", "right", "source", "first", "second", "n", "limit", "words", "rows", "p", "q")
OBJECTS = ("obj", "box", "store", "table", "pipe", "graph", "node", "tree", "reader", "client", "queue", "grid", "item", "ds", "src", "model")
RESULTS = ("result", "out", "res", "answer", "new_{o}", "value", "found", "total", "output", "r", "final")
# How a comment tells a value: for an argument by position, and for one by keyword.
MENTIONS = ("Use {v}.", "With {v}.", "The {p} is {v}.", "Take {v} as {p}.", "{v} is the {p}.", "Do it with {v}.", "Use {v} for the {p}.", "Here it is {v}.")
SETTINGS = ("Use {p}={v}.", "Set {p} to {v}.", "With {p}={v}.", "The {p} should be {v}.", "Its {p} is {v}.")
ARTICLES = {"the", "a", "an", "given", "specified", "this", "its", "all"}
VERBS = {
    "return": ("Get", "Give me", "I want", "Find", "Fetch", "What is", "Return"),
    "compute": ("Calculate", "Work out", "Get"),
    "create": ("Make", "Build", "Construct"),
    "make": ("Create", "Build"),
    "add": ("Put", "Insert", "Add"),
    "remove": ("Drop", "Delete", "Take away"),
    "find": ("Look for", "Search for", "Get"),
    "convert": ("Turn", "Change", "Convert"),
    "check": ("See", "Test", "Check"),
    "set": ("Change", "Set", "Assign"),
    "get": ("Fetch", "Return", "Get"),
    "generate": ("Produce", "Yield", "Make"),
    "yield": ("Produce", "Go through", "Yield"),
    "write": ("Store", "Save", "Write"),
    "read": ("Load", "Read", "Take in"),
}


@dataclass
class Task:
    """A prompt, the completion wanted, and where in the completion the golden API's name stands."""

    prompt: str
    completion: str
    name: str
    name_at: int


class Names:
    """Invented identifiers: pseudo-words, shuffled words of real identifiers, or both.

    `held_out` turns the rule round: names that training never sees, by the hash of the name.
    """

    def __init__(self, rng, words, held_out=False):
        self.rng, self.words, self.held_out = rng, words, held_out

    def syllables(self, low=1, high=3):
        pick = self.rng.choice
        return "".join(pick(ONSETS) + pick(VOWELS) + pick(CODAS) for _ in range(self.rng.randint(low, high)))

    def part(self):
        return self.syllables() if self.rng.random() < 0.55 else self.rng.choice(self.words)

    def name(self, camel=False):
        while True:
            parts = [self.part() for _ in range(self.rng.choices((1, 2, 3), (30, 55, 15))[0])]
            name = "".join(p.capitalize() for p in parts) if camel else "_".join(parts)
            if 4 <= len(name) <= 24 and not keyword.iskeyword(name) and reserved(name) == self.held_out:
                return name


def paraphrase(sentence, rng):
    """The sentence as a programmer's comment: another verb, fewer articles, sometimes cut short."""
    words = sentence.rstrip(".").split()
    verb = words[0].lower()
    stem = next((v for v in (verb, verb.rstrip("s"), verb.rstrip("es")) if v in VERBS), None)
    if stem and rng.random() < 0.7:
        words = rng.choice(VERBS[stem]).split() + words[1:]
    drop = rng.choice((0.0, 0.3, 0.9))
    words = words[:1] + [w for w in words[1:] if w.lower() not in ARTICLES or rng.random() > drop]
    if len(words) > 9 and rng.random() < 0.4:
        words = words[: rng.randint(7, len(words))]
    text = " ".join(words)
    lead = rng.choices(("", "How to ", "We want to ", "Please ", "Now "), (70, 12, 8, 5, 5))[0]
    if lead:
        text = lead + text[0].lower() + text[1:]
    return text + rng.choices(("", ".", "?"), (45, 50, 5))[0]


def wrapped(comment, mark, rng):
    """The comment behind `mark`, over several lines where it is long and chance says so."""
    if rng.random() < 0.4:
        return mark + comment
    return textwrap.fill(comment, rng.choice((72, 80, 100, 120)), initial_indent=mark, subsequent_indent=mark, break_long_words=False, break_on_hyphens=False)


def literal(parameter, rng):
    """A plausible value for a parameter, by its name."""
    for pattern, values in KINDS:
        if pattern.search(parameter) and rng.random() < 0.9:
            return rng.choice(values)
    return rng.choice(rng.choice((INTS, STRINGS, LISTS, OTHERS)))


class Maker:
    """Draws tasks. `level` 1 is one API in a few lines; 2 is up to three APIs and every form."""

    def __init__(self, apis, names, rng):
        self.apis, self.names, self.rng = apis, names, rng

    def renamed(self, api, taken):
        """(new name, block line, sentence with the old name replaced)."""
        while True:
            name = self.names.name(camel=api.kind == "class")
            if name not in taken:
                break
        taken.add(name)
        sentence = re.sub(rf"\b{re.escape(api.name)}\b", name, api.sentence)
        signature = api.signature
        if api.kind == "method" and self.rng.random() < 0.4:
            signature = "self" + (", " if signature else "") + signature
        return name, f"# {name}({signature}): {sentence}", sentence

    def task(self, level, n_apis=None, block=True):
        rng = self.rng
        n_apis = n_apis or (1 if level == 1 else rng.choices((1, 2, 3), (45, 30, 25))[0])
        golden, *others = rng.sample(self.apis, n_apis)
        taken = set()
        name, line, sentence = self.renamed(golden, taken)
        renamed = [self.renamed(api, taken) for api in others]
        lines = [line] + [other[1] for other in renamed]
        rng.shuffle(lines)
        head = "# [start]\n" + "\n".join(lines) + "\n# [end]\n" if block else ""
        second = (others[0], renamed[0][0], renamed[0][2]) if others and others[0].kind == "method" and rng.random() < 0.25 else None
        context, before, call, after = self.context(golden, name, sentence, level, second)
        return Task(head + context, before + call + after, name, len(before) + call.index(name))

    def arguments(self, api, comment):
        """(definitions, arguments, comment): the variables a call needs, named mostly as the parameters are."""
        rng = self.rng
        definitions, arguments, extra = [], [], []
        spare = list(VARIABLES)
        rng.shuffle(spare)
        own, by_keyword = rng.random() < 0.6, rng.random() < 0.1
        for parameter in api.required:
            if rng.random() < 0.35:
                value = literal(parameter, rng)
                arguments.append(f"{parameter}={value}" if by_keyword else value)
                extra.append(rng.choice(MENTIONS).format(p=parameter.replace("_", " "), v=value))
                continue
            variable = parameter if own else spare.pop()
            definitions.append((variable, literal(parameter, rng)))
            arguments.append(f"{parameter}={variable}" if by_keyword else variable)
        if api.optional and rng.random() < 0.3:
            parameter, default = rng.choice(api.optional)
            value = literal(parameter, rng) if default in ("None", "()") else rng.choice((default, literal(parameter, rng)))
            if len(value) < 20:
                extra.append(rng.choice(SETTINGS).format(p=parameter, v=value))
                arguments.append(f"{parameter}={value}")
        if extra:
            comment = comment + ("" if comment.endswith((".", "?")) else ".") + " " + " ".join(extra)
        return definitions, arguments, comment

    def context(self, api, name, sentence, level, second=None):
        """(context, text before the call, the call, text after it); `second` (API, name, sentence) is called on the result."""
        rng, names = self.rng, self.names
        definitions, arguments, comment = self.arguments(api, paraphrase(sentence, rng))
        chain = ""
        if second:
            more, extra, after = self.arguments(second[0], paraphrase(second[2], rng))
            definitions += [pair for pair in more if pair[0] not in dict(definitions)]
            chain = f".{second[1]}({', '.join(extra)})"
            if rng.random() < 0.7:
                comment = comment.rstrip(".?") + rng.choice((", then ", " and ", ". Then ")) + after[0].lower() + after[1:]
            else:
                comment += ("" if comment.endswith((".", "?")) else ".") + " " + after
        package = names.syllables(1, 2) + rng.choice(("", "", ".core", ".io", ".tools"))
        object_name, owner = "", ""
        lines = []
        if api.kind == "method":
            object_name = rng.choice(OBJECTS)
            owner = names.name(camel=True)
            if level > 1 or rng.random() < 0.5:
                lines.append(f"from {package} import {owner}")
                definitions.append((object_name, f"{owner}({rng.choice(LISTS + STRINGS + ('',))})"))
            call = f"{object_name}.{name}({', '.join(arguments)})"
        else:
            style = rng.random()
            if style < 0.4:
                alias = package[:2] if rng.random() < 0.4 else package.split(".")[-1]
                lines.append(f"import {package}" + (f" as {alias}" if alias != package else ""))
                call = f"{alias}.{name}({', '.join(arguments)})"
            else:
                if style < 0.75:
                    lines.append(f"from {package} import {'*' if rng.random() < 0.6 else name}")
                call = f"{name}({', '.join(arguments)})"
        call += chain
        result = rng.choice(RESULTS).format(o=object_name or "value")
        if api.kind == "class":
            result = rng.choice(OBJECTS)
        form = rng.random()
        if form < 0.3 and level > 1:  # the body of a function
            signature = ", ".join(dict.fromkeys([d for d, v in definitions if d != object_name] + ([object_name] if object_name else [])))
            lines = [text for text in lines if not (owner and text.endswith(owner))] + ([""] if rng.random() < 0.5 else [])
            lines.append(f"def {names.name()}({signature}):")
            lines.append(f'    """{comment}"""' if rng.random() < 0.4 and not comment.endswith('"') else wrapped(comment, "    # ", rng))
            if rng.random() < 0.7:
                return "\n".join(lines) + "\n", "    return ", call, "\n"
            return "\n".join(lines) + "\n", f"    {result} = ", call, f"\n    return {result}\n"
        if level > 1 and lines and rng.random() < 0.3:
            lines.append("")
        lines += [f"{variable} = {value}" for variable, value in definitions]
        lines.append(wrapped(comment, "# ", rng))
        context = "\n".join(lines) + "\n"
        if form < 0.8:
            if rng.random() < 0.15:
                return context + f"{result} = ", "", call, "\n"
            return context + f"{result} =", " ", call, "\n"
        if form < 0.9:
            return context, f"{result} = ", call, "\n"
        return context, "", call, "\n"


def word_list(apis):
    """Words of the sources' own identifiers, for names that look like a library's."""
    words = {w for api in apis for w in re.split(r"_|(?<=[a-z])(?=[A-Z])", api.name.lower()) if w.isalpha() and 3 <= len(w) <= 9}
    return sorted(words)
