//! From exports to the records of `apis.jsonl`.

use std::hash::BuildHasher;
use std::rc::Rc;

use ruff_python_ast::Expr;
use ruff_text_size::{TextRange, TextSize};
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::exports::{Export, Key};
use super::library::Library;
use super::members::{MadeKind, Member};
use super::program::{Base, ClassId, Function, ModId, Target, Value};
use super::scope::last_name;
use super::signature::{self, Signature};
use crate::api::{self, ApiDoc, ApiKind, SourceLocation};

/// Classes within classes within accessors that are followed.
const MAX_NESTING: usize = 4;
/// Records of one library; a class hierarchy made to explode ends here.
const MAX_RECORDS: usize = 2_000_000;

/// All records of a library: modules in order of their names, in each the module itself, then its names in order, each
/// class followed by its members in source order.
pub(super) fn all<'a>(library: &Library<'a>, exports: &[Export<'a>], include_private: bool) -> Vec<ApiDoc> {
    let mut writer = Writer {
        library,
        paths: FxHashMap::default(),
        groups: Vec::new(),
        records: 0,
        origins: FxHashMap::default(),
        repeated: FxHashMap::default(),
        inherited: Vec::new(),
        heirs: api::Heirs::default(),
        hidden: api::Hidden::default(),
    };
    for export in exports {
        let Some(best) = export.paths.first() else { continue };
        let key = match &export.target {
            Target::Class(id) => Key::Class(*id),
            Target::External(name) => Key::External(name.clone()),
            _ => continue,
        };
        let path = (library.module_name_of(best.module).to_owned(), best.name.to_string());
        writer.paths.insert(key, path);
    }
    for module in library.public_modules(include_private) {
        writer.module(module);
    }
    // Base classes first: what is inherited is documented where it comes from, if that is public.
    let mut order: Vec<&Export<'a>> = exports.iter().collect();
    order.sort_by_key(|export| match &export.target {
        Target::Class(id) => library.program.mro(*id).len(),
        _ => 0,
    });
    for export in order {
        writer.export(export);
    }
    // A method registered on a public class can be called whether or not the class behind it is exported.
    for (id, class) in library.program.classes.iter().enumerate() {
        let file = library.program.modules[class.module].file;
        if !writer.paths.contains_key(&Key::Class(id)) && !file.dependency && !file.stub {
            writer.registered(id);
        }
    }
    writer.finish()
}

struct Writer<'l, 'a> {
    library: &'l Library<'a>,
    /// Best module and name of each exported class and outside name.
    paths: FxHashMap<Key, (String, String)>,
    groups: Vec<((String, String), Vec<ApiDoc>)>,
    records: usize,
    /// The members written so far, by number.
    origins: FxHashMap<Origin, usize>,
    /// Members of classes of one hierarchy that read the same, by number.
    repeated: FxHashMap<Repeated, usize>,
    /// Of each the qualified name of its record, and the classes that inherit it, as numbers into the owners of `heirs`.
    inherited: Vec<(String, Vec<u32>)>,
    heirs: api::Heirs,
    hidden: api::Hidden,
}

/// What makes members that classes of one hierarchy define one after the other the same: a subclass that says again what its
/// base class says, configurations that all have the attribute.
#[derive(PartialEq, Eq, Hash)]
struct Repeated {
    hierarchy: Key,
    name: Rc<str>,
    doc: Option<u64>,
    kind: Option<ApiKind>,
    /// Of what is called or computed: its whole source.
    text: Option<u64>,
}

/// What makes a member of two classes one thing: the class that brings it, and what is said of it there.
#[derive(PartialEq, Eq, Hash)]
struct Origin {
    /// The member through whose class it is reached (`Series.str`).
    within: Option<usize>,
    from: ClassId,
    name: Rc<str>,
    /// A docstring may come from another base class of one that inherits it.
    doc: Option<u64>,
    enumerated: bool,
}

impl<'a> Writer<'_, 'a> {
    fn finish(mut self) -> Vec<ApiDoc> {
        self.groups.sort_by(|a, b| a.0.cmp(&b.0));
        let mut seen: FxHashMap<String, usize> = FxHashMap::default();
        let mut apis: Vec<ApiDoc> = Vec::with_capacity(self.records);
        for api in self.groups.into_iter().flat_map(|(_, group)| group) {
            match seen.get(&api.qualified_name) {
                None => {
                    seen.insert(api.qualified_name.clone(), apis.len());
                    apis.push(api);
                }
                // The same name from two sides (a stub's method and the class registered under it): the one with a
                // description counts.
                Some(&at) if apis[at].description.is_empty() && !api.description.is_empty() => apis[at] = api,
                Some(_) => {}
            }
        }
        for (name, owners) in self.inherited {
            if let Some(&at) = seen.get(&name)
                && !owners.is_empty()
            {
                self.heirs.of.push((at, owners));
            }
        }
        drop(seen);
        api::name_heirs(&mut apis, self.heirs);
        api::name_hidden(&mut apis, &self.hidden);
        apis
    }

    fn push_group(&mut self, module: &str, name: &str, mut group: Vec<ApiDoc>) {
        group.shrink_to_fit();
        for api in &mut group {
            api.signature.shrink_to_fit();
        }
        if self.records < MAX_RECORDS {
            self.records += group.len();
            self.groups.push(((module.to_owned(), name.to_owned()), group));
        }
    }

    fn module(&mut self, id: ModId) {
        let module = &self.library.program.modules[id];
        let name = module.file.module.as_str();
        let mut api = ApiDoc {
            name: name.rsplit('.').next().unwrap_or(name).to_owned(),
            qualified_name: name.to_owned(),
            kind: Some(ApiKind::Module),
            module: name.to_owned(),
            source: Some(SourceLocation { path: module.file.path.clone(), line: 1 }),
            ..ApiDoc::default()
        };
        let public = self.library.public_names(id, false);
        let documented = public.iter().filter(|(_, _, weak)| !weak).map(|(name, _, _)| &**name).collect();
        api.undocumented = Some(self.library.undocumented_of_module(id, &documented));
        self.describe(&mut api, self.library.doc_of_module(id));
        self.push_group(name, "", vec![api]);
    }

    fn describe(&self, api: &mut ApiDoc, doc: Option<Rc<str>>) {
        if let Some(doc) = doc {
            let rendered = self.library.render(&doc);
            api.description.clone_from(&rendered.first_sentence);
            api.doc.clone_from(&rendered.doc);
            api.examples.clone_from(&rendered.examples);
        }
    }

    fn at(&self, module: ModId, offset: TextSize) -> Option<SourceLocation> {
        let file = self.library.program.modules[module].file;
        Some(SourceLocation { path: file.path.clone(), line: file.line(offset) })
    }

    /// The records of one exported thing: under its best path, and once more under every other bare name that is
    /// imported from as high up (`isnull` beside `isna`). All other paths are aliases.
    fn export(&mut self, export: &Export<'a>) {
        let Some(best) = export.paths.first() else { return };
        let library = self.library;
        let depth = |module: ModId| library.module_name_of(module).matches('.').count();
        let full = |module: ModId, name: &str| format!("{}.{name}", library.module_name_of(module));
        let all: Vec<String> = export.paths.iter().map(|path| full(path.module, &path.name)).collect();
        let mut names: Vec<&str> = Vec::new();
        let mut groups = Vec::new();
        for path in &export.paths {
            if names.contains(&&*path.name) || depth(path.module) != depth(best.module) {
                continue;
            }
            let main = names.is_empty();
            names.push(&path.name);
            let module = self.library.module_name_of(path.module);
            let qualified = full(path.module, &path.name);
            let aliases: Vec<String> = all.iter().filter(|other| **other != qualified).cloned().collect();
            let mut api = ApiDoc {
                name: path.name.to_string(),
                qualified_name: qualified,
                module: module.to_owned(),
                aliases,
                ..ApiDoc::default()
            };
            let group = match &export.target {
                Target::Class(id) => self.class(*id, api, main),
                Target::Function(function) => {
                    api.kind = Some(ApiKind::Function);
                    let mut signature = self.library.signature_of(function);
                    if function.class.is_some() && self.library.method_kind(function) == MadeKind::Class {
                        signature.skip_first();
                    }
                    api.signature = signature.to_string();
                    api.source = self.function_source(function);
                    self.describe(&mut api, self.library.doc_of_function(function));
                    vec![api]
                }
                Target::Value(value) => vec![self.constant(value, api)],
                Target::External(_) | Target::Module(_) => vec![api],
            };
            groups.push((module.to_owned(), path.name.to_string(), group));
        }
        for (module, name, group) in groups {
            self.push_group(&module, &name, group);
        }
        if let Target::Class(id) = &export.target {
            self.registered(*id);
        }
    }

    fn function_source(&self, function: &Function<'a>) -> Option<SourceLocation> {
        use ruff_text_size::Ranged;
        self.at(function.module, function.main().name.start())
    }

    fn constant(&self, value: &Value<'a>, mut api: ApiDoc) -> ApiDoc {
        let library = self.library;
        api.kind = Some(ApiKind::Constant);
        api.source = self.at(value.module, value.assigned.range.start());
        self.describe(&mut api, self.library.value_doc(value));
        if let Some(Expr::Call(call)) = value.assigned.value
            && let Some(signature) =
                library.namedtuple_call(value.module, call).or_else(|| library.model_call(value.module, call))
        {
            api.kind = Some(ApiKind::Class);
            api.signature = signature.to_string();
        } else if let Some(Expr::Call(call)) = value.assigned.value
            && last_name(&call.func) == Some("NewType")
            && let Some(of) = call.arguments.args.get(1)
        {
            let file = library.program.modules[value.module].file;
            api.kind = Some(ApiKind::Class);
            api.signature = format!("(x: {}, /)", signature::fold(file.slice(of)));
        } else if let Some(expr) = value.assigned.value
            && let Some((signature, _)) = self.lambda(value.module, expr)
        {
            api.kind = Some(ApiKind::Function);
            api.signature = signature.to_string();
        } else if let Some(alias @ Expr::Subscript(_)) = value.assigned.value
            && let Some(Target::Class(id)) = library.program.resolve_expr(value.module, value.class, alias)
        {
            // `float16 = floating[_16Bit]`: a class by another name.
            api.kind = Some(ApiKind::Class);
            api.signature = library.constructor(id);
        } else if let Some(made) = library.callable(value) {
            api.kind = Some(ApiKind::Function);
            api.signature = library.made_signature(&made, false).to_string();
            if api.doc.is_empty() {
                self.describe(&mut api, made.doc.clone());
            }
        }
        api
    }

    /// The signature of a lambda, and whether a class gives it a receiver: `lambda self: 1`, `staticmethod(lambda a: a)`.
    fn lambda(&self, module: ModId, expr: &Expr) -> Option<(Signature, bool)> {
        match expr {
            Expr::Lambda(lambda) => {
                let file = self.library.program.modules[module].file;
                let list = lambda.parameters.as_ref();
                Some((list.map_or_else(Signature::default, |list| signature::parameters(file, list)), true))
            }
            Expr::Call(call) => match (last_name(&call.func), &*call.arguments.args) {
                (Some("staticmethod"), [only]) => Some((self.lambda(module, only)?.0, false)),
                (Some("classmethod"), [only]) => Some((self.lambda(module, only)?.0, true)),
                _ => None,
            },
            _ => None,
        }
    }

    /// A class and, where `members` asks for them, what can be reached through it.
    fn class(&mut self, id: ClassId, mut api: ApiDoc, members: bool) -> Vec<ApiDoc> {
        let mut group = Vec::new();
        let library = self.library;
        let class = &library.program.classes[id];
        api.kind = Some(ApiKind::Class);
        api.signature = library.constructor(id);
        api.source = {
            use ruff_text_size::Ranged;
            self.at(class.module, class.def.name.start())
        };
        let doc = library.doc_of_class(id);
        // As `inspect.getdoc`, but that the text of a constructor is better than that of a base class.
        let of_init = |owner: ClassId| {
            let class = &library.program.classes[owner];
            let target =
                library.program.target(class.module, Some(owner), class.scope.get("__init__")?, 0)?;
            library.doc_of_target(&target)
        };
        let bases = library.program.mro(id)[1..]
            .iter()
            .copied()
            .filter(|&base| !library.program.modules[library.program.classes[base].module].file.dependency);
        let doc = doc
            .or_else(|| of_init(id))
            .or_else(|| bases.clone().find_map(|base| library.doc_of_class(base)))
            .or_else(|| bases.clone().find_map(of_init));
        self.describe(&mut api, doc);
        for (name, base) in library.registrations(id) {
            if let Some((module, base)) = self.registration_path(&base) {
                api.aliases.push(format!("{module}.{base}.{name}"));
            }
        }
        api.bases = self.base_names(id);
        let hidden = library.undocumented_of_class(id, &mut self.hidden.names);
        self.hidden.of.insert(api.qualified_name.clone(), hidden);
        let (module, qualified) = (api.module.clone(), api.qualified_name.clone());
        group.push(api);
        if members {
            self.members(id, &module, &qualified, &[], &mut group);
        }
        group
    }

    /// The number of a member, and whether it is documented already: then it is one more name of its record in `owner`.
    fn origin(
        &mut self,
        origin: Origin,
        qualified: &str,
        owner: u32,
        repeated: Option<Repeated>,
    ) -> (usize, bool) {
        let known = self.origins.get(&origin).copied();
        let same = repeated.as_ref().and_then(|repeated| self.repeated.get(repeated).copied());
        match known.or(same) {
            Some(known) => {
                self.origins.entry(origin).or_insert(known);
                self.inherited[known].1.push(owner);
                (known, true)
            }
            None => {
                let new = self.inherited.len();
                self.origins.insert(origin, new);
                self.repeated.extend(repeated.map(|repeated| (repeated, new)));
                self.inherited.push((qualified.to_owned(), Vec::new()));
                (new, false)
            }
        }
    }

    /// What classes that may say the same again have in common: the last base class, if it is the library's or another
    /// library's. `None` for a class that derives from nothing but what Python has.
    fn hierarchy(&self, id: ClassId) -> Option<Key> {
        let program = &self.library.program;
        let mut last = id;
        for _ in 0..program.mro(id).len() {
            match program
                .bases(last)
                .iter()
                .find(|base| !matches!(base, Base::Unknown(name) if is_plain(name)))
            {
                Some(Base::Known(base)) => last = *base,
                Some(Base::Unknown(name)) => return Some(Key::External(name.clone())),
                None => break,
            }
        }
        Some(Key::Class(last))
    }

    fn repeated(
        &self,
        id: ClassId,
        hierarchy: Option<&Key>,
        name: &Rc<str>,
        member: &Member<'a>,
        doc: Option<u64>,
    ) -> Option<Repeated> {
        use ruff_text_size::Ranged;
        let hierarchy = hierarchy?.clone();
        let text_of = |module: ModId, range: TextRange| {
            FxBuildHasher.hash_one(
                self.library.program.modules[module]
                    .file
                    .text
                    .get(range.start().to_usize()..range.end().to_usize()),
            )
        };
        let (kind, text) = match member {
            // A function of the module that a class body binds is reached as itself.
            Member::Function(function) if function.class.is_some() => {
                let last = function.main().range();
                let whole = function.defs.first().map_or(last, |def| def.range().cover(last));
                (None, Some(text_of(function.module, whole)))
            }
            Member::Value(value) if !self.library.is_enum(id) => {
                let made = matches!(value.assigned.value, Some(Expr::Call(_) | Expr::Lambda(_)));
                let kind = if name.chars().all(|c| !c.is_lowercase()) {
                    ApiKind::Constant
                } else {
                    ApiKind::Property
                };
                (Some(kind), made.then(|| text_of(value.module, value.assigned.range)))
            }
            _ => return None,
        };
        Some(Repeated { hierarchy, name: name.clone(), doc, kind, text })
    }

    /// The base classes by the best path of each, or as the source writes them; `object` is not worth a word.
    fn base_names(&self, id: ClassId) -> Vec<String> {
        let bases = self.library.program.bases(id).iter().filter_map(|base| match base {
            Base::Known(base) => Some(match self.paths.get(&Key::Class(*base)) {
                Some((module, name)) => format!("{module}.{name}"),
                None => {
                    let module = self.library.module_name_of(self.library.program.classes[*base].module);
                    format!("{module}.{}", self.library.program.class_path(*base))
                }
            }),
            Base::Unknown(name) => Some(name.clone()).filter(|name| name != "object"),
        });
        bases.collect()
    }

    /// The records of the members of a class that is reached as `owner`, through the members numbered `within`. Those that
    /// another class brings unchanged are documented once.
    fn members(&mut self, id: ClassId, module: &str, owner: &str, within: &[usize], group: &mut Vec<ApiDoc>) {
        if within.len() > MAX_NESTING || group.len() > MAX_RECORDS {
            return;
        }
        let library = self.library;
        let is_enum = library.is_enum(id);
        let hierarchy = self.hierarchy(id).filter(|_| within.is_empty());
        let owner_number = self.heirs.owners.len() as u32;
        self.heirs.owners.push(owner.to_owned());
        for (name, member, from) in library.members(id) {
            let mut api = ApiDoc {
                name: name.to_string(),
                qualified_name: format!("{owner}.{name}"),
                module: module.to_owned(),
                ..ApiDoc::default()
            };
            let doc = match &member {
                Member::Value(value) => {
                    library.value_doc(value).or_else(|| library.doc_of_member(id, &name, &member))
                }
                Member::Function(_) | Member::Made(_) => library.doc_of_member(id, &name, &member),
                Member::Class(_) | Member::Accessor(_) | Member::Bare => None,
            };
            let doc_hash = doc.as_ref().map(|doc| FxBuildHasher.hash_one(doc));
            let within_last = within.last().copied();
            let repeated = self.repeated(id, hierarchy.as_ref(), &name, &member, doc_hash);
            let origin = Origin { within: within_last, from, name, doc: doc_hash, enumerated: is_enum };
            let (number, known) = self.origin(origin, &api.qualified_name, owner_number, repeated);
            if !known && self.has_flat_names(id, &member) {
                api.aliases.push(format!("{owner}_{}", api.name));
            }
            if known && !matches!(member, Member::Class(_) | Member::Accessor(_)) {
                continue;
            }
            match &member {
                Member::Function(function) => {
                    api.source = self.function_source(function);
                    let in_class = function.class.is_some();
                    match library.method_kind(function) {
                        MadeKind::Property => api.kind = Some(ApiKind::Property),
                        kind => {
                            api.kind = Some(ApiKind::Method);
                            // A module's function bound in a class body takes the receiver like any other.
                            let skip = kind != MadeKind::Static || !in_class;
                            api.receiver = receiver_of(kind, skip);
                            let mut signature = library.signature_of(function);
                            if skip {
                                signature.skip_first();
                            }
                            api.signature = signature.to_string();
                        }
                    }
                    self.describe(&mut api, doc);
                }
                Member::Made(made) => {
                    api.source = self.function_source(&made.function);
                    if made.kind == MadeKind::Property {
                        api.kind = Some(ApiKind::Property);
                    } else {
                        api.kind = Some(ApiKind::Method);
                        let skip = made.kind != MadeKind::Static;
                        api.receiver = receiver_of(made.kind, skip);
                        api.signature = library.made_signature(made, skip).to_string();
                    }
                    self.describe(&mut api, doc);
                }
                Member::Value(value) => {
                    let upper = api.name.chars().all(|c| !c.is_lowercase());
                    let enumerated = is_enum && value.assigned.value.is_some();
                    api.kind = Some(if upper || enumerated { ApiKind::Constant } else { ApiKind::Property });
                    api.source = self.at(value.module, value.assigned.range.start());
                    if let Some(expr) = value.assigned.value
                        && let Some((mut signature, skip)) = self.lambda(value.module, expr)
                    {
                        if skip {
                            signature.skip_first();
                        }
                        api.kind = Some(ApiKind::Method);
                        api.signature = signature.to_string();
                    }
                    self.describe(&mut api, doc);
                }
                Member::Class(inner) | Member::Accessor(inner) => {
                    let accessor = matches!(member, Member::Accessor(_));
                    let own = library.program.classes[*inner].outer == Some(from);
                    let (module, qualified) = (api.module.clone(), api.qualified_name.clone());
                    let nested = *inner != id;
                    if !known {
                        let mut inner_group = self.class(*inner, api, false);
                        if accessor {
                            for api in &mut inner_group {
                                api.kind = Some(ApiKind::Property);
                                api.signature.clear();
                            }
                        }
                        group.append(&mut inner_group);
                    }
                    if nested && (accessor || own) {
                        let within = [within, &[number]].concat();
                        self.members(*inner, &module, &qualified, &within, group);
                    }
                    continue;
                }
                Member::Bare => {}
            }
            group.push(api);
        }
    }

    /// Whether a member has a second name beside its class, `Class_member`: OpenCV's generator of bindings puts static methods and nested
    /// classes into the module too, and leaves these names out of its stubs.
    fn has_flat_names(&self, id: ClassId, member: &Member<'a>) -> bool {
        let file = self.library.program.modules[self.library.program.classes[id].module].file;
        file.stub
            && file.module.split('.').next() == Some("cv2")
            && match member {
                Member::Function(function) => {
                    matches!(self.library.method_kind(function), MadeKind::Static | MadeKind::Class)
                }
                Member::Class(_) => true,
                _ => false,
            }
    }

    /// Where a class that a decorator registers puts its method: module and name of the base class.
    fn registration_path(&self, base: &Base) -> Option<(String, String)> {
        let (key, full) = match base {
            Base::Known(base) => {
                let class = &self.library.program.classes[*base];
                let module = self.library.module_name_of(class.module).to_owned();
                (Key::Class(*base), (module, self.library.program.class_path(*base)))
            }
            Base::Unknown(name) => {
                let (module, short) = name.rsplit_once('.')?;
                (Key::External(name.clone()), (module.to_owned(), short.to_owned()))
            }
        };
        if let Some(path) = self.paths.get(&key) {
            return Some(path.clone());
        }
        // Imported by a public module that does not export it: users reach it there all the same.
        let holds = |module: &ModId| match (self.library.program.resolve(*module, &full.1), base) {
            (Some(Target::Class(found)), Base::Known(base)) => found == *base,
            (Some(Target::External(found)), Base::Unknown(name)) => found == *name,
            _ => false,
        };
        let modules = self.library.public_modules(false);
        let holder = modules
            .into_iter()
            .filter(holds)
            .map(|module| self.library.module_name_of(module))
            .min_by_key(|name| (name.matches('.').count(), *name));
        Some(holder.map_or(full.clone(), |module| (module.to_owned(), full.1.clone())))
    }

    fn registered(&mut self, id: ClassId) {
        let class = &self.library.program.classes[id];
        let path = self.paths.get(&Key::Class(id)).map(|(module, name)| format!("{module}.{name}"));
        for (name, base) in self.library.registrations(id) {
            use ruff_text_size::Ranged;
            let Some((module, base)) = self.registration_path(&base) else { continue };
            if !super::exports::is_public_module(&module) {
                continue;
            }
            let mut api = ApiDoc {
                qualified_name: format!("{module}.{base}.{name}"),
                kind: Some(ApiKind::Method),
                signature: {
                    // The receiver takes the first parameter; `*args` keeps its place.
                    let mut signature = self.library.constructor_signature(id);
                    signature.skip_first();
                    signature.to_string()
                },
                receiver: Some("self".into()),
                module: module.clone(),
                aliases: path.iter().cloned().collect(),
                source: self.at(class.module, class.def.name.start()),
                name,
                ..ApiDoc::default()
            };
            self.describe(&mut api, self.library.doc_of_class(id));
            let sort = format!("{base}.{}", api.name);
            self.push_group(&module, &sort, vec![api]);
        }
    }
}

/// The parameter of a method that its signature leaves out; `skip` says whether it does.
fn receiver_of(kind: MadeKind, skip: bool) -> Option<String> {
    skip.then(|| if kind == MadeKind::Class { "cls" } else { "self" }.to_owned())
}

/// Base classes that say nothing of what classes have in common.
fn is_plain(name: &str) -> bool {
    let (top, last) =
        (name.split('.').next().unwrap_or_default(), name.rsplit('.').next().unwrap_or_default());
    !name.contains('.')
        || super::exports::is_standard(top)
        || matches!(last, "Generic" | "Protocol" | "object")
}
