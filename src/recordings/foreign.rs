//! Files of other kinds, told by their first bytes, and what makes of them something that is read.

use super::input::{Compression, RecordedInput};

/// What a file is that isn't read, and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKind {
    /// The line that tells it; `None` where the file has no lines.
    pub line: Option<u64>,
    /// "CSV with a header", "a tar archive".
    pub what: String,
    pub way_out: WayOut,
}

/// What makes of a file something that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayOut {
    /// A command that reads the file from standard input and writes what is read.
    Filter(String),
    /// A command that takes the file's name at its end and writes what is read.
    OfFile(&'static str),
    /// In words.
    Words(String),
}

impl ForeignKind {
    /// All of it, of this input.
    pub fn text(&self, input: &RecordedInput, compression: Option<Compression>) -> String {
        let place = [
            compression.map(|compression| format!(", a {} file", compression.name())),
            self.line.map(|line| format!(", line {line}")),
        ];
        let place: String = place.into_iter().flatten().collect();
        let comma = if place.is_empty() { "" } else { "," };
        let is = format!("{}{place}{comma} is {}", input.described(), self.what);
        let expected = match self.line {
            Some(_) => "expected a JSON message a line",
            None => "which is not read",
        };
        let way_out = match &self.way_out {
            WayOut::Filter(filter) => {
                format!("try {} | foreshock backtest -", filtered(input, compression, filter))
            }
            WayOut::OfFile(command) => match input {
                RecordedInput::File(path) if compression.is_none() => {
                    format!("try {command} {} | foreshock backtest -", quoted(&path.display().to_string()))
                }
                _ => format!("unpack it to a file, then try {command} FILE | foreshock backtest -"),
            },
            WayOut::Words(words) => words.clone(),
        };
        format!("{is}, {expected}; {way_out}")
    }
}

/// The command that has a filter read an input.
fn filtered(input: &RecordedInput, compression: Option<Compression>, filter: &str) -> String {
    let source = match input {
        RecordedInput::File(path) => {
            let path = quoted(&path.display().to_string());
            match compression {
                None => return format!("{filter} < {path}"),
                Some(compression) => format!("{} -dc < {path}", compression.name()),
            }
        }
        RecordedInput::Member(path, member) => {
            let (path, member) = (quoted(&path.display().to_string()), quoted(&member.name));
            match compression {
                None => format!("unzip -p {path} {member}"),
                Some(compression) => format!("unzip -p {path} {member} | {} -dc", compression.name()),
            }
        }
        RecordedInput::Stdin | RecordedInput::Builtin(..) => match compression {
            None => "...".to_owned(),
            Some(compression) => format!("... | {} -dc", compression.name()),
        },
    };
    format!("{source} | {filter}")
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./+:@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Files that begin with certain bytes: those bytes, where they stand, the kind, a filter.
const FILTERED: [(&[u8], usize, &str, &str); 16] = [
    (b"BZh", 0, "compressed with bzip2", "bzip2 -dc"),
    (b"\xfd7zXZ\0", 0, "compressed with xz", "xz -dc"),
    (b"\x5d\0\0", 0, "compressed with lzma", "xz --format=lzma -dc"),
    (b"\x04\x22\x4d\x18", 0, "compressed with lz4", "lz4 -dc"),
    (b"\x02\x21\x4c\x18", 0, "compressed with lz4 (its old format)", "lz4 -dc"),
    (b"LZIP", 0, "compressed with lzip", "lzip -dc"),
    (b"\x89LZO", 0, "compressed with lzop", "lzop -dc"),
    (b"\x1f\x9d", 0, "compressed with compress", "uncompress -c"),
    (b"\xff\x06\0\0sNaPpY", 0, "compressed with snappy", "snzip -dc"),
    (b"ustar", 257, "a tar archive", "tar -xOf -"),
    (b"PK\x03\x04", 0, "a zip archive, of which the list of files stands at the end", "bsdtar -xOf -"),
    (b"-----BEGIN PGP MESSAGE", 0, "encrypted with PGP", "gpg -d"),
    (b"age-encryption.org", 0, "encrypted with age", "age -d -i KEY"),
    (b"\x85\x02", 0, "encrypted with PGP", "gpg -d"),
    (b"Salted__", 0, "encrypted with openssl", "openssl enc -d -CIPHER"),
    (b"Obj\x01", 0, "Avro", "avro cat -"),
];

/// Those of which a command makes JSON lines when it is given their name.
const NAMED: [(&[u8], &str, &str); 4] = [
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x -so"),
    (b"Rar!\x1a\x07", "a rar archive", "unrar p -inul"),
    (
        b"\x0a\x0d\x0d\x0a",
        "a capture of network packets (pcapng)",
        "tshark -Y websocket -T fields -e text -r",
    ),
    (b"SQLite format 3\0", "an SQLite database", "sqlite3 -json"),
];

/// Tables and the like: their rows are no messages yet.
const TABLES: [(&[u8], &str); 14] = [
    (b"PAR1", "a Parquet file"),
    (b"ORC", "an ORC file"),
    (b"ARROW1", "an Arrow file"),
    (b"FEA1", "a Feather file"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"\x93NUMPY", "an array of NumPy's"),
    (b"DBN", "a DBN file of Databento's"),
    (b"\xd4\xc3\xb2\xa1", "a capture of network packets (pcap)"),
    (b"\xa1\xb2\xc3\xd4", "a capture of network packets (pcap)"),
    (b"\x4d\x3c\xb2\xa1", "a capture of network packets (pcap)"),
    (b"\xa1\xb2\x3c\x4d", "a capture of network packets (pcap)"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
];

/// Where documents say how to make messages of rows.
pub const MAKE_MESSAGES: &str =
    "make each of its rows a message of the canonical format (docs/inputs.md, \"Files of other kinds\")";

/// The kind of a file that is no text of ours, by its first bytes.
pub fn kind_of_bytes(head: &[u8]) -> Option<ForeignKind> {
    let of = |what: &str, way_out: WayOut| Some(ForeignKind { line: None, what: what.to_owned(), way_out });
    let stands_at = |bytes: &[u8], at: usize| head.get(at..).is_some_and(|rest| rest.starts_with(bytes));
    if let Some(encoding) = wide_encoding(head) {
        let filter = format!("iconv -f {encoding} -t UTF-8");
        return of(&format!("text in {encoding}"), WayOut::Filter(filter));
    }
    if let Some((.., what, filter)) = FILTERED.iter().find(|(bytes, at, ..)| stands_at(bytes, *at)) {
        return of(what, WayOut::Filter((*filter).to_owned()));
    }
    if let Some((_, what, command)) = NAMED.iter().find(|(bytes, ..)| stands_at(bytes, 0)) {
        return of(what, WayOut::OfFile(command));
    }
    if let Some((_, what)) = TABLES.iter().find(|(bytes, _)| stands_at(bytes, 0)) {
        return of(what, WayOut::Words(MAKE_MESSAGES.to_owned()));
    }
    if head.starts_with(b"\x80") && head.get(1).is_some_and(|version| (2..=5).contains(version)) {
        return of("a pickle of Python's", WayOut::Words(MAKE_MESSAGES.to_owned()));
    }
    if Compression::of(head).is_some() {
        let filter = if head.starts_with(b"\x1f\x8b") { "gzip -dc" } else { "zstd -dc" };
        return of("compressed twice", WayOut::Filter(filter.to_owned()));
    }
    None
}

/// What holds bytes that no text has, but tells no kind by its first ones.
pub fn binary_data(head: &[u8]) -> Option<ForeignKind> {
    let words = "name files of JSON messages, plain or compressed with gzip, zstd or zip";
    head[..head.len().min(1_024)].contains(&0).then(|| ForeignKind {
        line: None,
        what: "binary data of a kind that we don't know".to_owned(),
        way_out: WayOut::Words(words.to_owned()),
    })
}

/// The encoding of text with more than one byte to each letter.
fn wide_encoding(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xff, 0xfe, 0, 0, ..] => return Some("UTF-32"),
        [0, 0, 0xfe, 0xff, ..] => return Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Some("UTF-16"),
        _ => {}
    }
    // Messages are nearly all ASCII, so of each letter all bytes but one are 0.
    let first = &head[..head.len().min(64)];
    let is_letter = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    let fits = |width: usize, place: usize| {
        first.len() >= 2 * width
            && first.chunks_exact(width).all(|of| {
                of.iter().enumerate().all(|(at, byte)| if at == place { is_letter(byte) } else { *byte == 0 })
            })
    };
    [(2, 0, "UTF-16LE"), (2, 1, "UTF-16BE"), (4, 0, "UTF-32LE"), (4, 3, "UTF-32BE")]
        .into_iter()
        .find(|(width, place, _)| fits(*width, *place))
        .map(|(.., name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_a_shell_takes_them() {
        assert_eq!(quoted("a/b-1.csv"), "a/b-1.csv");
        assert_eq!(quoted("my file"), "'my file'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn encodings_with_and_without_a_mark() {
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        assert_eq!(wide_encoding(&wide("{\"type\":\"quote\"}")), Some("UTF-16LE"));
        assert_eq!(wide_encoding(&wide("\u{feff}{}")), Some("UTF-16"));
        let big: Vec<u8> = "{\"a\":1}".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(wide_encoding(&big), Some("UTF-16BE"));
        let widest: Vec<u8> = "{\"a\":1}".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        assert_eq!(wide_encoding(&widest), Some("UTF-32LE"));
        assert_eq!(wide_encoding(b"{\"a\":1}"), None);
        assert_eq!(wide_encoding(b"\0\0\0\0"), None);
    }
}
