//! The elements of a JSON array, each made a line of its own: what reads lines reads arrays.
//!
//! Reads one array, the inside of one, several one behind the other, and objects with commas or nothing between them.
//! White space between elements is left out; a line break within an element becomes a space, as it means the same
//! there. So the number of a line is that of its element.

use std::io::{self, ErrorKind, Read};

/// How much is taken from the file at once.
const READ_BYTES: usize = 64 * 1024;

/// Makes lines of elements.
pub struct Elements<R> {
    inner: R,
    taken: Vec<u8>,
    /// Lines that nobody has read yet, from `given` on.
    lines: Vec<u8>,
    given: usize,
    place: Place,
    /// How many brackets are open in the element.
    depth: u32,
    /// Whether the array's own bracket is open.
    in_array: bool,
    /// How many elements have begun.
    begun: u64,
}

/// Where the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Between elements.
    Between,
    /// In an object or an array that is an element.
    Inside,
    /// In a string, or behind a backslash in it.
    Text,
    Escaped,
    /// In what is no object and no array.
    Bare,
    BareText,
    BareEscaped,
}

impl<R: Read> Elements<R> {
    pub fn new(inner: R) -> Elements<R> {
        Elements {
            inner,
            taken: vec![0; READ_BYTES],
            lines: Vec::new(),
            given: 0,
            place: Place::Between,
            depth: 0,
            in_array: false,
            begun: 0,
        }
    }

    fn take_byte(&mut self, byte: u8) {
        use Place::{Bare, BareEscaped, BareText, Between, Escaped, Inside, Text};
        match self.place {
            Between => match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b',' => {}
                b'[' if !self.in_array => self.in_array = true,
                b']' => self.in_array = false,
                b'{' | b'[' => self.begin_element(byte, Inside),
                b'"' => self.begin_element(byte, BareText),
                _ => self.begin_element(byte, Bare),
            },
            Inside => {
                match byte {
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth -= 1,
                    b'"' => self.place = Text,
                    _ => {}
                }
                self.keep(byte);
                if self.depth == 0 {
                    self.end_element();
                }
            }
            Text | Escaped => {
                self.place = match (self.place, byte) {
                    (Text, b'\\') => Escaped,
                    (Text, b'"') => Inside,
                    _ => Text,
                };
                self.keep(byte);
            }
            Bare => match byte {
                b',' | b'\r' | b'\n' => self.end_element(),
                b']' => {
                    self.end_element();
                    self.in_array = false;
                }
                b'"' => {
                    self.place = BareText;
                    self.keep(byte);
                }
                _ => self.keep(byte),
            },
            BareText | BareEscaped => {
                self.place = match (self.place, byte) {
                    (BareText, b'\\') => BareEscaped,
                    (BareText, b'"') => Bare,
                    _ => BareText,
                };
                self.keep(byte);
            }
        }
    }

    fn begin_element(&mut self, byte: u8, place: Place) {
        self.begun += 1;
        self.depth = u32::from(place == Place::Inside);
        self.place = place;
        self.keep(byte);
    }

    fn keep(&mut self, byte: u8) {
        self.lines.push(if byte == b'\n' || byte == b'\r' { b' ' } else { byte });
    }

    fn end_element(&mut self) {
        self.lines.push(b'\n');
        self.place = Place::Between;
    }

    /// The text ends here: says what it lacks.
    fn end_of_text(&mut self) -> io::Result<usize> {
        if self.place == Place::Bare {
            self.end_element();
            return Ok(0);
        }
        let cut = |what: String| Err(io::Error::new(ErrorKind::UnexpectedEof, what));
        if self.place != Place::Between {
            return cut(format!("element {} is cut off", self.begun));
        }
        if self.in_array {
            return cut(format!("the array has no end behind its element {}", self.begun));
        }
        Ok(0)
    }
}

impl<R: Read> Read for Elements<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let ready = &self.lines[self.given..];
            if !ready.is_empty() || buffer.is_empty() {
                let length = ready.len().min(buffer.len());
                buffer[..length].copy_from_slice(&ready[..length]);
                self.given += length;
                return Ok(length);
            }
            self.lines.clear();
            self.given = 0;
            let mut taken = std::mem::take(&mut self.taken);
            let read = self.inner.read(&mut taken);
            if let Ok(length) = read {
                taken[..length].iter().for_each(|byte| self.take_byte(*byte));
            }
            self.taken = taken;
            if read? == 0 {
                self.end_of_text()?;
                if self.lines.is_empty() {
                    return Ok(0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Result<String, String> {
        let mut lines = Vec::new();
        let read = Elements::new(text.as_bytes()).read_to_end(&mut lines);
        let lines = String::from_utf8(lines).unwrap();
        read.map(|_| lines.clone()).map_err(|error| format!("{lines}: {error}"))
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let expected: String = expected.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(lines(text).as_deref(), Ok(&*expected), "{text}");
    }

    #[test]
    fn elements_become_lines() {
        check("[]", &[]);
        check(r#"[{"a":1},{"b":[1,{"c":2}]}]"#, &[r#"{"a":1}"#, r#"{"b":[1,{"c":2}]}"#]);
        check(" [\n  {\n \"a\": 1\r\n },\n{}\n]\n", &["{  \"a\": 1   }", "{}"]);
        check(r#"{"a":1},{"b":2},"#, &[r#"{"a":1}"#, r#"{"b":2}"#]);
        check(r#"{"a":1}{"b":2}"#, &[r#"{"a":1}"#, r#"{"b":2}"#]);
        check("[{\"a\":1}]\n[{\"b\":2},{}]", &[r#"{"a":1}"#, r#"{"b":2}"#, "{}"]);
        check("{}\n,{}\n,{}", &["{}", "{}", "{}"]);
    }

    #[test]
    fn brackets_in_texts_are_text() {
        check(r#"[{"a":"}],[{"},{"b":"\"}\\"}]"#, &[r#"{"a":"}],[{"}"#, r#"{"b":"\"}\\"}"#]);
    }

    #[test]
    fn what_is_no_object_is_an_element_too() {
        check(r#"[1, "a,\"]b", null, [2,[3]], x y]"#, &["1", r#""a,\"]b""#, "null", "[2,[3]]", "x y"]);
    }

    #[test]
    fn what_is_cut_off_is_told() {
        assert_eq!(lines(r#"[{"a":1},{"b"#), Err("{\"a\":1}\n{\"b: element 2 is cut off".to_owned()));
        assert_eq!(
            lines(r#"[{"a":1},"#),
            Err("{\"a\":1}\n: the array has no end behind its element 1".to_owned())
        );
        assert_eq!(lines("[1,2"), Err("1\n2\n: the array has no end behind its element 2".to_owned()));
        assert_eq!(lines("["), Err(": the array has no end behind its element 0".to_owned()));
    }
}
