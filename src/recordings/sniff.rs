//! Tells what a recorded file holds from its first lines.

use anyhow::{Result, bail};
use foreshock_dataflows::decode::LogFile;
use foreshock_operators::venues::{Format, Line, detect, exchange_of, exchange_of_url, split_line, venue_of};

use super::blocks::Block;
use super::input::RecordedInput;
use super::layout::Layout;
use crate::misuse::Misuse;

/// What the user says the files hold; what is `None` is told from each file.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    pub format: Option<Format>,
    pub exchange: Option<String>,
}

/// Tells format and exchange of a file from its first block.
///
/// # Errors
/// When neither the user nor the file says what it is, or the two contradict each other.
pub fn sniff(input: &RecordedInput, block: &Block, expected: &Expected, layout: Layout) -> Result<LogFile> {
    let mut found = Found::default();
    found.look_at(block, expected.format);
    let counted = layout.counted();
    let described = input.described();
    // Where there is nothing but addresses, as in recordings of REST answers.
    let by_address = || Some(venue_of(found.exchange?)?.default_format());
    let format = match (expected.format, found.format) {
        (Some(named), Some((found, line))) if named != found => bail!(Misuse(format!(
            "{described}, {counted} {line}, looks like {}, not {}; pass --format {}",
            found.name(),
            named.name(),
            found.name(),
        ))),
        (Some(named), None) if found.messages > 0 && !found.is_json && by_address().is_none() => bail!(
            "none of the first {} messages of {described} could be read as {}: {}",
            found.messages,
            named.name(),
            found.first_words(counted),
        ),
        (Some(named), _) => named,
        (None, Some((found, _))) => found,
        (None, None) => match by_address() {
            Some(format) => format,
            None => bail!(
                "could not tell the format of {described} from its first lines: {}; pass --format with one of {} where it \
                 is one of them, or make each message a canonical one (docs/inputs.md, \"Files of other kinds\")",
                found.first_words(counted),
                Format::all().map(Format::name).collect::<Vec<_>>().join(", "),
            ),
        },
    };
    let exchanges: Vec<&str> = format.venue().exchanges.iter().map(|exchange| exchange.name).collect();
    if let Some(exchange) = &expected.exchange
        && !exchanges.is_empty()
        && !exchanges.contains(&exchange.as_str())
    {
        let known = exchanges.join(", ");
        bail!(Misuse(format!(
            "--exchange {exchange:?} does not go with {}: expected {known}",
            format.name()
        )));
    }
    let inferred = expected.exchange.is_none();
    let exchange = expected
        .exchange
        .clone()
        .or_else(|| format.venue().has_markets().then(|| found.exchange.unwrap_or(exchanges[0]).to_owned()));
    Ok(LogFile { name: input.name(), counted, format, exchange, inferred })
}

#[derive(Default)]
struct Found {
    /// The format of the first line that tells one, and the line's number.
    format: Option<(Format, u64)>,
    /// The venue's market, from the first line that tells it.
    exchange: Option<&'static str>,
    /// Whether some message begins as JSON does, and how many messages were looked at.
    is_json: bool,
    messages: u64,
    /// The first message, and its line.
    first: Option<(String, u64)>,
}

/// How much of a message is shown.
const CHARACTERS_SHOWN: usize = 60;

impl Found {
    /// What the first message looks like.
    fn first_words(&self, counted: &str) -> String {
        let Some((text, number)) = &self.first else { return "there is no message in them".to_owned() };
        let is = if self.is_json { "tells none" } else { "is no JSON" };
        format!("{counted} {number} {is}: {text:?}")
    }

    fn look_at(&mut self, block: &Block, named: Option<Format>) {
        let (mut at, mut number) = (0, block.first_line);
        while let Some(range) = block.line(at) {
            let line = &block.bytes[range.clone()];
            match split_line(line) {
                Line::Blank => {}
                Line::Control => self.exchange = self.exchange.or(exchange_of_url(line)),
                Line::Message { body, .. } | Line::BadReceipt { body, .. } => {
                    let message = &line[body];
                    self.messages += 1;
                    self.is_json |= matches!(message.trim_ascii_start().first(), Some(b'{' | b'['));
                    self.first.get_or_insert_with(|| {
                        (String::from_utf8_lossy(message).chars().take(CHARACTERS_SHOWN).collect(), number)
                    });
                    self.format = self.format.or_else(|| Some((detect(message)?, number)));
                    self.exchange = self.exchange.or_else(|| exchange_of(message));
                }
            }
            let format = named.or(self.format.map(|(format, _)| format));
            let is_told = match format {
                Some(format) => {
                    self.format.is_some() && (self.exchange.is_some() || !format.venue().has_markets())
                }
                None => false,
            };
            if is_told {
                return;
            }
            (at, number) = (range.end + 1, number + 1);
        }
    }
}
