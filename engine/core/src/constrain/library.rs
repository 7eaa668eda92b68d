//! What an index says of names: modules, classes, functions and their members as a tree.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustc_hash::{FxHashMap, FxHashSet};

use super::builtins::{BUILTIN_MEMBERS, MODULE_DUNDERS, OBJECT_DUNDERS};
use super::mask::NameSet;
use super::signature::Signature;
use crate::api::{ApiKind, OTHERS};
use crate::index::Index;
use crate::{ApiDoc, Result, python};

/// Dotted names with more parts are left out.
const MAX_PARTS: usize = 32;
/// Classes that one class derives from, directly or not, before a cycle is assumed.
const MAX_BASES: usize = 64;

/// Parts of a package that its documentation leaves out by custom, but imports may name.
const TEST_PACKAGES: &[&str] = &["conftest", "test", "tests"];

/// A node of the tree.
pub(super) type NodeId = u32;

/// What a node is, as far as the records say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Module,
    Class,
    /// A function or method.
    Callable,
    /// A property, which may have members of its own that the records list (`Series.str`).
    Property,
    /// A constant, or a name of which nothing more is known.
    Value,
}

#[derive(Debug, Default)]
struct Node {
    name: Box<str>,
    kind: Option<Kind>,
    parent: NodeId,
    /// The module by which users import it.
    module: NodeId,
    children: FxHashMap<Box<str>, NodeId>,
    signature: Arc<str>,
    parsed: OnceLock<Option<Box<Signature>>>,
    bases: Box<[Box<str>]>,
    /// Names that it or its objects have beside the children; `None`: not known.
    undocumented: Option<Box<[Box<str>]>>,
    /// There may be members that no record names.
    open: bool,
    /// Classes that derive from this one, directly or not.
    derived: Vec<NodeId>,
}

/// Which names may stand somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum SetKey {
    /// After `module.`, and after `from module import`.
    Module(NodeId),
    /// After `Class.`.
    Class(NodeId),
    /// After an object of a class or of one that derives from it.
    Object(NodeId),
    /// After `import module.`.
    Submodules(NodeId),
    /// After a receiver of unknown type: any documented member, or one of Python's own types.
    Any,
}

type TopLevelNames = FxHashMap<(NodeId, Box<str>), Option<NodeId>>;

/// The names of an index, as code refers to them. Made once per index and shared.
#[derive(Debug)]
pub struct Library {
    nodes: Vec<Node>,
    /// What stands in a module, by top-level package and name; `None` where several things have the name.
    by_name: OnceLock<TopLevelNames>,
    sets: Mutex<FxHashMap<SetKey, Arc<NameSet>>>,
}

const ROOT: NodeId = 0;

impl Library {
    /// Reads all records of an index.
    ///
    /// # Errors
    /// A part of the index that is read for the first time turns out to be corrupted.
    pub fn of_index(index: &Index) -> Result<Self> {
        let apis = index.ids().map(|id| index.api(id)).collect::<Result<Vec<_>>>()?;
        Ok(Self::new(&apis))
    }

    /// Of a list of records.
    pub fn new(apis: &[ApiDoc]) -> Self {
        let root = Node { kind: Some(Kind::Module), ..Node::default() };
        let mut this = Self { nodes: vec![root], by_name: OnceLock::new(), sets: Mutex::default() };
        for api in apis {
            this.add(api);
        }
        for api in apis {
            this.add_aliases(api);
        }
        this.link_bases();
        this
    }

    fn add(&mut self, api: &ApiDoc) {
        let full = match (api.qualified_name.as_str(), api.module.as_str()) {
            ("", "") => api.name.as_str(),
            ("", module) => &format!("{module}.{}", api.name),
            (full, _) => full,
        };
        let Some(module) = self.path(&api.module) else { return };
        // A record without a module is a name that members may have, and no more.
        if module != ROOT {
            self.nodes[module as usize].kind.get_or_insert(Kind::Module);
        }
        let Some(id) = self.path(full) else { return };
        let node = &mut self.nodes[id as usize];
        node.module = module;
        node.kind = Some(match api.kind {
            Some(ApiKind::Module) => Kind::Module,
            Some(ApiKind::Class) => Kind::Class,
            Some(ApiKind::Function | ApiKind::Method) => Kind::Callable,
            Some(ApiKind::Property) => Kind::Property,
            _ if node.kind.is_some() => return,
            None if api.signature.starts_with('(') => Kind::Callable,
            _ => Kind::Value,
        });
        // Stubs leave parameters out that no type checker needs.
        let stub = api.source.as_ref().is_some_and(|source| source.path.ends_with(".pyi"));
        node.signature = if stub { "".into() } else { api.signature.as_str().into() };
        node.bases = api.bases.iter().map(|base| base.as_str().into()).collect();
        node.undocumented = api.undocumented.as_ref().map(|names| {
            names.iter().filter(|name| *name != OTHERS).map(|name| name.as_str().into()).collect()
        });
        node.open = api.undocumented.iter().flatten().any(|name| name == OTHERS);
    }

    /// The node of a dotted name, made where it is not there; `None` for what is no dotted name.
    fn path(&mut self, full: &str) -> Option<NodeId> {
        if full.split('.').count() > MAX_PARTS
            || (!full.is_empty() && full.split('.').any(|part| !is_name(part)))
        {
            return None;
        }
        let mut at = ROOT;
        for part in full.split('.').filter(|part| !part.is_empty()) {
            at = match self.nodes[at as usize].children.get(part) {
                Some(&child) => child,
                None => {
                    let child = NodeId::try_from(self.nodes.len()).ok()?;
                    self.nodes.push(Node { name: part.into(), parent: at, ..Node::default() });
                    self.nodes[at as usize].children.insert(part.into(), child);
                    child
                }
            };
        }
        Some(at)
    }

    fn add_aliases(&mut self, api: &ApiDoc) {
        let Some(id) = self.find(&api.qualified_name) else { return };
        for alias in &api.aliases {
            let Some((parent, name)) = alias.rsplit_once('.') else { continue };
            let Some(parent) = self.find(parent).filter(|_| is_name(name)) else { continue };
            if self.nodes[parent as usize].children.contains_key(name) {
                continue;
            }
            // What a class inherits goes by the name that it has there; any other alias by that of the record.
            let inherited = name == api.name
                && self.kind(parent) == Kind::Class
                && matches!(self.kind(self.nodes[id as usize].parent), Kind::Class | Kind::Property);
            let child = match inherited.then(|| self.inherit(id, parent)) {
                Some(Some(own)) => own,
                Some(None) => continue,
                None => id,
            };
            self.nodes[parent as usize].children.insert(name.into(), child);
        }
    }

    /// The node of a member in a class that inherits it.
    fn inherit(&mut self, member: NodeId, class: NodeId) -> Option<NodeId> {
        let own = NodeId::try_from(self.nodes.len()).ok()?;
        let (node, heir) = (&self.nodes[member as usize], &self.nodes[class as usize]);
        let copy = Node {
            name: node.name.clone(),
            kind: node.kind,
            parent: class,
            module: heir.module,
            signature: node.signature.clone(),
            bases: node.bases.clone(),
            undocumented: node.undocumented.clone(),
            open: node.open,
            ..Node::default()
        };
        self.nodes.push(copy);
        Some(own)
    }

    fn link_bases(&mut self) {
        // What only has children is a module: the records of a file may leave modules out.
        for id in 1..self.nodes.len() {
            let node = &self.nodes[id];
            if node.kind.is_none() && !node.children.is_empty() {
                self.nodes[id].kind = Some(Kind::Module);
            }
        }
        for id in 1..self.nodes.len() as NodeId {
            let mut above: Vec<NodeId> = Vec::new();
            let mut open = vec![id];
            while let Some(class) = open.pop() {
                for base in self.nodes[class as usize].bases.iter().filter_map(|base| self.find(base)) {
                    if base != id && above.len() < MAX_BASES && !above.contains(&base) {
                        above.push(base);
                        open.push(base);
                    }
                }
            }
            for base in above {
                self.nodes[base as usize].derived.push(id);
            }
        }
    }

    /// The node of a dotted name.
    pub(super) fn find(&self, full: &str) -> Option<NodeId> {
        if full.is_empty() {
            return None;
        }
        full.split('.').try_fold(ROOT, |at, part| self.child(at, part))
    }

    /// A top-level module.
    pub(super) fn top(&self, name: &str) -> Option<NodeId> {
        self.child(ROOT, name).filter(|&id| self.kind(id) == Kind::Module)
    }

    pub(super) fn child(&self, id: NodeId, name: &str) -> Option<NodeId> {
        self.nodes[id as usize].children.get(name).copied()
    }

    /// The class or function `name` in the top-level package of the dotted name `module`, where there is only one.
    pub(super) fn only_one_named(&self, module: &str, name: &str) -> Option<NodeId> {
        let by_name = self.by_name.get_or_init(|| {
            let mut found = TopLevelNames::default();
            for (id, node) in self.nodes.iter().enumerate().skip(1) {
                let callable = matches!(node.kind, Some(Kind::Class | Kind::Callable));
                if callable && self.kind(node.parent) == Kind::Module {
                    let entry = found.entry((self.top_of(id as NodeId), node.name.clone()));
                    entry.and_modify(|one| *one = None).or_insert(Some(id as NodeId));
                }
            }
            found
        });
        let top = self.top(module.split('.').next().unwrap_or_default())?;
        by_name.get(&(top, Box::from(name))).copied().flatten()
    }

    fn top_of(&self, id: NodeId) -> NodeId {
        let mut at = id;
        while self.nodes[at as usize].parent != ROOT {
            at = self.nodes[at as usize].parent;
        }
        at
    }

    pub(super) fn kind(&self, id: NodeId) -> Kind {
        self.nodes[id as usize].kind.unwrap_or(Kind::Value)
    }

    pub(super) fn child_count(&self, id: NodeId) -> usize {
        self.nodes[id as usize].children.len()
    }

    /// The dotted name of a node.
    pub(super) fn full_name(&self, id: NodeId) -> String {
        let mut parts = Vec::new();
        let mut at = id;
        while at != ROOT {
            parts.push(&*self.nodes[at as usize].name);
            at = self.nodes[at as usize].parent;
        }
        parts.reverse();
        parts.join(".")
    }

    /// The signature of a callable or class; `None` where the records give none that can be read.
    pub(super) fn signature(&self, id: NodeId) -> Option<&Signature> {
        let node = &self.nodes[id as usize];
        node.parsed.get_or_init(|| Signature::parse(&node.signature).map(Box::new)).as_deref()
    }

    /// The signatures that a call of `id` may meet: its own, and for a method those of the classes that derive from its
    /// class. `None` where one of them is not known.
    pub(super) fn signatures(&self, id: NodeId) -> Option<Vec<&Signature>> {
        if self.makes_others(id) {
            return None;
        }
        let node = &self.nodes[id as usize];
        let mut found = vec![self.signature(id)?];
        if self.kind(node.parent) == Kind::Class {
            for &derived in &self.nodes[node.parent as usize].derived {
                if let Some(other) = self.child(derived, &node.name)
                    && other != id
                {
                    found.push(self.signature(other)?);
                }
            }
        }
        Some(found)
    }

    /// Whether a call of `id` may take the keyword `name`, as far as is known.
    pub(super) fn takes_keyword(&self, id: NodeId, name: &str) -> bool {
        self.signatures(id).is_none_or(|all| all.iter().any(|signature| signature.takes(name)))
    }

    /// The class of what a call of `id` returns, where its signature names a documented class.
    pub(super) fn returns(&self, id: NodeId) -> Option<NodeId> {
        let node = &self.nodes[id as usize];
        if self.kind(node.parent) == Kind::Property {
            // A method delegated through an accessor is documented by what it wraps, which may return something else.
            return None;
        }
        self.class_named(self.signature(id)?.returns.as_deref()?, node.module)
    }

    /// The class that `text` names in `module`, or in the only place where there is one of this name.
    pub(super) fn class_named(&self, text: &str, module: NodeId) -> Option<NodeId> {
        if !text.split('.').all(is_name) {
            return None;
        }
        let within = text.split('.').try_fold(module, |at, part| self.child(at, part));
        within.or_else(|| self.find(text)).filter(|&id| self.kind(id) == Kind::Class)
    }

    /// Whether the records name everything that an object of the class, or of one that derives from it, can have.
    pub(super) fn is_closed(&self, class: NodeId) -> bool {
        let closed = |id: NodeId| {
            let node = &self.nodes[id as usize];
            node.undocumented.is_some() && !node.open && !self.makes_others(id)
        };
        self.kind(class) == Kind::Class
            && closed(class)
            && self.nodes[class as usize].derived.iter().all(|&id| closed(id))
    }

    /// Whether the constructor may give, and take, something else than the class's signature says.
    fn makes_others(&self, class: NodeId) -> bool {
        self.nodes[class as usize].undocumented.iter().flatten().any(|name| &**name == "__new__")
    }

    /// Whether the records name all members that code may ask a module for. A module of which nothing is said is taken
    /// to be documented.
    pub(super) fn is_closed_module(&self, id: NodeId) -> bool {
        self.kind(id) == Kind::Module && !self.nodes[id as usize].open && self.child_count(id) > 0
    }

    /// The set of a key; made when it is first asked for.
    pub(super) fn names(&self, key: SetKey) -> Arc<NameSet> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.entry(key).or_insert_with(|| Arc::new(self.collect(key))).clone()
    }

    fn collect(&self, key: SetKey) -> NameSet {
        let mut names: FxHashSet<&str> = FxHashSet::default();
        match key {
            SetKey::Module(id) => {
                names.extend(self.children(id));
                names.extend(self.nodes[id as usize].undocumented.iter().flatten().map(|name| &**name));
                names.extend(MODULE_DUNDERS);
            }
            SetKey::Class(id) | SetKey::Object(id) => {
                names.extend(OBJECT_DUNDERS);
                let derived: &[NodeId] = match key {
                    SetKey::Object(_) => &self.nodes[id as usize].derived,
                    _ => &[],
                };
                for &class in std::iter::once(&id).chain(derived) {
                    names.extend(self.children(class));
                    let hidden = self.nodes[class as usize].undocumented.iter().flatten();
                    names.extend(hidden.map(|name| &**name));
                }
            }
            SetKey::Submodules(id) => {
                let node = &self.nodes[id as usize];
                let modules = node.children.iter().filter(|(_, child)| self.kind(**child) == Kind::Module);
                names.extend(modules.map(|(name, _)| &**name));
                if !names.is_empty() {
                    names.extend(node.undocumented.iter().flatten().map(|name| &**name));
                    names.extend(TEST_PACKAGES);
                }
            }
            SetKey::Any => {
                names.extend(BUILTIN_MEMBERS);
                names.extend(MODULE_DUNDERS);
                names.extend(OBJECT_DUNDERS);
                for node in &self.nodes {
                    names.extend(node.children.keys().map(|name| &**name));
                    names.extend(node.undocumented.iter().flatten().map(|name| &**name));
                }
            }
        }
        names.into_iter().map(Box::from).collect()
    }

    fn children(&self, id: NodeId) -> impl Iterator<Item = &str> {
        self.nodes[id as usize].children.keys().map(|name| &**name)
    }

    /// Modules, classes and everything in them.
    pub fn len(&self) -> usize {
        self.nodes.len() - 1
    }

    /// Whether no record has a name that code can refer to.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether `text` is a name and no reserved word.
pub(super) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| super::mask::is_name_byte(byte) && !byte.is_ascii_digit())
        && bytes.all(super::mask::is_name_byte)
        && !python::is_keyword(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(full: &str, kind: ApiKind, signature: &str) -> ApiDoc {
        let (module, name) = full.rsplit_once('.').unwrap_or(("", full));
        ApiDoc {
            name: name.into(),
            qualified_name: full.into(),
            module: module.split(".C").next().unwrap_or_default().into(),
            kind: Some(kind),
            signature: signature.into(),
            ..ApiDoc::default()
        }
    }

    #[test]
    fn names_classes_and_what_derives_from_them() {
        let closed = |mut api: ApiDoc, bases: &[&str]| {
            api.undocumented = Some(vec!["_hidden".into()]);
            api.bases = bases.iter().map(|&base| base.into()).collect();
            api
        };
        let mut f = api("lib.f", ApiKind::Function, "(a) -> C");
        f.aliases = vec!["lib.sub.f".into()];
        let library = Library::new(&[
            api("lib.sub.g", ApiKind::Function, "(b, *, c=1)"),
            closed(api("lib.C", ApiKind::Class, "()"), &[]),
            api("lib.C.m", ApiKind::Method, "(x)"),
            closed(api("lib.CD", ApiKind::Class, "()"), &["lib.C"]),
            api("lib.CD.m", ApiKind::Method, "(x, y)"),
            api("lib.CD.n", ApiKind::Method, "()"),
            api("lib.COpen", ApiKind::Class, "()"),
            f,
        ]);
        let lib = library.top("lib").unwrap();
        let module = library.names(SetKey::Module(lib));
        assert!(module.contains(b"f") && module.contains(b"sub") && !module.contains(b"g"));
        let sub = library.find("lib.sub").unwrap();
        assert_eq!(library.find("lib.sub.f"), library.find("lib.f"));
        assert!(!library.names(SetKey::Submodules(lib)).contains(b"f"));
        assert!(library.names(SetKey::Submodules(lib)).contains(b"sub") && library.kind(sub) == Kind::Module);
        let c = library.find("lib.C").unwrap();
        assert_eq!(library.returns(library.find("lib.f").unwrap()), Some(c));
        assert!(library.is_closed(c) && !library.is_closed(library.find("lib.COpen").unwrap()));
        let object = library.names(SetKey::Object(c));
        assert!(object.contains(b"n") && object.contains(b"_hidden") && !object.contains(b"f"));
        let m = library.find("lib.C.m").unwrap();
        assert!(library.takes_keyword(m, "y") && !library.takes_keyword(m, "z"));
        assert_eq!(library.full_name(m), "lib.C.m");
    }

    #[test]
    fn odd_records_are_no_names() {
        let odd = ["", ".", "a..b", "a.def", "a b", "1a", &"x.".repeat(40)];
        let library = Library::new(&odd.map(|full| api(full, ApiKind::Function, "(")));
        assert!(library.len() <= 1, "{library:?}");
    }
}
