//! Model files of other programs: told by their bytes, so that a refusal can name them and the way out.

use memchr::memmem;

/// How far into a file its marks are looked for.
const LOOKED_AT: usize = 4096;

/// How the names of XGBoost's objectives begin.
const OBJECTIVES: [&str; 6] = ["binary:", "reg:", "multi:", "rank:", "count:", "survival:"];

/// What to do where a model of XGBoost is there in another form.
pub const AS_JSON: &str = "save the model as JSON, in Python with save_model(\"model.json\")";
/// What to do about trees of another program.
pub const TRAIN: &str = "trees are read from XGBoost alone: train the model with XGBoost (docs/models.md)";
/// What XGBoost writes for people to read.
pub const DUMP: &str = "a dump of XGBoost, whose numbers are rounded";

const FROM_PYTHON: &str =
    "if it holds a model of XGBoost, load it in Python and save that with save_model(\"model.json\")";

/// What a file is, where it is a model but none that XGBoost saved as JSON, and what to do; `None` where its bytes
/// don't tell.
pub fn recognise(bytes: &[u8]) -> Option<String> {
    let head = &bytes[..bytes.len().min(LOOKED_AT)];
    let has = |mark: &str| memmem::find(head, mark.as_bytes()).is_some();
    let begins = |marks: &[&[u8]]| marks.iter().any(|mark| head.starts_with(mark));
    let text = head.trim_ascii_start();
    let is_binary = head.iter().take(32).any(|byte| *byte < 9);
    let told = |what: &str, way_out: &str| Some(finding(what, way_out));
    match head {
        [] => told("an empty file", AS_JSON),
        _ if text.is_empty() => told("nothing but spaces", AS_JSON),
        // Behind the brace JSON has a quote; UBJSON has the length of a name, or its marks of a size or a type.
        [b'{', b'i' | b'U' | b'I' | b'l' | b'L' | b'$' | b'#', ..] if is_binary => {
            told("a model in UBJSON (.ubj)", AS_JSON)
        }
        [0x80, 2..=5, ..] => told("a Python pickle, as scikit-learn and joblib write them", FROM_PYTHON),
        _ if begins(&[
            b"\x1f\x8b",
            b"\x28\xb5\x2f\xfd",
            b"BZh",
            b"\xfd7zXZ",
            b"\x78\x9c",
            b"\x78\x5e",
            b"\x78\xda",
        ]) =>
        {
            told("a compressed file", "unpack it first")
        }
        _ if begins(&[b"PK\x03\x04"]) => {
            told("a zip archive, as skops, PyTorch, Keras and Spark pack models", FROM_PYTHON)
        }
        _ if begins(&[b"CBM1"]) => told("a model of CatBoost", TRAIN),
        _ if begins(&[b"\x89HDF"]) => told("an HDF5 file, as Keras saves models", TRAIN),
        // A protocol buffer whose first field is the version of its format, the second the program that made it.
        [0x08, 1..=32, 0x12, ..] => told(
            "an ONNX model",
            "trees are read from XGBoost's own file: save the model that it was made from as JSON",
        ),
        _ if begins(&[b"\xff\xfe", b"\xfe\xff"]) => told("text in UTF-16", "save the file as UTF-8"),
        _ if begins(&[b"\xef\xbb\xbf"]) => told("a byte order mark", "save the file as UTF-8 without one"),
        _ if text.starts_with(b"tree\n") || text.starts_with(b"tree\r\n") => {
            told("a model of LightGBM", TRAIN)
        }
        _ if text.starts_with(b"booster[0]") => told(DUMP, AS_JSON),
        _ if text.starts_with(b"<") && (has("<PMML") || has("<?xml")) => {
            told("a model in PMML or other XML", TRAIN)
        }
        _ if text.starts_with(b"[") && has("\"nodeid\"") => told(DUMP, AS_JSON),
        _ if begins(&[b"binf", b"bs64"])
            || (head.contains(&0) && OBJECTIVES.iter().any(|name| has(name))) =>
        {
            told(
                "a model in XGBoost's old binary format",
                "load it with XGBoost 2 and save it with save_model(\"model.json\")",
            )
        }
        _ if head.contains(&0) => told("a binary file", AS_JSON),
        _ => None,
    }
}

/// The same of a file that should be a model file of ours, where people name that of their trees.
pub fn recognise_model_file(bytes: &[u8]) -> Option<String> {
    // YAML may begin with a byte order mark, and an empty file is missing more than trees.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = bytes.trim_ascii_start();
    if text.is_empty() {
        return None;
    }
    let is_json =
        text.first() == Some(&b'{') && serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    let has = |name: &str| is_json && memmem::find(text, name.as_bytes()).is_some();
    let found = if has("\"learner\"") {
        "found a model that XGBoost saved".to_owned()
    } else if has("\"tree_info\"") {
        finding("a model of LightGBM", TRAIN)
    } else if has("\"oblivious_trees\"") || has("\"features_info\"") {
        finding("a model of CatBoost", TRAIN)
    } else {
        recognise(bytes)?
    };
    Some(format!(
        "{found}; expected a model file in YAML, which names a file of trees under trees (docs/models.md)"
    ))
}

/// A finding and the way out.
pub fn finding(what: &str, way_out: &str) -> String {
    format!("found {what}; {way_out}")
}
