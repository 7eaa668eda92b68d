//! What names mean at a place in a file: scopes by indentation, and what assignments in blocks leave behind.

use std::sync::Arc;

use super::library::{Kind, Library, NodeId};

/// A scope with more bindings forgets the oldest, which leaves their names free.
const MAX_BINDINGS: usize = 4096;

/// What is known of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Ty {
    /// Nothing, or something that is none of the library's business: anything may follow.
    #[default]
    Free,
    /// Made by the library or by Python itself, of a type that is not known.
    Unknown,
    Module(NodeId),
    Class(NodeId),
    /// An object of a class, or of one that derives from it.
    Object(NodeId),
    Callable(NodeId),
}

impl Ty {
    /// What a name of the library is.
    pub fn of(library: &Library, id: NodeId) -> Self {
        match library.kind(id) {
            Kind::Module => Self::Module(id),
            Kind::Class => Self::Class(id),
            Kind::Callable => Self::Callable(id),
            Kind::Property | Kind::Value => Self::Free,
        }
    }

    /// `self.name`.
    pub fn attribute(self, library: &Library, name: &str) -> Self {
        match self {
            Self::Free | Self::Callable(_) => Self::Free,
            Self::Unknown => Self::Unknown,
            Self::Module(id) | Self::Class(id) => {
                library.child(id, name).map_or(Self::Free, |child| Self::of(library, child))
            }
            Self::Object(id) => match library.child(id, name) {
                Some(child) => match library.kind(child) {
                    Kind::Property | Kind::Value if library.child_count(child) > 0 => Self::Object(child),
                    Kind::Property | Kind::Value => Self::Unknown,
                    _ => Self::of(library, child),
                },
                None => Self::Free,
            },
        }
    }

    /// `self(...)`.
    pub fn call(self, library: &Library) -> Self {
        match self {
            Self::Free | Self::Module(_) => Self::Free,
            Self::Unknown | Self::Object(_) => Self::Unknown,
            Self::Class(id) => Self::Object(id),
            Self::Callable(id) => library.returns(id).map_or(Self::Unknown, Self::Object),
        }
    }

    /// Whether it is what an import or a definition gives, which code hardly ever assigns anew.
    fn is_lasting(self) -> bool {
        matches!(self, Self::Module(_) | Self::Class(_) | Self::Callable(_))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScopeKind {
    Module,
    Function,
    Class,
}

#[derive(Debug, Clone)]
struct Binding {
    name: Box<str>,
    ty: Ty,
    /// Indentation of the block that binds.
    indent: usize,
}

#[derive(Debug, Clone)]
struct Scope {
    kind: ScopeKind,
    /// Indentation of the line that opened it.
    indent: usize,
    /// The latest last; a name bound in a block stands above its binding outside.
    bindings: Vec<Binding>,
}

/// The scopes around a place, innermost last. Cloning shares them.
#[derive(Debug, Clone)]
pub(super) struct Scopes {
    list: Vec<Arc<Scope>>,
}

impl Default for Scopes {
    fn default() -> Self {
        let module = Scope { kind: ScopeKind::Module, indent: 0, bindings: Vec::new() };
        Self { list: vec![Arc::new(module)] }
    }
}

impl Scopes {
    /// What `name` means here. Of the scopes around the innermost only what lasts is believed: objects may have been
    /// replaced when the inner code runs.
    pub fn lookup(&self, name: &str) -> Ty {
        let innermost = self.list.len() - 1;
        for (i, scope) in self.list.iter().enumerate().rev() {
            if scope.kind == ScopeKind::Class && i < innermost {
                continue;
            }
            if let Some(binding) = scope.bindings.iter().rev().find(|binding| *binding.name == *name) {
                return if i == innermost || binding.ty.is_lasting() { binding.ty } else { Ty::Free };
            }
        }
        Ty::Free
    }

    /// Binds a name in the innermost scope, in a block of this indentation; `conditional`: on a line of its own block.
    pub fn bind(&mut self, name: &str, ty: Ty, indent: usize, conditional: bool) {
        let Some(scope) = self.list.last_mut() else { return };
        let indent = indent.max(scope.indent + usize::from(scope.kind != ScopeKind::Module));
        let scope = Arc::make_mut(scope);
        if let Some(binding) = scope.bindings.iter_mut().rev().find(|binding| *binding.name == *name)
            && (binding.indent >= indent || conditional)
        {
            binding.ty = if conditional && binding.ty != ty { Ty::Free } else { ty };
            return;
        }
        if scope.bindings.len() >= MAX_BINDINGS {
            scope.bindings.drain(..MAX_BINDINGS / 2);
        }
        scope.bindings.push(Binding { name: name.into(), ty, indent });
    }

    /// Forgets what a name means in every scope.
    pub fn forget(&mut self, name: &str) {
        for scope in &mut self.list {
            if scope.bindings.iter().any(|binding| *binding.name == *name && binding.ty != Ty::Free) {
                for binding in &mut Arc::make_mut(scope).bindings {
                    if *binding.name == *name {
                        binding.ty = Ty::Free;
                    }
                }
            }
        }
    }

    pub fn enter(&mut self, kind: ScopeKind, indent: usize) {
        if self.list.len() < 64 {
            self.list.push(Arc::new(Scope { kind, indent, bindings: Vec::new() }));
        }
    }

    /// A statement begins at this indentation: deeper scopes end, and what deeper blocks bound is joined with what was
    /// there before.
    pub fn dedent(&mut self, indent: usize) {
        while self.list.len() > 1 && self.list.last().is_some_and(|scope| indent <= scope.indent) {
            self.list.pop();
        }
        let Some(scope) = self.list.last_mut() else { return };
        if scope.bindings.iter().all(|binding| binding.indent <= indent) {
            return;
        }
        let scope = Arc::make_mut(scope);
        let mut kept: Vec<Binding> = Vec::with_capacity(scope.bindings.len());
        for mut binding in std::mem::take(&mut scope.bindings) {
            if binding.indent > indent {
                binding.indent = indent.max(scope.indent + usize::from(scope.kind != ScopeKind::Module));
                if let Some(outer) = kept.iter_mut().rev().find(|outer| outer.name == binding.name) {
                    if outer.ty != binding.ty {
                        outer.ty = Ty::Free;
                    }
                    continue;
                }
            }
            kept.push(binding);
        }
        scope.bindings = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_join_and_scopes_end() {
        let mut scopes = Scopes::default();
        scopes.bind("x", Ty::Object(1), 0, false);
        scopes.bind("m", Ty::Module(1), 0, false);
        scopes.bind("x", Ty::Object(2), 4, false);
        scopes.bind("y", Ty::Object(3), 4, false);
        assert_eq!(scopes.lookup("x"), Ty::Object(2));
        scopes.dedent(0);
        assert_eq!((scopes.lookup("x"), scopes.lookup("y")), (Ty::Free, Ty::Object(3)));
        scopes.enter(ScopeKind::Class, 0);
        scopes.bind("z", Ty::Object(4), 4, false);
        scopes.enter(ScopeKind::Function, 4);
        assert_eq!(
            (scopes.lookup("z"), scopes.lookup("y"), scopes.lookup("m")),
            (Ty::Free, Ty::Free, Ty::Module(1))
        );
        scopes.bind("m", Ty::Free, 8, false);
        assert_eq!(scopes.lookup("m"), Ty::Free);
        scopes.dedent(0);
        assert_eq!((scopes.lookup("m"), scopes.lookup("y")), (Ty::Module(1), Ty::Object(3)));
        scopes.bind("y", Ty::Object(5), 0, true);
        assert_eq!(scopes.lookup("y"), Ty::Free);
        scopes.forget("m");
        assert_eq!(scopes.lookup("m"), Ty::Free);
    }
}
