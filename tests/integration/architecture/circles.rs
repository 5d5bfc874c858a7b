//! The graph of the files of src: which file depends on which, and its circles.
//!
//! Does not see a dependency that names nothing, such as a call of a method.

use std::collections::{BTreeMap, VecDeque};

use super::{
    File,
    paths::{Import, Named},
};

/// How many imports are followed from a name to its definition. Only imports of each other would take more.
const IMPORTS_MAX: usize = 16;

/// Siblings, each with all the files below it, do not depend on each other in a circle. So every module can be read
/// after those that it uses.
///
/// A file depends on the files that define what it names. An item that a module re-exports counts for the file that
/// defines it, so a file may take its sibling's items from their parent. A module's own file and the files below it may
/// use each other: the children are its parts, and share its types. What only unit tests use does not count.
pub(super) fn dependencies_have_no_circle(files: &[File]) -> Vec<String> {
    let sources = Sources::of(files);
    let mut siblings = sources.siblings();
    let modules: Vec<String> = siblings.keys().cloned().collect();
    let mut wrong = Vec::new();
    for module in &modules {
        if let Some(circle) = shortest_circle(&siblings, module) {
            let (file, line, _) = circle[0];
            let path: Vec<String> =
                circle.iter().map(|(file, line, next)| format!("uses `{next}` ({}:{line})", file.path)).collect();
            wrong.push(file.wrong(
                line,
                &format!("`{module}` {}: a circle", path.join(", which ")),
                "move what both use to a file that depends on neither, or pass it as an argument",
            ));
        }
        // Every circle through this module is in the one message.
        siblings.remove(module);
    }
    wrong
}

/// No import and no re-export of the library stands for all names of a module, except in unit tests: it would hide which
/// files a file depends on, also from the rule above.
pub(super) fn imports_name_each_item(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for Source { file, named } in Sources::of(files).0.values() {
        for Import { found, .. } in named.imports.iter().filter(|import| import.name == "*") {
            let what = format!("`{}::*` hides what it imports", found.path.join("::"));
            wrong.push(file.wrong(found.line, &what, "name each item"));
        }
    }
    wrong
}

/// For each module the siblings that it depends on, each with the first file and line that name it.
type Siblings<'a> = BTreeMap<String, BTreeMap<String, (&'a File, usize)>>;

/// The shortest way from a module over its siblings back to itself: each step with the file and line that it is in.
fn shortest_circle<'a>(siblings: &'a Siblings<'a>, start: &str) -> Option<Vec<(&'a File, usize, &'a str)>> {
    let mut steps = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(module) = queue.pop_front() {
        for (next, (file, line)) in siblings.get(module).into_iter().flatten() {
            steps.entry(next.as_str()).or_insert_with(|| {
                queue.push_back(next);
                (module, (*file, *line, next.as_str()))
            });
        }
    }
    let (mut module, last) = *steps.get(start)?;
    let mut circle = vec![last];
    while module != start {
        let (before, step) = steps[module];
        circle.push(step);
        module = before;
    }
    circle.reverse();
    Some(circle)
}

/// The files of the library by their modules, such as `source::mongodb`.
struct Sources<'a>(BTreeMap<String, Source<'a>>);

struct Source<'a> {
    file: &'a File,
    named: Named,
}

/// Where a path leads.
struct Target<'a> {
    /// The module whose file defines the item.
    module: &'a str,
    /// Whether the path names the module itself.
    is_module: bool,
}

impl<'a> Sources<'a> {
    fn of(files: &'a [File]) -> Self {
        let library = files.iter().filter(|file| !file.is_in(["lib", "main"]));
        let modules = library.filter_map(|file| Some((file, file.module()?)));
        let tested = modules.filter(|(_, module)| module.last() != Some(&"tests"));
        let sources = tested.map(|(file, module)| {
            let text = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            (module.join("::"), Source { file, named: Named::of(text, &module) })
        });
        Self(sources.collect())
    }

    fn siblings(&self) -> Siblings<'_> {
        let mut siblings = Siblings::new();
        for (module, source) in &self.0 {
            for (other, line) in self.dependencies(module) {
                let pairs = module.split("::").zip(other.split("::"));
                let common = pairs.take_while(|(one, other)| one == other).count();
                let ancestor = |module: &str| module.split("::").take(common + 1).collect::<Vec<_>>().join("::");
                let (one, other) = (ancestor(module), ancestor(other));
                // Where one module contains the other, they are no siblings.
                if one.split("::").count() == other.split("::").count() {
                    siblings.entry(one).or_default().entry(other).or_insert((source.file, line));
                }
            }
        }
        siblings
    }

    /// The modules on whose files a module's file depends, with the line that names each first.
    fn dependencies(&self, module: &str) -> BTreeMap<&str, usize> {
        let named = &self.0[module].named;
        let is_used = |name: &str| named.code.iter().any(|found| found.path[0] == name);
        let imports = named.imports.iter().filter(|import| !import.is_exported || is_used(&import.name));
        let imported = imports.filter_map(|Import { found, .. }| {
            let target = self.target(module, &found.path, 0)?;
            // What the code names of an imported module counts, not the import.
            (!target.is_module).then_some((target.module, found.line))
        });
        let inline = named.code.iter().filter(|found| found.path.len() > 1).filter_map(|found| {
            let target = self.target(module, &found.path, 0)?;
            (!target.is_module).then_some((target.module, found.line))
        });
        let mut dependencies = BTreeMap::new();
        for (other, line) in imported.chain(inline).filter(|(other, _)| *other != module) {
            dependencies.entry(other).and_modify(|first: &mut usize| *first = line.min(*first)).or_insert(line);
        }
        dependencies
    }

    /// Where a path in a module's file leads, after `depth` imports. None if that is not in this library.
    fn target(&self, module: &str, path: &[String], depth: usize) -> Option<Target<'_>> {
        let first = path.first()?;
        if first != "crate" {
            let child = format!("{module}::{first}");
            if !self.0.contains_key(&child) {
                return self.through_import(module, path, depth);
            }
            let inner = ["crate".to_owned()].into_iter().chain(module.split("::").map(str::to_owned));
            return self.target(module, &inner.chain(path.iter().cloned()).collect::<Vec<_>>(), depth);
        }
        let mut current: Option<&str> = None;
        for (place, name) in path.iter().enumerate().skip(1) {
            let inner = current.map_or_else(|| name.clone(), |outer| format!("{outer}::{name}"));
            match (self.0.get_key_value(&inner), current) {
                (Some((inner, _)), _) => current = Some(inner),
                (None, None) => return None,
                (None, Some(module)) => {
                    let imported = self.through_import(module, &path[place..], depth);
                    return imported.or(Some(Target { module, is_module: false }));
                }
            }
        }
        current.map(|module| Target { module, is_module: true })
    }

    /// Where a path leads whose first name the module's file imports.
    fn through_import(&self, module: &str, path: &[String], depth: usize) -> Option<Target<'_>> {
        let first = path.first()?;
        let mut imports = self.0[module].named.imports.iter();
        let import = imports.find(|import| import.name == *first && import.found.path != path)?;
        let whole = [&import.found.path, &path[1..]].concat();
        if depth < IMPORTS_MAX { self.target(module, &whole, depth + 1) } else { None }
    }
}
