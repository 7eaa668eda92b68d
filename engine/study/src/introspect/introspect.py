# Reads the documentation of an imported library: run inside the sandbox as one job, whose output is one line of base64 over
# zlib over JSON lines. Nothing that it says is trusted: the reader validates every record.
# `asked`: dotted names, one a line, of which it says whether they are there, too.
def _introspect(library, max_records, max_text, max_bytes, asked=""):
    import base64, importlib, inspect, json, os, pkgutil, re, sys, types, warnings, zlib

    # What the library prints while it is imported goes nowhere.
    channel = os.dup(1)
    void = os.open("/dev/null", os.O_WRONLY)
    os.dup2(void, 1)
    os.dup2(void, 2)
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(10000)

    root = library.split(".")[0]
    packed = zlib.compressobj(6)
    chunks = []
    count = size = 0
    told = set()

    class Full(Exception):
        pass

    def emit(record):
        nonlocal count, size
        line = json.dumps({k: v for k, v in record.items() if v}).encode("ascii") + b"\n"
        count += "qualified_name" in record
        told.add(record.get("qualified_name") or record.get("also"))
        told.update(record.get("aliases", ()))
        size += len(line)
        if count > max_records or size > max_bytes:
            raise Full()
        chunks.append(packed.compress(line))

    def text(value, limit=max_text):
        return value[:limit] if type(value) is str else ""

    def attribute(thing, name):
        try:
            return getattr(thing, name, None)
        except Exception:
            return None

    def is_public(name):
        return type(name) is str and not name.startswith("_") and name.isidentifier()

    def is_owned(value):
        module = attribute(value, "__module__")
        return type(module) is str and module.split(".")[0] in (root, "_" + root)

    skipped_parts = {"tests", "test", "testing", "conftest", "setup", "__main__", "benchmarks"}
    skipped = []

    def say(error):
        return "{}: {}".format(type(error).__name__, text(str(error), 300))

    def modules():
        """The library's importable modules by name, importing each."""
        top = importlib.import_module(library)
        yield library, top
        seen = {library}
        waiting = [(library, top)]
        # Modules that the library's own namespace shows under another name (numpy.char).
        for child, value in sorted(vars(top).items()):
            if isinstance(value, types.ModuleType) and is_public(child) and child not in skipped_parts:
                full, own = library + "." + child, attribute(value, "__name__")
                if type(own) is str and own != full and own.split(".")[0] in (root, "_" + root):
                    seen.add(full)
                    yield full, value
        while waiting:
            name, module = waiting.pop(0)
            children = set()
            path = attribute(module, "__path__")
            if path is not None:
                try:
                    children.update(found.name for found in pkgutil.iter_modules(path))
                except Exception as error:
                    skipped.append((name, say(error)))
            # Modules that exist at run time only.
            for child, value in list(vars(module).items()):
                if isinstance(value, types.ModuleType) and attribute(value, "__name__") == name + "." + child:
                    children.add(child)
            for child in sorted(child for child in children if is_public(child) and child not in skipped_parts):
                full = name + "." + child
                if full in seen:
                    continue
                seen.add(full)
                try:
                    found = sys.modules.get(full) or importlib.import_module(full)
                except BaseException as error:
                    # A module may need what is not installed, or end the program.
                    skipped.append((full, say(error)))
                    continue
                if isinstance(found, types.ModuleType):
                    yield full, found
                    waiting.append((full, found))

    # --- signatures --------------------------------------------------------------------------------------------------

    def shown(value, limit=80):
        if value is None or isinstance(value, (bool, int, float, str, bytes)):
            found = repr(value)
        elif isinstance(value, type):
            found = value.__qualname__
        elif inspect.isroutine(value):
            found = attribute(value, "__name__") or "..."
        else:
            try:
                found = repr(value)
            except Exception:
                found = "..."
        if " at 0x" in found or found.startswith("<") or len(found) > limit or "\n" in found:
            return "..."
        return found

    def annotation(value):
        if type(value) is str:
            return text(value, 200)
        if isinstance(value, type) and type(value) is type:
            return value.__qualname__
        try:
            return re.sub(r"\btyping\.", "", repr(value))[:200]
        except Exception:
            return ""

    def written(signature, drop_first):
        parts = []
        parameters = list(signature.parameters.values())
        if drop_first and parameters and parameters[0].kind in (0, 1):
            parameters = parameters[1:]
        last = None
        for p in parameters:
            if last == 0 and p.kind != 0:
                parts.append("/")
            if p.kind == 3 and last not in (2, 3):
                parts.append("*")
            part = {2: "*", 4: "**"}.get(int(p.kind), "") + p.name
            if p.annotation is not p.empty:
                part += ": " + annotation(p.annotation)
            if p.default is not p.empty:
                part += (" = " if p.annotation is not p.empty else "=") + shown(p.default)
            parts.append(part)
            last = int(p.kind)
        if last == 0:
            parts.append("/")
        found = "(" + ", ".join(parts) + ")"
        if signature.return_annotation is not signature.empty:
            found += " -> " + annotation(signature.return_annotation)
        return text(found, 2000)

    def from_doc(name, doc, drop_self):
        """The signature that compiled modules put first, and the rest of the documentation."""
        head = re.match(r"\s*(?:[A-Za-z_][\w.]*\.)?" + re.escape(name) + r"\s*\(", doc)
        if head is None:
            return "", doc
        depth = 0
        for at in range(head.end() - 1, min(len(doc), 2000)):
            letter = doc[at]
            depth += (letter in "([{") - (letter in ")]}")
            if depth == 0:
                inside = " ".join(doc[head.end():at].split())
                tail = re.match(r"[ \t]*(->[^\n]*)?", doc[at + 1:])
                if drop_self:
                    inside = re.sub(r"^(self|cls|\$self|\$module|\$type)\b[^,]*,?\s*(/\s*,?\s*)?", "", inside)
                result = (tail.group(1) or "").strip()
                rest = doc[at + 1 + tail.end():]
                if rest and not rest.startswith("\n"):
                    return "", doc
                return "(" + inside + ")" + (" " + result if result else ""), rest.lstrip("\n")
        return "", doc

    def called(name, value, doc, drop_first):
        try:
            return written(inspect.signature(value), drop_first), doc
        except Exception:
            pass
        found, rest = from_doc(name, doc, drop_first)
        if found:
            return found, rest
        inputs = attribute(value, "nin")
        if type(inputs) is int and 0 < inputs < 10 and attribute(value, "nout") is not None:
            names = ["x"] if inputs == 1 else ["x{}".format(i + 1) for i in range(inputs)]
            return "(" + ", ".join(names) + ", /, out=None, *, where=True)", doc
        return "", doc

    def documentation(value):
        try:
            return text(inspect.getdoc(value))
        except Exception:
            return ""

    base = None

    def place(value):
        function = inspect.unwrap(value) if inspect.isfunction(value) else value
        code = attribute(function, "__code__")
        file, line = attribute(code, "co_filename"), attribute(code, "co_firstlineno")
        if base and type(file) is str and file.startswith(base) and type(line) is int:
            return file[len(base):], line
        return "", 0

    # --- what is public ----------------------------------------------------------------------------------------------

    def names_of(module, name):
        listed = attribute(module, "__all__")
        try:
            listed = [n for n in listed if type(n) is str and n.isidentifier()] if listed is not None else None
        except Exception:
            listed = None
        found = sorted(set(listed)) if listed is not None else sorted(n for n in vars(module) if is_public(n))
        for child in found:
            if child.startswith("_"):
                continue
            try:
                value = getattr(module, child)
            except BaseException:
                continue
            if isinstance(value, types.ModuleType):
                continue
            yield child, value, listed is not None

    def kind_of(value):
        if isinstance(value, type):
            return "class"
        if inspect.isroutine(value) or callable(value) and attribute(type(value), "__name__") != "_SpecialForm":
            return "function"
        return "constant"

    homes = {}
    found_modules = []
    keep = []
    for name, module in modules():
        found_modules.append((name, module))
    base = attribute(found_modules[0][1], "__file__")
    if type(base) is str:
        depth = library.count(".") + (2 if attribute(found_modules[0][1], "__path__") is not None else 1)
        for _ in range(depth):
            base = os.path.dirname(base)
        base += "/"
    for name, module in found_modules:
        for child, value, listed in names_of(module, name):
            kind = kind_of(value)
            if kind == "constant":
                plain = child.isupper() and isinstance(value, (int, float, str, tuple, frozenset))
                if not (listed or plain or name == library and is_owned(type(value))):
                    continue
                key = (name, child)
            else:
                module_name = attribute(value, "__module__")
                if not (is_owned(value) or listed or (module_name is None and name == library)):
                    continue
                if not listed and type(module_name) is not str and name != library:
                    continue
                key = id(value)
                keep.append(value)
            home = attribute(value, "__module__")
            elsewhere = type(home) is str and not (home + ".").startswith(name + ".")
            homes.setdefault(key, (kind, value, []))[2].append(
                (name.count("."), not listed, elsewhere, attribute(value, "__name__") != child, len(name), name, child))

    by_module, class_paths = {}, {}
    for kind, value, places in homes.values():
        # The path with the fewest parts; at equal length, one that is listed in an __all__, by the module that the thing
        # says it is of, under its own name.
        places.sort()
        name, child = places[0][-2:]
        aliases = ["{}.{}".format(*p[-2:]) for p in places[1:9]]
        by_module.setdefault(name, []).append((child, kind, value, aliases))
        if kind == "class":
            class_paths[id(value)] = name, child

    # By class and name what was said of its members: a class that inherits one has it under one more name. The first is that of
    # the class that defines it, where that is one that users see.
    members_told = {}

    def members(name, cls, deep=True):
        for child in sorted(n for n in dir(cls) if is_public(n)):
            owner = next((c for c in cls.__mro__ if child in c.__dict__), None)
            # What object, BaseException and their like give to every class says nothing of this one.
            if owner is None or attribute(owner, "__module__") in ("builtins", "abc", "enum", "typing"):
                continue
            key, qualified = (id(owner), child), name + "." + child
            if key in members_told:
                if members_told[key] != qualified:
                    yield {"also": qualified, "of": members_told[key]}
                continue
            raw = owner.__dict__[child]
            try:
                value = getattr(cls, child)
            except Exception:
                value = raw
            if isinstance(value, type):
                # A class inside, or one that a descriptor stands for (pandas' accessors).
                if deep and (raw is not value) and is_owned(value):
                    yield {"name": child, "qualified_name": qualified, "kind": "property", "doc": documentation(value)}
                    for member in members(qualified, value, False):
                        yield member
                continue
            home, said = class_paths.get(id(owner)), qualified
            if deep and owner is not cls and home:
                said = ".".join(home + (child,))
                yield dict(member_of(said, child, owner, raw, getattr(owner, child, value)), module=home[0])
                yield {"also": qualified, "of": said}
            else:
                yield member_of(qualified, child, cls, raw, value)
            if deep:
                members_told[key] = said

    def member_of(qualified, child, cls, raw, value):
        record = {"name": child, "qualified_name": qualified}
        doc = documentation(raw if isinstance(raw, property) else value)
        if isinstance(raw, (staticmethod, classmethod)) or inspect.isroutine(value):
            record["kind"] = "method"
            bound = isinstance(raw, (staticmethod, classmethod)) or inspect.ismethod(value)
            # A bound method or function has no receiver left; a plain function of the class has.
            bound = bound or (inspect.isbuiltin(value) and attribute(value, "__self__") is cls)
            record["signature"], doc = called(child, value, doc, not bound)
            record["file"], record["line"] = place(value)
        elif isinstance(raw, property) or inspect.isdatadescriptor(raw) or hasattr(type(raw), "__get__"):
            record["kind"] = "property"
        else:
            record["kind"] = "constant"
            doc = ""
        record["doc"] = doc
        return record

    def exported(qualified, child, kind, value):
        record = {"name": child, "qualified_name": qualified, "kind": kind}
        doc = "" if kind == "constant" else documentation(value)
        if kind != "constant":
            record["signature"], doc = called(child, value, doc, False)
            record["file"], record["line"] = place(value)
        record["doc"] = doc
        return record

    def declared(cls, name):
        """Whether objects of a class have the attribute, though the class has not."""
        for c in attribute(cls, "__mro__") or ():
            for place in ("__annotations__", "__dataclass_fields__", "model_fields", "__fields__", "__attrs_attrs__", "__slots__"):
                try:
                    held = c.__dict__.get(place) or ()
                    if name in held or any(attribute(one, "name") == name for one in held):
                        return True
                except Exception:
                    pass
        return False

    def answer(qualified):
        """The record of a name that code can reach although the walk did not; what is known where it can not."""
        parts = qualified.split(".")
        try:
            owner, value = None, importlib.import_module(parts[0])
            for n, part in enumerate(parts[1:], 2):
                owner = value
                try:
                    value = getattr(owner, part)
                except AttributeError:
                    if not isinstance(owner, types.ModuleType):
                        if n == len(parts) and declared(owner, part):
                            return {"there": qualified}
                        return {"missing": qualified}
                    try:
                        value = importlib.import_module(".".join(parts[:n]))
                    except ModuleNotFoundError as error:
                        if attribute(error, "name") == ".".join(parts[:n]):
                            return {"missing": qualified}
                        raise
        except BaseException:
            # The module needs what is not here, or the attribute raises: nothing can be said.
            return {}
        child = parts[-1]
        if isinstance(value, types.ModuleType):
            return {"there": qualified}
        if isinstance(owner, type):
            raw = next((c.__dict__[child] for c in owner.__mro__ if child in c.__dict__), value)
            if isinstance(value, type):
                return {"there": qualified}
            record = member_of(qualified, child, owner, raw, value)
        else:
            record = exported(qualified, child, kind_of(value), value)
            record["module"] = ".".join(parts[:-1])
        return dict(record, asked=True)

    try:
        for name, module in sorted(found_modules, key=lambda found: found[0]):
            emit({"name": name.split(".")[-1], "qualified_name": name, "kind": "module", "doc": documentation(module),
                  "module": name.rpartition(".")[0]})
            for child, kind, value, aliases in sorted(by_module.get(name, ()), key=lambda found: found[0]):
                qualified = name + "." + child
                emit(dict(exported(qualified, child, kind, value), module=name, aliases=aliases))
                if kind == "class":
                    for member in members(qualified, value):
                        emit(member if "also" in member else dict({"module": name}, **member))
        for qualified in asked.split():
            if qualified not in told:
                said = answer(qualified)
                if said:
                    emit(said)
        full = False
    except Full:
        full = True
    for name, reason in skipped[:1000]:
        line = json.dumps({"skipped": name, "reason": reason}).encode("ascii") + b"\n"
        chunks.append(packed.compress(line))
    end = {"end": True, "full": full, "modules": len(found_modules)}
    chunks.append(packed.compress(json.dumps(end).encode("ascii") + b"\n"))
    chunks.append(packed.flush())
    line = base64.b64encode(b"".join(chunks)) + b"\n"
    while line:
        line = line[os.write(channel, line):]
