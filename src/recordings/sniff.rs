//! Tells what a recorded file holds from its first lines.

use anyhow::{Result, bail};
use foreshock_dataflows::decode::LogFile;
use foreshock_operators::decode::{Format, Line, detect, market, market_of_url, split_line};

use super::blocks::Block;
use super::input::RecordedInput;
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
pub fn sniff(input: &RecordedInput, block: Option<&Block>, expected: &Expected) -> Result<LogFile> {
    let mut found = Found::default();
    if let Some(block) = block {
        found.look_at(block, expected.format);
    }
    let described = input.described();
    let format = match (expected.format, found.format) {
        (Some(named), Some((found, line))) if named != found => bail!(Misuse(format!(
            "{described}, line {line}, looks like {}, not {}; pass --format {}",
            found.name(),
            named.name(),
            found.name(),
        ))),
        (Some(named), _) => named,
        (None, Some((found, _))) => found,
        // Nothing but addresses, as in recordings of REST answers.
        (None, None) if found.exchange.is_some() => Format::Binance,
        (None, None) => bail!(
            "could not tell the format of {described} from its first lines; pass --format with one of {}",
            Format::ALL.map(Format::name).join(", "),
        ),
    };
    let exchanges = exchanges(format);
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
        .or_else(|| (format == Format::Binance).then(|| found.exchange.unwrap_or(exchanges[0]).to_string()));
    Ok(LogFile { name: input.name(), format, exchange, inferred })
}

/// The exchanges whose messages a format may hold; none named: the messages say it.
fn exchanges(format: Format) -> &'static [&'static str] {
    match format {
        Format::CoinbaseExchange | Format::CoinbaseAdvancedTrade => &["coinbase"],
        Format::Binance => &["binance", "binance-usdm", "binance-coinm"],
        Format::Okx => &["okx"],
        Format::Canonical => &[],
    }
}

#[derive(Default)]
struct Found {
    /// The format of the first line that tells one, and the line's number.
    format: Option<(Format, u64)>,
    /// Binance's market, from the first line that tells it.
    exchange: Option<&'static str>,
}

impl Found {
    fn look_at(&mut self, block: &Block, named: Option<Format>) {
        let (mut at, mut number) = (0, block.first_line);
        while let Some(range) = block.line(at) {
            let line = &block.bytes[range.clone()];
            match split_line(line) {
                Line::Blank => {}
                Line::Control => self.exchange = self.exchange.or(market_of_url(line)),
                Line::Message { body, .. } => {
                    let message = &line[body];
                    self.format = self.format.or_else(|| Some((detect(message)?, number)));
                    self.exchange = self.exchange.or_else(|| market(message));
                }
            }
            let format = named.or(self.format.map(|(format, _)| format));
            let is_told = match format {
                Some(Format::Binance) => self.exchange.is_some() && self.format.is_some(),
                Some(_) => self.format.is_some(),
                None => false,
            };
            if is_told {
                return;
            }
            (at, number) = (range.end + 1, number + 1);
        }
    }
}
