//! Static evaluation of the expressions that supply docstrings, names and members. What is not known is
//! [`Val::Unknown`]; nothing is ever run.

use std::rc::Rc;

use ruff_python_ast::{BoolOp, Expr, ExprCall, Number, Operator};
use rustc_hash::FxHashMap;

use super::library::Library;
use super::members::{Bound, Made, MadeKind, Member};
use super::program::{ClassId, ModId, Target, Value};
use super::scope::{Binding, Update};
use super::value::{MAX_ITEMS, MAX_STRING, Val, binary, comparison};

/// Nesting of evaluations.
const MAX_DEPTH: usize = 60;

/// Where an expression stands: its module, the class body it is in, local names of a function.
pub(super) struct Frame<'a> {
    pub module: ModId,
    pub class: Option<ClassId>,
    pub locals: FxHashMap<Rc<str>, Val<'a>>,
    pub depth: usize,
}

impl<'a> Frame<'a> {
    pub fn new(module: ModId, class: Option<ClassId>) -> Self {
        Frame { module, class, locals: FxHashMap::default(), depth: 0 }
    }
}

impl<'a> Library<'a> {
    /// The value of `expr`.
    pub(super) fn eval(&self, expr: &'a Expr, frame: &mut Frame<'a>) -> Val<'a> {
        if frame.depth > MAX_DEPTH || !self.spend() {
            return Val::Unknown;
        }
        frame.depth += 1;
        let value = self.eval_inner(expr, frame);
        frame.depth -= 1;
        value
    }

    fn eval_inner(&self, expr: &'a Expr, frame: &mut Frame<'a>) -> Val<'a> {
        match expr {
            Expr::StringLiteral(literal) => Val::string(literal.value.to_str()),
            Expr::NumberLiteral(literal) => match &literal.value {
                Number::Int(int) => int.as_i64().map_or(Val::Unknown, Val::Int),
                _ => Val::Unknown,
            },
            Expr::BooleanLiteral(literal) => Val::Bool(literal.value),
            Expr::NoneLiteral(_) => Val::None,
            Expr::FString(_) => self.f_string(expr, frame),
            Expr::Name(name) => self.name(name.id.as_str(), frame),
            Expr::Attribute(attribute) => {
                let owner = self.eval(&attribute.value, frame);
                self.attribute(&owner, attribute.attr.as_str(), frame)
            }
            Expr::Subscript(subscript) => {
                let key = self.eval(&subscript.slice, frame);
                // `shared["x"]` whose item is set apart from the dictionary.
                if let (Expr::Name(name), Some(key)) = (&*subscript.value, key.as_str())
                    && !frame.locals.contains_key(name.id.as_str())
                    && let Some(value) = self.item_set_later(name.id.as_str(), key, frame)
                {
                    return value;
                }
                match (self.eval(&subscript.value, frame), key) {
                    (Val::Dict(items), Val::Str(key)) => items
                        .iter()
                        .rev()
                        .find(|(name, _)| *name == key)
                        .map_or(Val::Unknown, |(_, v)| v.clone()),
                    (Val::List(items), Val::Int(at)) => {
                        let at = if at < 0 { at + items.len() as i64 } else { at };
                        usize::try_from(at).ok().and_then(|at| items.get(at).cloned()).unwrap_or(Val::Unknown)
                    }
                    (target @ Val::Target(Target::Class(_) | Target::External(_)), _) => target,
                    _ => Val::Unknown,
                }
            }
            Expr::List(list) => self.sequence(&list.elts, frame),
            Expr::Tuple(tuple) => self.sequence(&tuple.elts, frame),
            Expr::Set(set) => self.sequence(&set.elts, frame),
            Expr::Dict(dict) => {
                let mut items = Vec::new();
                for item in &dict.items {
                    let value = self.eval(&item.value, frame);
                    match &item.key {
                        None => {
                            if let Val::Dict(more) = value {
                                items.extend(more.iter().cloned());
                            }
                        }
                        Some(key) => {
                            if let Val::Str(key) = self.eval(key, frame) {
                                items.push((key, value));
                            }
                        }
                    }
                }
                Val::dict(items)
            }
            Expr::BinOp(operation) => {
                let left = self.eval(&operation.left, frame);
                let right = self.eval(&operation.right, frame);
                binary(operation.op, left, right)
            }
            Expr::BoolOp(operation) => {
                let mut last = Val::Unknown;
                for value in &operation.values {
                    last = self.eval(value, frame);
                    match (operation.op, last.truth()) {
                        (BoolOp::Or, Some(true)) | (BoolOp::And, Some(false)) => return last,
                        (_, None) => return Val::Unknown,
                        _ => {}
                    }
                }
                last
            }
            Expr::UnaryOp(operation) => {
                let value = self.eval(&operation.operand, frame);
                match (operation.op, value) {
                    (ruff_python_ast::UnaryOp::Not, value) => {
                        value.truth().map_or(Val::Unknown, |truth| Val::Bool(!truth))
                    }
                    (ruff_python_ast::UnaryOp::USub, Val::Int(value)) => {
                        value.checked_neg().map_or(Val::Unknown, Val::Int)
                    }
                    _ => Val::Unknown,
                }
            }
            Expr::Compare(compare) if compare.ops.len() == 1 => {
                let left = self.eval(&compare.left, frame);
                let right = self.eval(&compare.comparators[0], frame);
                comparison(compare.ops[0], &left, &right)
            }
            Expr::If(choice) => match self.eval(&choice.test, frame).truth() {
                Some(true) => self.eval(&choice.body, frame),
                Some(false) => self.eval(&choice.orelse, frame),
                None => match self.eval(&choice.body, frame) {
                    Val::Unknown => self.eval(&choice.orelse, frame),
                    value => value,
                },
            },
            Expr::ListComp(comprehension) => {
                self.comprehension(&comprehension.elt, &comprehension.generators, frame)
            }
            Expr::SetComp(comprehension) => {
                self.comprehension(&comprehension.elt, &comprehension.generators, frame)
            }
            Expr::Generator(comprehension) => {
                self.comprehension(&comprehension.elt, &comprehension.generators, frame)
            }
            Expr::DictComp(comprehension) => {
                let Some(key) = &comprehension.key else { return Val::Unknown };
                let mut items = Vec::new();
                for frame_values in self.iterate(&comprehension.generators, frame) {
                    frame.locals.extend(frame_values);
                    if let Val::Str(key) = self.eval(key, frame) {
                        items.push((key, self.eval(&comprehension.value, frame)));
                    }
                }
                Val::dict(items)
            }
            Expr::Call(call) => self.call(call, frame),
            _ => Val::Unknown,
        }
    }

    fn f_string(&self, expr: &'a Expr, frame: &mut Frame<'a>) -> Val<'a> {
        use ruff_python_ast::{FStringPart, InterpolatedStringElement};
        let Expr::FString(string) = expr else { return Val::Unknown };
        let mut out = String::new();
        for part in &string.value {
            match part {
                FStringPart::Literal(literal) => out.push_str(&literal.value),
                FStringPart::FString(string) => {
                    for element in &string.elements {
                        match element {
                            InterpolatedStringElement::Literal(literal) => out.push_str(&literal.value),
                            InterpolatedStringElement::Interpolation(field) => {
                                match self.eval(&field.expression, frame).display() {
                                    Some(text) => out.push_str(&text),
                                    None => {
                                        let file = self.program.modules[frame.module].file;
                                        out.push_str(file.slice(&*field.expression));
                                    }
                                }
                            }
                        }
                    }
                }
            }
            if out.len() > MAX_STRING {
                return Val::Unknown;
            }
        }
        Val::string(out)
    }

    fn sequence(&self, elements: &'a [Expr], frame: &mut Frame<'a>) -> Val<'a> {
        let mut items = Vec::new();
        for element in elements {
            if let Expr::Starred(starred) = element {
                match self.eval(&starred.value, frame) {
                    Val::List(more) => items.extend(more.iter().cloned()),
                    Val::Dict(more) => items.extend(more.iter().map(|(key, _)| Val::Str(key.clone()))),
                    _ => {}
                }
            } else {
                items.push(self.eval(element, frame));
            }
            if items.len() > MAX_ITEMS {
                return Val::Unknown;
            }
        }
        Val::list(items)
    }

    fn comprehension(
        &self,
        element: &'a Expr,
        generators: &'a [ruff_python_ast::Comprehension],
        frame: &mut Frame<'a>,
    ) -> Val<'a> {
        let mut items = Vec::new();
        for values in self.iterate(generators, frame) {
            frame.locals.extend(values);
            items.push(self.eval(element, frame));
        }
        Val::list(items)
    }

    /// The local names of each round of a comprehension with one generator.
    fn iterate(
        &self,
        generators: &'a [ruff_python_ast::Comprehension],
        frame: &mut Frame<'a>,
    ) -> Vec<Vec<(Rc<str>, Val<'a>)>> {
        let [generator] = generators else { return Vec::new() };
        let Some(items) = self.items_of(&generator.iter, frame) else { return Vec::new() };
        let mut rounds = Vec::new();
        for item in items {
            let mut names = Vec::new();
            bind_target(&generator.target, item, &mut names);
            frame.locals.extend(names.iter().cloned());
            let kept = generator.ifs.iter().all(|test| self.eval(test, frame).truth() != Some(false));
            if kept {
                rounds.push(names);
            }
        }
        rounds
    }

    /// What a loop over `expr` yields.
    pub(super) fn items_of(&self, expr: &'a Expr, frame: &mut Frame<'a>) -> Option<Vec<Val<'a>>> {
        match self.eval(expr, frame) {
            Val::List(items) => Some(items.to_vec()),
            Val::Dict(items) => Some(items.iter().map(|(key, _)| Val::Str(key.clone())).collect()),
            _ => None,
        }
    }

    fn name(&self, name: &str, frame: &mut Frame<'a>) -> Val<'a> {
        if let Some(value) = frame.locals.get(name) {
            return value.clone();
        }
        let mut at = frame.class;
        while let Some(id) = at {
            let class = &self.program.classes[id];
            if let Some(binding) = class.scope.get(name) {
                return self.binding_value(frame.module, Some(id), name, binding);
            }
            at = class.outer;
        }
        self.module_name(frame.module, name)
    }

    fn module_name(&self, module: ModId, name: &str) -> Val<'a> {
        if name == "__name__" {
            return Val::string(self.module_name_of(module));
        }
        if name == "__all__" {
            return match self.listed_names(module) {
                (Some(names), false) => Val::list(names.into_iter().map(Val::Str).collect()),
                _ => Val::Unknown,
            };
        }
        if name == "__doc__"
            && let Some(Expr::StringLiteral(doc)) = self.program.modules[module].scope.docstring
        {
            return Val::string(doc.value.to_str());
        }
        if let Some(binding @ Binding::Value(_)) = self.program.modules[module].scope.get(name) {
            return self.binding_value(module, None, name, binding);
        }
        match self.program.resolve(module, name) {
            Some(target) => self.target_value(target),
            None => Val::Unknown,
        }
    }

    fn binding_value(
        &self,
        module: ModId,
        class: Option<ClassId>,
        name: &str,
        binding: &Binding<'a>,
    ) -> Val<'a> {
        match binding {
            Binding::Value(assigned) => {
                let value = Value { module, class, assigned: *assigned };
                let evaluated = self.value_of(&value, Some(name));
                if let Val::Unknown = evaluated {
                    return match self.program.target(module, class, binding, 0) {
                        Some(Target::Value(value)) => Val::Target(Target::Value(value)),
                        Some(other) => self.target_value(other),
                        None => Val::Unknown,
                    };
                }
                evaluated
            }
            _ => self
                .program
                .target(module, class, binding, 0)
                .map_or(Val::Unknown, |target| self.target_value(target)),
        }
    }

    /// A target as a value: assigned names are evaluated where they stand.
    pub(super) fn target_value(&self, target: Target<'a>) -> Val<'a> {
        if let Target::Value(value) = &target {
            let name = self.assigned_name(value);
            return match self.value_of(value, name) {
                Val::Unknown => Val::Target(target),
                known => known,
            };
        }
        Val::Target(target)
    }

    fn assigned_name(&self, value: &Value<'a>) -> Option<&'a str> {
        let text = &self.program.modules[value.module].file.text;
        let start = value.assigned.range.start().to_usize();
        let rest = text.get(start..)?;
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        rest.get(..end)
    }

    /// The value of an assigned name with its later changes; evaluated once.
    pub(super) fn value_of(&self, value: &Value<'a>, name: Option<&str>) -> Val<'a> {
        let Some(expr) = value.assigned.value else { return Val::Unknown };
        let key = std::ptr::from_ref(expr) as usize;
        if let Some(known) = self.values.borrow().get(&key) {
            return known.clone();
        }
        // A name that leads back to itself is unknown while it is evaluated.
        self.values.borrow_mut().insert(key, Val::Unknown);
        let mut frame = Frame::new(value.module, value.class);
        let mut result = self.eval(expr, &mut frame);
        let scope = match value.class {
            Some(class) => &self.program.classes[class].scope,
            None => &self.program.modules[value.module].scope,
        };
        if let Some(updates) = name.and_then(|name| scope.updates.get(name)) {
            for update in updates {
                result = self.updated(result, update, &mut frame);
            }
        }
        self.values.borrow_mut().insert(key, result.clone());
        result
    }

    fn updated(&self, value: Val<'a>, update: &Update<'a>, frame: &mut Frame<'a>) -> Val<'a> {
        match (value, update) {
            (Val::Dict(items), Update::Item(key, item)) => {
                let Val::Str(key) = self.eval(key, frame) else { return Val::Dict(items) };
                let mut items = items.to_vec();
                items.push((key, self.eval(item, frame)));
                Val::dict(items)
            }
            (Val::Dict(items), Update::Merge(Expr::Call(call))) => {
                Val::dict(self.merged(items.to_vec(), call, frame))
            }
            (value @ (Val::Str(_) | Val::List(_)), Update::Extend(more)) => {
                let more = self.eval(more, frame);
                binary(Operator::Add, value, more)
            }
            (value, _) => value,
        }
    }

    /// The items of a dictionary after `update(...)` or of `dict(...)`.
    pub(super) fn merged(
        &self,
        mut items: Vec<(Rc<str>, Val<'a>)>,
        call: &'a ExprCall,
        frame: &mut Frame<'a>,
    ) -> Vec<(Rc<str>, Val<'a>)> {
        for argument in &call.arguments.args {
            if let Val::Dict(more) = self.eval(argument, frame) {
                items.extend(more.iter().cloned());
            }
        }
        for keyword in &call.arguments.keywords {
            let value = self.eval(&keyword.value, frame);
            match (&keyword.arg, value) {
                (Some(name), value) => items.push((name.as_str().into(), value)),
                (None, Val::Dict(more)) => items.extend(more.iter().cloned()),
                _ => {}
            }
        }
        items
    }

    /// `name[key] = value` in the module or class at hand, where `name` was imported.
    fn item_set_later(&self, name: &str, key: &str, frame: &mut Frame<'a>) -> Option<Val<'a>> {
        let mut module = frame.module;
        let mut name = name;
        let mut class = frame.class;
        // Whoever imports the dictionary may set items too, as may the class bodies of the module it comes from.
        for hop in 0..4 {
            let classes = self.program.classes.iter().enumerate();
            let scopes = classes
                .filter(|(id, other)| Some(*id) == class || (hop > 0 && other.module == module))
                .map(|(id, other)| (Some(id), &other.scope))
                .chain([(None, &self.program.modules[module].scope)]);
            for (class, scope) in scopes {
                let Some(updates) = scope.updates.get(name) else { continue };
                for update in updates.iter().rev() {
                    if let Update::Item(Expr::StringLiteral(literal), value) = update
                        && literal.value.to_str() == key
                    {
                        let mut inner = Frame::new(module, class);
                        inner.depth = MAX_DEPTH / 2;
                        return Some(self.eval(value, &mut inner));
                    }
                }
            }
            let Some(Binding::Import(import)) = self.program.modules[module].scope.get(name) else { break };
            module = self.program.module(&import.module)?;
            name = import.name?;
            class = None;
        }
        None
    }

    fn attribute(&self, owner: &Val<'a>, name: &str, frame: &Frame<'a>) -> Val<'a> {
        match (owner, name) {
            (Val::Target(target), "__doc__") => {
                if frame.depth > MAX_DEPTH / 2 {
                    return Val::Unknown;
                }
                self.doc_of_target(target).map_or(Val::None, Val::Str)
            }
            (Val::Made(made), "__doc__") => made.doc.clone().map_or(Val::None, Val::Str),
            (Val::Target(Target::Class(id)), "__name__") => {
                Val::string(self.program.classes[*id].def.name.as_str())
            }
            (Val::Target(Target::Function(function)), "__name__") => {
                Val::string(function.main().name.as_str())
            }
            (Val::Target(Target::Module(id)), "__all__") => match self.listed_names(*id) {
                (Some(names), false) => Val::list(names.into_iter().map(Val::Str).collect()),
                _ => Val::Unknown,
            },
            (Val::Target(target @ (Target::Class(_) | Target::Function(_))), "__module__") => {
                let module = match target {
                    Target::Class(id) => self.program.classes[*id].module,
                    Target::Function(function) => function.module,
                    _ => return Val::Unknown,
                };
                Val::string(self.module_name_of(module))
            }
            (Val::Target(Target::Value(value)), _) => self.attribute_of_object(value, name),
            (Val::Target(Target::Module(id)), _) => self.module_name(*id, name),
            (Val::Target(target @ Target::Class(_)), _) => self
                .program
                .attribute(target, name, 0)
                .map_or(Val::Unknown, |target| self.target_value(target)),
            (Val::Target(target @ Target::External(_)), _) => {
                self.program.attribute(target, name, 0).map_or(Val::Unknown, Val::Target)
            }
            _ => Val::Unknown,
        }
    }

    /// An attribute of an object that an assigned name stands for: a method, bound.
    fn attribute_of_object(&self, object: &Value<'a>, name: &str) -> Val<'a> {
        let Some(class) = self.class_of_value(object) else { return Val::Unknown };
        match self.find_member(class, name) {
            Some((_, Member::Function(function))) => {
                let taken = match self.method_kind(&function) {
                    MadeKind::Property => return Val::Unknown,
                    MadeKind::Static => 0,
                    MadeKind::Function | MadeKind::Class => 1,
                };
                let doc = self.doc_of_function(&function);
                let bound = Bound { positional: taken, keywords: Vec::new() };
                Val::Made(Rc::new(Made { kind: MadeKind::Static, doc, function, bound }))
            }
            _ => Val::Unknown,
        }
    }

    pub(super) fn attribute_value(&self, owner: &Val<'a>, name: &str, frame: &Frame<'a>) -> Val<'a> {
        self.attribute(owner, name, frame)
    }
}

/// Binds a loop's target (a name or a tuple of names).
pub(super) fn bind_target<'a>(target: &Expr, value: Val<'a>, names: &mut Vec<(Rc<str>, Val<'a>)>) {
    match target {
        Expr::Name(name) => names.push((name.id.as_str().into(), value)),
        Expr::Tuple(tuple) => {
            for (i, element) in tuple.elts.iter().enumerate() {
                let item = match &value {
                    Val::List(items) => items.get(i).cloned().unwrap_or(Val::Unknown),
                    _ => Val::Unknown,
                };
                if let Expr::Name(name) = element {
                    names.push((name.id.as_str().into(), item));
                }
            }
        }
        _ => {}
    }
}
