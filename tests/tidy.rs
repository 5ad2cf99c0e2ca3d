//! Holds the house rules: the layer table, the opening line of each file, and names that say nothing.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use syn::visit::Visit;

/// Rooms from the ground up. A room imports rooms of lower rows only; `app` may hold files of its own row inside.
const LAYERS: [&[&str]; 12] = [
    &["pb"],
    &["limits", "error", "notation"],
    &["model", "config", "metrics", "traces"],
    &["disk", "store"],
    &["engine"],
    &["service"],
    &["api::cors", "api::rest_of_body", "api::spanned"],
    &["api::grpc", "api::rest"],
    // Speaks both.
    &["api::ops"],
    &["app", "telemetry"],
    &["cli"],
    &["main"],
];

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

fn sources() -> Vec<PathBuf> {
    fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    files.sort();
    files
}

/// The room that a file belongs to: `src/engine/log.rs` is in `engine`, `src/api/rest/key.rs` in `api::rest`.
fn room_of(file: &Path) -> String {
    let relative = file.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().with_extension("");
    let parts: Vec<_> = relative.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod").collect();
    match parts.as_slice() {
        ["api", door, ..] => format!("api::{door}"),
        [room, ..] => (*room).to_owned(),
        [] => unreachable!("a file has a name"),
    }
}

/// Rooms of this crate that a file names, in imports and in paths.
#[derive(Default)]
struct Imports(BTreeSet<String>);

impl Imports {
    fn add(&mut self, path: &[String]) {
        match path {
            [root, api, door, ..] if (root == "crate" || root == "tandem") && api == "api" => {
                self.0.insert(format!("api::{door}"));
            }
            [root, room, ..] if root == "crate" || root == "tandem" => {
                self.0.insert(room.clone());
            }
            _ => {}
        }
    }

    fn walk(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.walk(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.add(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.add(prefix),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.walk(prefix, item)),
        }
    }
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.walk(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&names);
        syn::visit::visit_path(self, path);
    }

    /// Who may see something is not what it imports.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        // Tests may reach where they like.
        if item.ident != "tests" {
            syn::visit::visit_item_mod(self, item);
        }
    }
}

#[test]
fn rooms_import_lower_rooms_only() {
    let mut wrong = Vec::new();
    for file in sources() {
        let room = room_of(&file);
        if room == "lib" || room == "api" {
            continue;
        }
        let own = layer(&room).unwrap_or_else(|| panic!("{}: {room} stands in no layer", file.display()));
        let mut imports = Imports::default();
        imports.visit_file(&syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap());
        for import in imports.0.into_iter().filter(|import| *import != room) {
            match layer(&import) {
                Some(other) if other < own => {}
                Some(_) => wrong.push(format!("{}: {room} may not import {import}", file.display())),
                None => wrong.push(format!("{}: {import} stands in no layer", file.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_opens_by_saying_its_job() {
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{} does not open with a //! line", file.display());
    }
}

#[test]
fn names_say_something() {
    for file in sources() {
        let name = file.file_stem().unwrap().to_str().unwrap();
        for empty in ["util", "utils", "common", "manager", "misc", "helpers"] {
            assert_ne!(name, empty, "{}: a name that says nothing", file.display());
        }
    }
}
