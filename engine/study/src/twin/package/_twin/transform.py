"""Compiles programs so that they speak to `lookup`. Line numbers stay as they are."""
import ast

from . import lookup, table
from .table import TO_PUBLIC, WORDS

#: The name under which programs find `lookup` in their globals.
HANDLE = "__twin__"


def compile_source(source, file_name, mode="exec"):
    """Like `compile(source, file_name, mode)`, through the table.

    Raises what `compile` raises.
    """
    return compile_tree(parse(source, file_name, mode), file_name, mode)


def parse(source, file_name, mode="exec"):
    """The syntax tree of a program. Raises what `compile` raises."""
    return compile(source, file_name, mode, ast.PyCF_ONLY_AST, dont_inherit=True)


def compile_tree(tree, file_name, mode="exec"):
    """Compiles what `parse` gave, through the table; the tree is changed."""
    # The parser accepts a little that the compiler refuses; what is compiled here is what `compile` would have taken.
    tree = ast.fix_missing_locations(_Transformer().visit(tree))
    return compile(tree, file_name, mode, dont_inherit=True)


def _handle(method, *arguments):
    function = ast.Attribute(ast.Name(HANDLE, ast.Load()), method, ast.Load())
    return ast.Call(function, list(arguments), [])


def _text(value):
    return ast.Constant(value, kind=None)


class _Transformer(ast.NodeTransformer):
    _calls = 0

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if node.attr not in WORDS:
            return node
        if isinstance(node.ctx, ast.Load):
            # The look itself is the program's, as the call is below.
            looked = _handle("of", node.value, _text(node.attr))
            return ast.copy_location(_handle("look", ast.Starred(looked, ast.Load())), node)
        target = ast.Attribute(_handle("slot", node.value, _text(node.attr)), "value", node.ctx)
        return ast.copy_location(target, node)

    def visit_Call(self, node):
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in lookup.REPLACED_NAMES:
            node.func = ast.copy_location(_handle("builtin", node.func), node.func)
        if any(keyword.arg in WORDS for keyword in node.keywords):
            # The call itself stays the program's: what the library warns of then names the program's line.
            self._calls += 1
            site = _text(self._calls)
            said = _handle("said", site)
            said.keywords = node.keywords
            node.func = ast.copy_location(_handle("callee", node.func, site), node.func)
            node.keywords = [ast.keyword(None, ast.copy_location(said, node))]
        return node

    def visit_Import(self, node):
        for alias in node.names:
            if table.is_owned_module(alias.name):
                return self._refused(node, alias.name)
        return node

    def visit_ImportFrom(self, node):
        if not node.level and table.is_owned_module(node.module):
            return self._refused(node, node.module)
        return node

    @staticmethod
    def _refused(node, module):
        return ast.copy_location(ast.Expr(_handle("refuse_import", _text(module))), node)

    def visit_ClassDef(self, node):
        bases = [base for base in node.bases if _is_path(base)]
        self.generic_visit(node)
        if bases and any(name in TO_PUBLIC for name in _bound(node.body)):
            # The bases are looked up again, by name: the library's classes do not change in between.
            again = [self.visit(_copy(base)) for base in bases]
            scope = ast.Call(ast.Name("locals", ast.Load()), [], [])
            adopt = ast.Expr(_handle("adopt", scope, ast.Tuple(again, ast.Load())))
            node.body.append(ast.copy_location(adopt, node.body[-1]))
        return node

    def visit_pattern(self, node):
        """Patterns take plain names only; the twin's modules answer those themselves."""
        return node

    visit_MatchValue = visit_MatchClass = visit_pattern


def _is_path(node):
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


def _copy(path):
    if isinstance(path, ast.Name):
        return ast.Name(path.id, ast.Load())
    if isinstance(path, ast.Attribute):
        return ast.Attribute(_copy(path.value), path.attr, ast.Load())
    return path


def _bound(body):
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield statement.name
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    yield target.id
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id
