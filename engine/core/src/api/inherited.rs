//! What rows of `apis.jsonl` leave out because base classes say it, and how it is put back.
//!
//! A member that a class inherits is one record with a name in each class. In a hierarchy of thousands of classes these names would be most of
//! the file, and so would the attributes that every class has from its base classes. There a row names only what does
//! not follow from the rows of its base classes.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{ApiDoc, ApiKind};

/// In [`ApiDoc::undocumented`] of a row: and what the base classes list, but for names behind a `-`.
pub const OF_BASES: &str = "^";
/// Classes that inherit a member that a row names one by one.
pub(crate) const MAX_NAMED_HEIRS: usize = 1000;
/// Undocumented names of base classes that a row repeats.
const MAX_REPEATED: usize = 16;

/// The classes of a set of records: where each stands, and its base classes among them.
struct Classes<'a> {
    by_name: FxHashMap<&'a str, u32>,
    /// Of each the number of its record, in their order.
    records: Vec<usize>,
    bases: Vec<Vec<u32>>,
}

impl<'a> Classes<'a> {
    fn new(apis: &'a [ApiDoc]) -> Self {
        let mut by_name = FxHashMap::default();
        let mut records = Vec::new();
        for (at, api) in apis.iter().enumerate() {
            if api.kind == Some(ApiKind::Class) && !api.qualified_name.is_empty() {
                by_name.entry(api.qualified_name.as_str()).or_insert_with(|| {
                    records.push(at);
                    records.len() as u32 - 1
                });
            }
        }
        let bases_of =
            |&at: &usize| apis[at].bases.iter().filter_map(|base| by_name.get(base.as_str()).copied());
        let bases = records.iter().map(|at| bases_of(at).collect()).collect();
        Self { by_name, records, bases }
    }

    /// Base classes before those that derive from them; classes in a circle stand where they are met.
    fn order(&self) -> Vec<u32> {
        let mut order = Vec::with_capacity(self.records.len());
        let mut seen = vec![false; self.records.len()];
        for start in 0..self.records.len() as u32 {
            let mut open = vec![(start, 0)];
            while let Some((class, next)) = open.pop() {
                if next == 0 && std::mem::replace(&mut seen[class as usize], true) {
                    continue;
                }
                match self.bases[class as usize].get(next) {
                    Some(&base) => {
                        open.push((class, next + 1));
                        if !seen[base as usize] {
                            open.push((base, 0));
                        }
                    }
                    None => order.push(class),
                }
            }
        }
        order
    }

    /// The classes to which base classes bring a member of one name, with the number of its record. `bound` says what the
    /// name is in classes that name it themselves, `follows` whether a record's heirs are left out.
    fn heirs(
        &self,
        order: &[u32],
        bound: &FxHashMap<u32, usize>,
        follows: &dyn Fn(usize) -> bool,
    ) -> Vec<(u32, usize)> {
        let mut known = bound.clone();
        let mut found = Vec::new();
        for &class in order {
            if known.contains_key(&class) {
                continue;
            }
            let mut bases = self.bases[class as usize].iter();
            if let Some(&record) = bases.find_map(|base| known.get(base)).filter(|record| follows(**record)) {
                known.insert(class, record);
                found.push((class, record));
            }
        }
        found
    }
}

/// What the bare `names` are in each class, as far as `apis` say so themselves.
fn bindings<'n>(
    apis: &[ApiDoc],
    classes: &Classes<'_>,
    names: &FxHashSet<&'n str>,
) -> FxHashMap<&'n str, FxHashMap<u32, usize>> {
    let mut bound: FxHashMap<&'n str, FxHashMap<u32, usize>> =
        names.iter().map(|name| (*name, FxHashMap::default())).collect();
    let mut bind = |full: &str, record: usize| {
        if let Some((owner, name)) = full.rsplit_once('.')
            && let Some(of_name) = bound.get_mut(name)
            && let Some(&class) = classes.by_name.get(owner)
        {
            of_name.entry(class).or_insert(record);
        }
    };
    for (record, api) in apis.iter().enumerate() {
        bind(&api.qualified_name, record);
    }
    for (record, api) in apis.iter().enumerate() {
        for alias in &api.aliases {
            bind(alias, record);
        }
    }
    bound
}

/// Puts back the names that rows leave out because base classes say them: afterwards [`ApiDoc::aliases`] names every class
/// that a member is seen in, and [`ApiDoc::undocumented`] everything that a class has.
pub fn expand(apis: &mut [ApiDoc]) {
    let short = |api: &ApiDoc| api.undocumented.iter().flatten().any(|name| name == OF_BASES);
    if !apis.iter().any(|api| api.inherited_by > 0 || short(api)) {
        return;
    }
    let all: &[ApiDoc] = apis;
    let classes = Classes::new(all);
    let order = classes.order();
    let followed = all.iter().filter(|api| api.inherited_by > 0);
    let names: FxHashSet<&str> = followed.map(|api| api.name.as_str()).collect();
    let mut more: Vec<(usize, String)> = Vec::new();
    for (name, bound) in bindings(all, &classes, &names) {
        for (class, record) in classes.heirs(&order, &bound, &|record| all[record].inherited_by > 0) {
            let owner = &all[classes.records[class as usize]].qualified_name;
            more.push((record, format!("{owner}.{name}")));
        }
    }
    more.sort_unstable();
    let mut hidden: Vec<(usize, Vec<String>)> = Vec::new();
    let mut at_class: FxHashMap<u32, usize> = FxHashMap::default();
    for &class in &order {
        let record = classes.records[class as usize];
        let Some(written) = all[record].undocumented.as_ref().filter(|_| short(&all[record])) else {
            continue;
        };
        let without: FxHashSet<&str> = written.iter().filter_map(|name| name.strip_prefix('-')).collect();
        let of_bases = classes.bases[class as usize].iter().flat_map(|base| match at_class.get(base) {
            Some(&known) => hidden[known].1.as_slice(),
            None => all[classes.records[*base as usize]].undocumented.as_deref().unwrap_or_default(),
        });
        let own = written.iter().filter(|name| *name != OF_BASES && !name.starts_with('-'));
        let mut full: Vec<String> = of_bases
            .filter(|name| *name != OF_BASES && !name.starts_with('-') && !without.contains(name.as_str()))
            .chain(own)
            .cloned()
            .collect();
        full.sort_unstable();
        full.dedup();
        at_class.insert(class, hidden.len());
        hidden.push((record, full));
    }
    for (record, alias) in more {
        apis[record].aliases.push(alias);
    }
    for (record, full) in hidden {
        apis[record].undocumented = Some(full);
    }
    for api in apis {
        api.inherited_by = 0;
    }
}

/// The classes that inherit members, by numbers into a list of their names.
#[derive(Default)]
pub(crate) struct Heirs {
    /// Qualified names of classes.
    pub owners: Vec<String>,
    /// Number of a member's record, and the classes that inherit the member.
    pub of: Vec<(usize, Vec<u32>)>,
}

/// Adds to the records the names that their members have in the classes which inherit them; [`expand`] finds those that
/// are left out.
pub(crate) fn name_heirs(apis: &mut [ApiDoc], heirs: Heirs) {
    let Heirs { owners, of } = heirs;
    let (large, small): (Vec<_>, Vec<_>) = of.into_iter().partition(|(_, of)| of.len() > MAX_NAMED_HEIRS);
    let full = |owner: u32, name: &str| format!("{}.{name}", owners[owner as usize]);
    for (record, of) in small {
        let api = &mut apis[record];
        let names: Vec<String> = of.into_iter().map(|owner| full(owner, &api.name)).collect();
        api.aliases.extend(names);
    }
    let all: &[ApiDoc] = apis;
    let classes = Classes::new(all);
    let order = classes.order();
    let names: FxHashSet<&str> = large.iter().map(|(record, _)| all[*record].name.as_str()).collect();
    let mut bound = bindings(all, &classes, &names);
    let mut named: Vec<(usize, Vec<u32>, usize)> = Vec::new();
    for name in names {
        let members: FxHashMap<usize, &[u32]> = large
            .iter()
            .filter(|(record, _)| all[*record].name == name)
            .map(|(record, of)| (*record, of.as_slice()))
            .collect();
        let class_of = |owner: &u32| classes.by_name.get(owners[*owner as usize].as_str()).copied();
        let wanted: FxHashMap<u32, usize> = members
            .iter()
            .flat_map(|(record, of)| of.iter().filter_map(class_of).map(|class| (class, *record)))
            .collect();
        let mut of_name = bound.remove(name).unwrap_or_default();
        // What base classes do not bring is named; that may change what they bring.
        let mut left_out = loop {
            let found = classes.heirs(&order, &of_name, &|record| members.contains_key(&record));
            let found: FxHashMap<u32, usize> = found.into_iter().collect();
            if found.iter().any(|(class, record)| wanted.get(class).is_some_and(|right| right != record)) {
                let wrong =
                    found.iter().filter(|(class, record)| wanted.get(class).is_some_and(|r| r != *record));
                of_name.extend(wrong.map(|(class, _)| (*class, wanted[class])).collect::<Vec<_>>());
                continue;
            }
            let missing: Vec<(u32, usize)> = wanted
                .iter()
                .filter(|(class, _)| !found.contains_key(*class) && !of_name.contains_key(*class))
                .map(|(class, record)| (*class, *record))
                .collect();
            if missing.is_empty() {
                break found;
            }
            of_name.extend(missing);
        };
        // Base classes that bring it to a class that does not have it: the names are given one by one.
        if left_out.keys().any(|class| !wanted.contains_key(class)) {
            left_out.clear();
        }
        for (&record, of) in &members {
            let follows = |owner: &&u32| class_of(owner).is_some_and(|class| left_out.contains_key(&class));
            let (out, explicit): (Vec<&u32>, Vec<&u32>) = of.iter().partition(follows);
            named.push((record, explicit.into_iter().copied().collect(), out.len()));
        }
    }
    for (record, explicit, out) in named {
        let api = &mut apis[record];
        let names: Vec<String> = explicit.into_iter().map(|owner| full(owner, &api.name)).collect();
        api.aliases.extend(names);
        api.inherited_by = out;
    }
}

/// Undocumented names of classes, by numbers into a list of names.
#[derive(Default)]
pub(crate) struct Hidden {
    /// The names.
    pub names: Vec<std::rc::Rc<str>>,
    /// By qualified name of the class: ascending numbers.
    pub of: FxHashMap<String, std::rc::Rc<[u32]>>,
}

/// Gives each class its undocumented names, but for those that its base classes list, where these are many.
pub(crate) fn name_hidden(apis: &mut [ApiDoc], hidden: &Hidden) {
    let all: &[ApiDoc] = apis;
    let classes = Classes::new(all);
    let mut stood = vec![usize::MAX; classes.records.len()];
    for (at, &class) in classes.order().iter().enumerate() {
        stood[class as usize] = at;
    }
    let text = |id: &u32| hidden.names[*id as usize].to_string();
    let mut rows = Vec::new();
    for (class, &record) in classes.records.iter().enumerate() {
        let Some(full) = hidden.of.get(&all[record].qualified_name) else { continue };
        // A base class that stands behind (a circle) has nothing to give when rows are put back.
        let before = classes.bases[class].iter().filter(|base| stood[**base as usize] < stood[class]);
        let in_circle = before.clone().count() != classes.bases[class].len();
        let of_bases: FxHashSet<u32> = before
            .filter_map(|base| hidden.of.get(&all[classes.records[*base as usize]].qualified_name))
            .flat_map(|of| of.iter().copied())
            .collect();
        let own: FxHashSet<u32> = full.iter().copied().collect();
        let repeated = of_bases.intersection(&own).count();
        let mut row: Vec<String> = if repeated > MAX_REPEATED && !in_circle {
            let without = of_bases.difference(&own).map(|id| format!("-{}", text(id)));
            let more = full.iter().filter(|id| !of_bases.contains(id)).map(text);
            std::iter::once(OF_BASES.to_owned()).chain(without).chain(more).collect()
        } else {
            full.iter().map(text).collect()
        };
        row.sort_unstable();
        rows.push((record, row));
    }
    for (record, row) in rows {
        apis[record].undocumented = Some(row);
    }
}
