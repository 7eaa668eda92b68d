//! What the tracker remembers of brackets and of the statement.

use crate::constrain::library::NodeId;
use crate::constrain::scope::Ty;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Param {
    Name,
    Annotation,
    Default,
}

/// An open bracket, or the statement itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Frame {
    /// The byte that opened it; `f` for a replacement field, 0 for the statement.
    pub open: u8,
    /// It follows a value: a call or subscript of it.
    pub applied: bool,
    /// What stands here once it is closed; in a group what stands in it.
    pub result: Option<Ty>,
    /// The callable whose keywords are known.
    pub callee: Option<NodeId>,
    pub narrowing: bool,
    /// In the parameters of a `def`.
    pub param: Option<Param>,
    pub param_name: Option<Box<str>>,
    /// There is a value before this place.
    pub operand: Option<Ty>,
    /// That value is a bare name.
    pub name: Option<Box<str>>,
    /// Something else than one value stands in this element.
    pub compound: bool,
    /// Nothing stands before this place in this argument or element.
    pub fresh: bool,
    /// A comma came by.
    pub many: bool,
    pub in_for: bool,
    pub in_lambda: bool,
    pub format: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Statement {
    #[default]
    Plain,
    /// `if`, `for`, `with`, ...: a block follows the colon.
    Block,
    Import,
    /// Before the `import` of a `from`.
    From,
    FromNames,
    Def,
    Class,
    /// `global`, `nonlocal`.
    Global,
    Case,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    pub kind: Statement,
    pub indent: usize,
    /// Nothing of the statement is there yet.
    pub start: bool,
    /// It stands on the line of its own block.
    pub conditional: bool,
    pub targets: Vec<Box<str>>,
    pub loose_targets: Vec<Box<str>>,
    pub tuple: bool,
    pub assigned: bool,
    /// After `x:`; without a name where the target is no bare name.
    pub annotated: Option<Option<Box<str>>>,
    pub annotation: Option<Ty>,
    /// In imports: the top-level name, the module so far, an alias is due, after a dot.
    pub top: Option<Box<str>>,
    pub module: Option<NodeId>,
    pub relative: bool,
    pub imported: Option<(Box<str>, Ty)>,
    pub alias: bool,
    /// The next bare names are bound: after `as`.
    pub binds: bool,
}
