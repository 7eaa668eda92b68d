# Which attributes and keywords of a program are the library's: run inside the sandbox as one job. The program and its test run
# as they are; every use of a public word notes whether the object was the library's. What it writes is not trusted: it decides
# which words are renamed and nothing else.
def _record(twin, program, test):
    import ast, importlib, json, os, sys

    channel = os.dup(1)
    void = os.open("/dev/null", os.O_WRONLY)
    os.dup2(void, 1)
    os.dup2(void, 2)
    lookup = importlib.import_module(twin + "._twin.lookup")
    words = importlib.import_module(twin + "._twin.table").TO_PRIVATE
    seen = {}

    class slot:
        def __init__(self, thing, name, place):
            note(thing, name, place)
            self.__dict__["_of"] = thing, name

        def __getattr__(self, _):
            return getattr(*self._of)

        def __setattr__(self, _, value):
            setattr(*self._of, value)

        def __delattr__(self, _):
            delattr(*self._of)

    def note(thing, name, place):
        try:
            is_api = bool(lookup._is_api(thing, name))
        except Exception:
            return
        seen[place] = seen.get(place, False) or is_api

    class recorder:
        @staticmethod
        def get(thing, name, place):
            note(thing, name, place)
            return getattr(thing, name)

        @staticmethod
        def slot(thing, name, place):
            return slot(thing, name, place)

        @staticmethod
        def call(places, function, *arguments, **keywords):
            try:
                owned = lookup._owned_callable(function)
                known = lookup._parameters_of(getattr(function, "__func__", function)) if owned else None
                for name, place in places:
                    is_api = owned and (known is None or name in known[0])
                    seen[place] = seen.get(place, False) or bool(is_api)
            except Exception:
                pass
            return function(*arguments, **keywords)

    def asked(method, *arguments):
        return ast.Call(ast.Attribute(ast.Name("__recorder__", ast.Load()), method, ast.Load()), list(arguments), [])

    class Transformer(ast.NodeTransformer):
        def __init__(self, text):
            self.text = text

        def place(self, line, column):
            return ast.Constant("{}:{}:{}".format(self.text, line, column))

        def visit_Attribute(self, node):
            self.generic_visit(node)
            if node.attr not in words:
                return node
            at = self.place(node.end_lineno, node.end_col_offset)
            if isinstance(node.ctx, ast.Load):
                return ast.copy_location(asked("get", node.value, ast.Constant(node.attr), at), node)
            made = ast.Attribute(asked("slot", node.value, ast.Constant(node.attr), at), "value", node.ctx)
            return ast.copy_location(made, node)

        def visit_Call(self, node):
            self.generic_visit(node)
            places = [
                ast.Tuple([ast.Constant(k.arg), self.place(k.lineno, k.col_offset)], ast.Load())
                for k in node.keywords
                if k.arg in words and hasattr(k, "lineno")
            ]
            if not places:
                return node
            made = asked("call", ast.Tuple(places, ast.Load()), node.func, *node.args)
            made.keywords = node.keywords
            return ast.copy_location(made, node)

        def visit_pattern(self, node):
            return node

        visit_MatchValue = visit_MatchClass = visit_pattern

    namespace = {"__name__": "__main__", "__builtins__": __builtins__, "__recorder__": recorder}
    try:
        for label, text in (("p", program), ("t", test)):
            tree = ast.fix_missing_locations(Transformer(label).visit(ast.parse(text)))
            exec(compile(tree, "<" + label + ">", "exec"), namespace)
    except BaseException:
        pass
    line = json.dumps(seen).encode("ascii")
    while line:
        line = line[os.write(channel, line):]
