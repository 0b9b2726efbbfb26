//! How a file lays out its messages, told by its first block: a message a line, an array, or something else.

use foreshock_operators::venues::{Line, detect, exchange_of_url, split_line};
use serde::de::IgnoredAny;

use super::csv::table;
use super::foreign::{ForeignKind, MAKE_MESSAGES, WayOut, binary_data, kind_of_bytes};

/// What some editors put before the first line.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How many lines are looked at.
const LINES_LOOKED_AT: usize = 20;

/// How messages lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One a line.
    Lines,
    /// One a line, with a comma at the end of the line.
    Commas,
    /// As elements of an array, or one behind the other without line breaks.
    Elements,
}

impl Layout {
    /// What a row's place in the file counts.
    pub fn counted(self) -> &'static str {
        match self {
            Layout::Lines | Layout::Commas => "line",
            Layout::Elements => "element",
        }
    }
}

/// What the first bytes of a file tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileShape {
    pub layout: Layout,
    /// What it is where none of its lines is a message of a known format.
    pub suspect: Option<ForeignKind>,
}

/// Tells how a file of this name is laid out; `is_whole`: `head` is all of it.
pub fn shape(head: &[u8], is_whole: bool, name: &str) -> FileShape {
    let text = head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head);
    // An archive that isn't compressed shows lines of the files in it, but is no log for that.
    if let Some(kind) = kind_of_bytes(text) {
        return FileShape { layout: Layout::Lines, suspect: Some(kind) };
    }
    let mut found = shape_of_text(text, is_whole, name);
    if found.suspect.is_some() && tells_format(text) {
        found.suspect = None;
    }
    found
}

/// Whether some line is a message that tells its format, or an address that tells its venue.
fn tells_format(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| match split_line(line) {
        Line::Blank => false,
        Line::Control => exchange_of_url(line).is_some(),
        Line::Message { body, .. } | Line::BadReceipt { body, .. } => detect(&line[body]).is_some(),
    })
}

fn shape_of_text(text: &[u8], is_whole: bool, name: &str) -> FileShape {
    if let Some(kind) = binary_data(text) {
        return FileShape { layout: Layout::Lines, suspect: Some(kind) };
    }
    let lines = message_lines(text, is_whole);
    let first = text.trim_ascii_start();
    let layout = match first.first() {
        Some(b'[') => layout_of_arrays(first),
        Some(b'{' | b',') => layout_of_objects(first, &lines),
        _ => Layout::Lines,
    };
    // A receive time may stand before a message with a comma behind it.
    let ends_in_comma = |line: &[u8]| {
        matches!(split_line(line), Line::Message { body, .. }
        if whole_value(&line[body.clone()]).is_some_and(|end| line[body.start + end..].trim_ascii() == b","))
    };
    let has_commas = layout == Layout::Lines && lines.first().is_some_and(|(_, line)| ends_in_comma(line));
    let layout = if has_commas { Layout::Commas } else { layout };
    let suspect = match layout {
        Layout::Lines => suspect(first, is_whole, &lines, name),
        Layout::Commas | Layout::Elements => None,
    };
    FileShape { layout, suspect }
}

/// The first lines that are neither blank nor the recorder's own, each with its number; of a line that isn't all
/// there only where it is the only one.
fn message_lines(text: &[u8], is_whole: bool) -> Vec<(u64, &[u8])> {
    let mut lines: Vec<(u64, &[u8])> = (1..)
        .zip(text.split(|byte| *byte == b'\n'))
        .filter(|(_, line)| !matches!(split_line(line), Line::Blank | Line::Control))
        .map(|(number, line)| (number, line.trim_ascii_end()))
        .take(LINES_LOOKED_AT + 1)
        .collect();
    let is_cut = !is_whole && !text.ends_with(b"\n");
    if lines.len() > 1 && (lines.len() > LINES_LOOKED_AT || is_cut) {
        lines.pop();
    }
    lines
}

/// Where the object or array ends that the text begins with; `None` where it has no end there.
fn whole_value(text: &[u8]) -> Option<usize> {
    if !matches!(text.first(), Some(b'{' | b'[')) {
        return None;
    }
    let (mut depth, mut in_text, mut escaped) = (0_u32, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Of a text that begins with an array: its elements are messages where they are objects and only arrays follow.
fn layout_of_arrays(mut text: &[u8]) -> Layout {
    let first = text[1..].trim_ascii_start().first();
    if !matches!(first, Some(b'{' | b']') | None) {
        return Layout::Lines;
    }
    loop {
        let Some(end) = whole_value(text) else { return Layout::Elements };
        text = text[end..].trim_ascii_start();
        text = text.strip_prefix(b",").unwrap_or(text).trim_ascii_start();
        match text.first() {
            None => return Layout::Elements,
            Some(b'[') => {}
            Some(_) => return Layout::Lines,
        }
    }
}

/// Of a text that begins with an object, or a comma before one.
fn layout_of_objects(text: &[u8], lines: &[(u64, &[u8])]) -> Layout {
    if text.starts_with(b",") || lines.get(1).is_some_and(|(_, line)| line.starts_with(b",")) {
        return Layout::Elements;
    }
    let has_several = |line: &[u8]| {
        let rest = whole_value(line).map(|end| line[end..].trim_ascii_start());
        let rest = rest.map(|rest| rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start());
        rest.is_some_and(|rest| rest.starts_with(b"{"))
    };
    if !lines.is_empty() && lines.iter().take(2).all(|(_, line)| has_several(line)) {
        return Layout::Elements;
    }
    Layout::Lines
}

/// What a text is that holds no message of a known format.
fn suspect(first: &[u8], is_whole: bool, lines: &[(u64, &[u8])], name: &str) -> Option<ForeignKind> {
    let (number, line) = *lines.first()?;
    let of = |what: &str, way_out: WayOut| {
        Some(ForeignKind { line: Some(number), what: what.to_owned(), way_out })
    };
    let filter = |command: &str| WayOut::Filter(command.to_owned());
    let is_json = |text: &[u8]| serde_json::from_slice::<IgnoredAny>(text).is_ok();
    match line.first()? {
        b'{' if first.starts_with(b"{") => {
            let end = whole_value(first);
            let line_end = first.iter().position(|byte| *byte == b'\n').unwrap_or(first.len());
            let spans_lines = end.is_none_or(|end| end > line_end);
            if first[1..].trim_ascii_start().starts_with(b"'") {
                let command = "python3 -c 'import ast,json,sys; [print(json.dumps(ast.literal_eval(l))) for l in sys.stdin if l.strip()]'";
                return of(
                    "what Python prints of a dictionary, not JSON (texts stand in single quotes)",
                    filter(command),
                );
            }
            match end {
                Some(end) if is_json(&first[..end]) => {
                    let list = first_list(&first[..end]);
                    let is_alone = is_whole && first[end..].trim_ascii().is_empty();
                    match list {
                        Some(list) if is_alone => {
                            let what = format!("a JSON object that holds its messages as a list in {list:?}");
                            of(&what, WayOut::Filter(format!("jq -c '.[\"{list}\"][]'")))
                        }
                        _ if spans_lines => of("JSON whose objects span several lines", filter("jq -c .")),
                        _ => None,
                    }
                }
                None if spans_lines && (line.len() == 1 || line.ends_with(b"[") || line.ends_with(b"{")) => {
                    of("JSON whose objects span several lines", filter("jq -c ."))
                }
                _ => None,
            }
        }
        b'[' => {
            let inner = first[1..].trim_ascii_start().first();
            let is_array = is_json(line) || line.len() == 1 || inner == Some(&b'[');
            before_a_message(number, line).or_else(|| match inner {
                Some(b'{' | b']') | None => None,
                Some(_) if !is_array => None,
                Some(_) => {
                    let what = "a JSON array whose elements are no objects, as REST interfaces give candles and trades";
                    of(what, WayOut::Words(MAKE_MESSAGES.to_owned()))
                }
            })
        }
        b'"' if is_json(line) => of("JSON texts in quotes, with the messages in them", filter("jq -r .")),
        0x1e => of("a sequence of JSON texts (RFC 7464)", filter(r"tr -d '\036'")),
        b'<' => {
            let words = "is it what a server answered instead of the file? Fetch it once more";
            of("HTML or XML", WayOut::Words(words.to_owned()))
        }
        _ if line.starts_with(b"version https://git-lfs") => of(
            "a pointer of Git LFS, not the file itself",
            WayOut::Words("fetch the file with: git lfs pull".to_owned()),
        ),
        _ if line.starts_with(b"data:") || line.starts_with(b"event:") => {
            of("a stream of server-sent events", filter("sed -n 's/^data: *//p'"))
        }
        _ => before_a_message(number, line).or_else(|| table(lines, name)),
    }
}

/// A line with a message behind something that is no receive time.
fn before_a_message(number: u64, line: &[u8]) -> Option<ForeignKind> {
    let Line::Message { body, received: None } = split_line(line) else { return None };
    let at = memchr::memchr(b'{', &line[body.clone()])?;
    let (before, message) = line[body].split_at(at);
    if before.is_empty() || serde_json::from_slice::<IgnoredAny>(message).is_err() {
        return None;
    }
    let before: String = String::from_utf8_lossy(before).chars().take(40).collect();
    Some(ForeignKind {
        line: Some(number),
        what: format!(
            "text before a message ({before:?}; only a receive time may stand there, as 1723161253937085768 or \
             1633998512.06: does)"
        ),
        way_out: WayOut::Filter("sed 's/^[^{]*//'".to_owned()),
    })
}

/// The first of an object's fields that holds a list of objects.
fn first_list(object: &[u8]) -> Option<String> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(object).ok()?;
    let is_list = |value: &serde_json::Value| {
        value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(serde_json::Value::is_object))
    };
    object.into_iter().find(|(_, value)| is_list(value)).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, layout: Layout, what: Option<&str>) {
        let found = shape(text.as_bytes(), true, "x");
        assert_eq!(found.layout, layout, "{text}");
        let kind = found.suspect.map(|kind| kind.what);
        match what {
            Some(what) => assert!(kind.as_ref().is_some_and(|kind| kind.contains(what)), "{text}: {kind:?}"),
            None => assert_eq!(kind, None, "{text}"),
        }
    }

    #[test]
    fn messages_by_lines() {
        check("{\"a\":1}\n{\"b\":2}\n", Layout::Lines, None);
        check("1723161253937085768 {\"a\":1}\n", Layout::Lines, None);
        check("wss://x\n{\"a\":1}\n", Layout::Lines, None);
        check("{\"a\":1}\n{\"b\":", Layout::Lines, None);
        check("{\"a\":\n{\"b\":2}\n", Layout::Lines, None);
        check("", Layout::Lines, None);
    }

    #[test]
    fn commas_at_the_ends_of_lines() {
        check("{\"a\":1},\n{\"b\":2},\n", Layout::Commas, None);
        check("1723161253937085768 {\"a\":1},\n", Layout::Commas, None);
        check("\n{\"a\":\"},\"} , \r\n{\"b\":2}\n", Layout::Commas, None);
        check("{\"a\":1}\n,{\"b\":2}\n", Layout::Elements, None);
        check(",{\"a\":1}\n", Layout::Elements, None);
    }

    #[test]
    fn arrays() {
        check("[{\"a\":1},{\"b\":2}]", Layout::Elements, None);
        check("[\n{\"a\":1},\n{\"b\":2}\n]\n", Layout::Elements, None);
        check("[{\"a\":1},{\"b\":2", Layout::Elements, None);
        check("[{\"a\":1}]\n[{\"b\":2}]\n", Layout::Elements, None);
        check("[]", Layout::Elements, None);
        // A feed whose messages are arrays among others.
        check("[{\"a\":1}]\n{\"b\":2}\n", Layout::Lines, None);
        check("[[1,2],[3,4]]", Layout::Lines, Some("elements are no objects"));
        check("[0,{\"a\":1},\"ticker\"]\n[0,{}]\n", Layout::Lines, Some("elements are no objects"));
        check("[\n [1,2],\n [3,4]\n]\n", Layout::Lines, Some("elements are no objects"));
    }

    #[test]
    fn several_in_one_line() {
        check("{\"a\":1}{\"b\":2}", Layout::Elements, None);
        check("{\"a\":1},{\"b\":2},\n{\"a\":1},{\"b\":2}\n", Layout::Elements, None);
        // One line that was torn among whole ones is a broken message as ever.
        check("{\"a\":1}{\"b\":2}\n{\"a\":1}\n", Layout::Lines, None);
    }

    #[test]
    fn other_texts() {
        check("{\n  \"a\": 1\n}\n", Layout::Lines, Some("span several lines"));
        check("{\"a\": 1,\n\"b\": 2}\n", Layout::Lines, Some("span several lines"));
        check("{\"data\":[{\"a\":1}]}", Layout::Lines, Some("a list in \"data\""));
        check("{'a': 1}\n", Layout::Lines, Some("Python"));
        check("\"{\\\"a\\\":1}\"\n", Layout::Lines, Some("in quotes"));
        check("\u{1e}{\"a\":1}\n", Layout::Lines, Some("RFC 7464"));
        check("<html>\n", Layout::Lines, Some("HTML"));
        check("data: {\"a\":1}\n\n", Layout::Lines, Some("server-sent"));
        check("2026-01-02 00:00:00 INFO {\"a\":1}\n", Layout::Lines, Some("text before a message"));
        check("[2026-01-02] {\"a\":1}\n", Layout::Lines, Some("text before a message"));
        check("a,b,c\n1,2,3\n", Layout::Lines, Some("CSV with the columns a, b, c"));
        check("1,2,3\n1,2,3\n", Layout::Lines, Some("CSV without a header, in 3 columns"));
        check("a;b\n1;2\n", Layout::Lines, Some("table of text"));
        check("buy low\nsell high\n", Layout::Lines, None);
    }
}
