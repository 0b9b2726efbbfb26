//! The house's own rules, read from its source: one name for one thing, and rooms that stand in layers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of the product, each a crate.
const CRATES: [&str; 3] = ["operators", "dataflows", "src"];

/// Words that say nothing without their object.
const BARE: [&str; 4] = ["settle", "begin", "take", "told"];

/// Every file of the product: its path from the repository's root, and its text without comments.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in CRATES {
        collect(&root.join(folder), &mut found);
    }
    assert!(found.len() > 100, "the product has more files than {}", found.len());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let code: String = text.lines().map(|line| format!("{}\n", without_comment(line))).collect();
        (path.strip_prefix(root).unwrap().display().to_string(), code)
    };
    found.into_iter().map(read).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["tests", "benches"].contains(&name.as_str()) {
            collect(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// A line without the comment at its end; a slash pair inside of a string, as in an address, is none.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let bytes = line.as_bytes();
    for at in 0..bytes.len() {
        match bytes[at] {
            b'"' if at == 0 || bytes[at - 1] != b'\\' => quoted = !quoted,
            b'/' if !quoted && bytes.get(at + 1) == Some(&b'/') => return &line[..at],
            _ => {}
        }
    }
    line
}

/// The words of a line, names whole.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The type that a line declares to others, if any.
fn public_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(inner) => inner.split_once(')')?.1,
        None => rest,
    };
    let mut words = words(rest);
    let sort = words.next()?;
    rest.starts_with(' ').then_some(())?;
    ["struct", "enum", "trait", "type", "union"].contains(&sort).then(|| words.next())?
}

#[test]
fn a_public_type_has_a_name_of_its_own() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, code) in files() {
        for name in code.lines().filter_map(public_type) {
            places.entry(name.to_owned()).or_default().push(path.clone());
        }
    }
    assert!(places.contains_key("MarketChain") && places.len() > 200, "{} types", places.len());
    let twice: Vec<_> = places.iter().filter(|(_, places)| places.len() > 1).collect();
    assert!(twice.is_empty(), "names that stand more than once: {twice:#?}");
}

#[test]
fn a_function_says_what_it_settles_begins_or_takes() {
    for (path, code) in files() {
        for line in code.lines() {
            let mut words = words(line).skip_while(|word| *word != "fn").skip(1);
            let name = words.next().unwrap_or_default();
            assert!(!BARE.contains(&name), "{path}: fn {name} should say of what");
        }
    }
}

/// The rooms of `src/`: its folders, and its files that are none's.
fn room(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("src/")?;
    Some(rest.split_once('/').map_or_else(|| rest.trim_end_matches(".rs"), |(folder, _)| folder))
}

/// Which rooms of `src/` each of them imports.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let files = files();
    let rooms: BTreeSet<&str> = files.iter().filter_map(|(path, _)| room(path)).collect();
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, code) in &files {
        let Some(own) = room(path) else { continue };
        for (at, _) in code.match_indices("crate::") {
            let other = words(&code[at + "crate::".len()..]).next().unwrap_or_default();
            if rooms.contains(other) && other != own {
                imports.entry(own.to_owned()).or_default().insert(other.to_owned());
            }
        }
    }
    imports
}

#[test]
fn no_room_imports_itself_by_way_of_another() {
    let imports = imports();
    assert!(imports.contains_key("live"), "{imports:?}");
    for room in imports.keys() {
        let (mut reached, mut next) = (BTreeSet::new(), vec![room]);
        while let Some(at) = next.pop() {
            for other in imports.get(at).into_iter().flatten() {
                assert_ne!(other, room, "{room} imports itself by way of {at}: {imports:#?}");
                if reached.insert(other) {
                    next.push(other);
                }
            }
        }
    }
}

#[test]
fn brokers_and_processes_know_neither_the_live_job_nor_backtests() {
    let imports = imports();
    for room in ["kafka", "cluster"] {
        for above in ["live", "backtest", "replay", "cli"] {
            assert!(!imports[room].contains(above), "{room} imports {above}");
        }
    }
}

#[test]
fn no_file_of_tests_is_forgotten() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["tests", "operators/tests", "dataflows/tests"] {
        let main = fs::read_to_string(root.join(folder).join("main.rs")).unwrap();
        let named: BTreeSet<&str> =
            main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).collect();
        let mut there = BTreeSet::new();
        for entry in fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap) {
            let name = entry.file_name().to_string_lossy().into_owned();
            match name.strip_suffix(".rs") {
                Some("main") => {}
                Some(module) => _ = there.insert(module.to_owned()),
                None if entry.path().join("mod.rs").exists() => _ = there.insert(name),
                None => {}
            }
        }
        assert_eq!(there.iter().map(String::as_str).collect::<BTreeSet<_>>(), named, "{folder}/main.rs");
    }
}

#[test]
fn the_rules_see_what_they_are_meant_to_see() {
    assert_eq!(public_type("    pub(crate) struct Lane<T> {"), Some("Lane"));
    assert_eq!(public_type("pub type Partition = (String, i32);"), Some("Partition"));
    assert_eq!(public_type("pub fn structure() {"), None);
    assert_eq!(public_type("type Input = Row;"), None);
    assert_eq!(without_comment(r#"let at = "file:///x"; // crate::live"#), r#"let at = "file:///x"; "#);
    assert_eq!(room("src/live/start/mod.rs"), Some("live"));
    assert_eq!(room("src/clock.rs"), Some("clock"));
}
