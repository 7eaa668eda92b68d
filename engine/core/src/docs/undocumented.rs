//! What modules and objects have beside their documented members: names that exist, though no record is about them.
//!
//! A list with [`crate::api::OTHERS`] in it is not complete.

use std::collections::BTreeSet;
use std::rc::Rc;

use ruff_python_ast::Expr;
use rustc_hash::{FxHashMap, FxHashSet};

use super::library::Library;
use super::program::{Base, ClassId, ModId};
use super::scope::{Binding, last_name};
use crate::api::OTHERS;

/// Base classes outside the library that give their objects no attribute worth naming.
const PLAIN_BASES: &[&str] = &["object", "ABC", "Generic", "Protocol"];
/// Decorators that leave a class the attributes it has.
const PLAIN_DECORATORS: &[&str] =
    &["dataclass", "total_ordering", "final", "runtime_checkable", "define", "frozen", "attrs"];
/// Methods that make attributes which nothing in the source names, or objects of another class.
const MAKERS: &[&str] = &["__getattr__", "__getattribute__", "__setattr__", "__new__", "__class_getitem__"];
/// Text by which a class makes attributes whose names are computed.
const COMPUTED: &[&str] = &["setattr(", "__dict__", "vars(", "__class__ ="];

impl Library<'_> {
    /// Names that a module binds and that are not its interface: private ones, imports, what `__all__` leaves out.
    pub(super) fn undocumented_of_module(&self, id: ModId, documented: &FxHashSet<&str>) -> Vec<String> {
        let mut names = BTreeSet::new();
        self.bound(id, &mut names, &mut Vec::new());
        let package = &self.program.modules[id].file;
        let others = self.program.modules.iter().filter(|_| package.is_package);
        for module in others {
            let below = module
                .file
                .module
                .strip_prefix(package.module.as_str())
                .and_then(|rest| rest.strip_prefix('.'));
            if let Some(name) = below.and_then(|below| below.split('.').next()) {
                names.insert(name.to_owned());
            }
        }
        names.retain(|name| !documented.contains(name.as_str()));
        names.into_iter().collect()
    }

    fn bound(&self, id: ModId, names: &mut BTreeSet<String>, path: &mut Vec<ModId>) {
        if path.contains(&id) {
            return;
        }
        path.push(id);
        let module = &self.program.modules[id];
        let computed =
            ["globals()", "sys.modules[", "vars()"].iter().any(|text| module.file.text.contains(text));
        if computed {
            names.insert(OTHERS.to_owned());
        }
        if let Some(binding) = module.scope.get("__getattr__") {
            let listed = match binding {
                Binding::Function(defs) => defs.last().and_then(|def| answers(module.file.slice(*def))),
                _ => None,
            };
            names.extend(listed.unwrap_or_else(|| vec![OTHERS.to_owned()]));
        }
        names.extend(module.scope.names().map(|(name, _)| name.to_owned()));
        for star in &module.scope.stars {
            match self.program.module(&star.module) {
                Some(source) => self.bound(source, names, path),
                None => drop(names.insert(OTHERS.to_owned())),
            }
        }
        if let Some(stub) = module.stub {
            self.bound(stub, names, path);
        }
    }

    /// Names that objects of the class have and that are no public members: private ones, attributes that methods set, methods that a
    /// decorator may have put on it; as ascending numbers into `names`, to which new ones are added.
    /// [`OTHERS`] for a base class or decorator that is not known, and for attributes made by name.
    pub(super) fn undocumented_of_class(&self, id: ClassId, names: &mut Vec<Rc<str>>) -> Rc<[u32]> {
        let mut hidden = self.hidden.borrow_mut();
        let mut found: Vec<u32> = Vec::new();
        for &owner in self.program.mro(id) {
            let own = match hidden.own.get(&owner) {
                Some(own) => own.clone(),
                None => {
                    let own = self.has_of_its_own(owner);
                    let own: Rc<[u32]> = own.iter().map(|name| hidden.number(name, names)).collect();
                    hidden.own.insert(owner, own.clone());
                    own
                }
            };
            found.extend(own.iter());
        }
        found.extend(self.put_anywhere.iter().map(|name| hidden.number(name, names)));
        found.sort_unstable();
        found.dedup();
        let members: FxHashSet<u32> =
            self.members(id).iter().filter_map(|(name, _, _)| hidden.numbers.get(name).copied()).collect();
        found.retain(|number| !members.contains(number));
        found.into()
    }

    /// What one class of a line brings.
    fn has_of_its_own(&self, owner: ClassId) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let class = &self.program.classes[owner];
        let file = self.program.modules[class.module].file;
        let plain = |base: &Base| match base {
            Base::Known(_) => true,
            Base::Unknown(name) => name.rsplit('.').next().is_some_and(|last| PLAIN_BASES.contains(&last)),
        };
        let arguments = class.def.arguments.as_deref();
        let metaclass = arguments.is_some_and(|arguments| {
            arguments.keywords.iter().any(|keyword| last_name(&keyword.value) != Some("ABCMeta"))
        });
        let starred = arguments
            .is_some_and(|arguments| arguments.args.iter().any(|base| matches!(base, Expr::Starred(_))));
        let decorated = class.def.decorator_list.iter().any(|decorator| {
            !last_name(&decorator.expression).is_some_and(|name| PLAIN_DECORATORS.contains(&name))
        });
        let makes = MAKERS.iter().any(|name| class.scope.get(name).is_some());
        let text = file.slice(class.def);
        let computed = COMPUTED.iter().any(|text_part| text.contains(text_part));
        // Stubs tell type checkers enough, not everything.
        let known = !file.dependency && !file.stub && self.program.bases(owner).iter().all(plain);
        if !known || metaclass || starred || decorated || makes || computed {
            names.insert(OTHERS.to_owned());
        }
        names.extend(class.scope.names().map(|(name, _)| name.to_owned()));
        for receiver in ["self.", "cls."] {
            names.extend(attributes(text, receiver));
        }
        names
    }
}

/// Names by number, so that the long lists of large hierarchies share them.
#[derive(Default)]
pub(super) struct HiddenNames {
    numbers: FxHashMap<Rc<str>, u32>,
    own: FxHashMap<ClassId, Rc<[u32]>>,
}

impl HiddenNames {
    fn number(&mut self, name: &str, names: &mut Vec<Rc<str>>) -> u32 {
        if let Some(&known) = self.numbers.get(name) {
            return known;
        }
        let name: Rc<str> = name.into();
        let number = names.len() as u32;
        names.push(name.clone());
        self.numbers.insert(name, number);
        number
    }
}

/// The names that a module's `__getattr__` answers to, where it compares with literals and refuses all others.
fn answers(text: &str) -> Option<Vec<String>> {
    let computes = ["getattr(", "import_module", "globals", "__dict__"]
        .iter()
        .any(|call| text.match_indices(call).any(|(at, _)| !text[..at].ends_with("def __")));
    if computes || !text.contains("raise AttributeError") {
        return None;
    }
    let quoted = text.split(['"', '\'']).skip(1).step_by(2);
    Some(
        quoted
            .filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

/// The names that follow `receiver` somewhere in `text`.
fn attributes<'t>(text: &'t str, receiver: &'t str) -> impl Iterator<Item = String> + 't {
    text.match_indices(receiver).filter_map(move |(at, _)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.') {
            return None;
        }
        let rest = &text[at + receiver.len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        Some(rest[..end].to_owned())
            .filter(|name| !name.is_empty() && !name.starts_with(|c: char| c.is_numeric()))
    })
}
