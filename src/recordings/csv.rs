//! Tables of text: told apart by their columns, and for those that many people have, what makes messages of them.

use super::foreign::{ForeignKind, MAKE_MESSAGES, WayOut};

/// What may stand between columns, the likeliest first.
const SEPARATORS: [u8; 4] = *b",\t;|";

/// More columns than this are not named in a message.
const COLUMNS_SHOWN: usize = 12;

/// A table that is known by its columns.
struct KnownTable {
    what: &'static str,
    /// The names in its header; numbers stand for a table without one.
    columns: &'static [&'static str],
    has_header: bool,
    kind: &'static str,
    /// The column of the receive time in microseconds, where there is one.
    received: Option<&'static str>,
    /// The column of the event time in milliseconds or microseconds.
    time: &'static str,
    /// Other fields of the message, each with its column.
    fields: &'static [(&'static str, Value)],
}

/// What stands in a field.
enum Value {
    Text(&'static str),
    Number(&'static str),
    /// The aggressor, told by whether the buyer made the market.
    Side(&'static str),
    /// A text that no column has: to be filled in.
    Given(&'static str),
}

use Value::{Given, Number, Side, Text};

const KNOWN: [KnownTable; 7] = [
    KnownTable {
        what: "quotes of Tardis",
        columns: &[
            "exchange",
            "symbol",
            "timestamp",
            "local_timestamp",
            "ask_amount",
            "ask_price",
            "bid_price",
            "bid_amount",
        ],
        has_header: true,
        kind: "quote",
        received: Some("local_timestamp"),
        time: "timestamp",
        fields: &[
            ("exchange", Text("exchange")),
            ("instrument", Text("symbol")),
            ("bid", Number("bid_price")),
            ("bid_size", Number("bid_amount")),
            ("ask", Number("ask_price")),
            ("ask_size", Number("ask_amount")),
        ],
    },
    KnownTable {
        what: "trades of Tardis",
        columns: &["exchange", "symbol", "timestamp", "local_timestamp", "id", "side", "price", "amount"],
        has_header: true,
        kind: "trade",
        received: Some("local_timestamp"),
        time: "timestamp",
        fields: &[
            ("exchange", Text("exchange")),
            ("instrument", Text("symbol")),
            ("price", Number("price")),
            ("size", Number("amount")),
            ("side", Text("side")),
        ],
    },
    KnownTable {
        what: "trades of Binance's public data",
        columns: &["id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match"],
        has_header: false,
        kind: "trade",
        received: None,
        time: "time",
        fields: &TRADES_OF_BINANCE,
    },
    KnownTable {
        what: "trades of Binance's public data",
        columns: &["id", "price", "qty", "quote_qty", "time", "is_buyer_maker"],
        has_header: true,
        kind: "trade",
        received: None,
        time: "time",
        fields: &TRADES_OF_BINANCE,
    },
    KnownTable {
        what: "aggregated trades of Binance's public data",
        columns: &["id", "price", "qty", "first", "last", "time", "is_buyer_maker", "is_best_match"],
        has_header: false,
        kind: "trade",
        received: None,
        time: "time",
        fields: &TRADES_OF_BINANCE,
    },
    KnownTable {
        what: "aggregated trades of Binance's public data",
        columns: &[
            "agg_trade_id",
            "price",
            "quantity",
            "first_trade_id",
            "last_trade_id",
            "transact_time",
            "is_buyer_maker",
        ],
        has_header: true,
        kind: "trade",
        received: None,
        time: "transact_time",
        fields: &[
            ("exchange", Given("binance-usdm")),
            ("instrument", Given("SYMBOL")),
            ("sequence", Number("agg_trade_id")),
            ("price", Number("price")),
            ("size", Number("quantity")),
            ("side", Side("is_buyer_maker")),
        ],
    },
    KnownTable {
        what: "quotes of Binance's public data",
        columns: &[
            "update_id",
            "best_bid_price",
            "best_bid_qty",
            "best_ask_price",
            "best_ask_qty",
            "transaction_time",
            "event_time",
        ],
        has_header: true,
        kind: "quote",
        received: None,
        time: "transaction_time",
        fields: &[
            ("exchange", Given("binance-usdm")),
            ("instrument", Given("SYMBOL")),
            ("sequence", Number("update_id")),
            ("bid", Number("best_bid_price")),
            ("bid_size", Number("best_bid_qty")),
            ("ask", Number("best_ask_price")),
            ("ask_size", Number("best_ask_qty")),
        ],
    },
];

const TRADES_OF_BINANCE: [(&str, Value); 6] = [
    ("exchange", Given("binance")),
    ("instrument", Given("SYMBOL")),
    ("sequence", Number("id")),
    ("price", Number("price")),
    ("size", Number("qty")),
    ("side", Side("is_buyer_maker")),
];

/// The table that begins with these lines, numbered; `None` where they are no table.
pub fn table(lines: &[(u64, &[u8])], name: &str) -> Option<ForeignKind> {
    let (number, first) = *lines.first()?;
    if first.contains(&b'{') || !is_text(first) {
        return None;
    }
    let columns_of = |line: &[u8], separator: u8| line.split(|byte| *byte == separator).count();
    let separator = SEPARATORS.into_iter().find(|separator| {
        let columns = columns_of(first, *separator);
        let others = &lines[1..];
        let is_regular = others.iter().all(|(_, line)| columns_of(line, *separator) == columns);
        is_regular && (columns >= 3 || columns == 2 && !others.is_empty())
    })?;
    let cells: Vec<String> = first
        .split(|byte| *byte == separator)
        .map(|cell| String::from_utf8_lossy(cell).trim().trim_matches('"').to_owned())
        .collect();
    let has_header = cells
        .iter()
        .all(|cell| cell.bytes().next().is_none_or(|byte| !byte.is_ascii_digit() && byte != b'-'));
    let known = KNOWN.iter().find(|known| {
        known.has_header == has_header
            && separator == b','
            && known.columns.len() == cells.len()
            && if has_header {
                known.columns.iter().zip(&cells).all(|(column, cell)| *column == cell.as_str())
            } else {
                is_of_binance(&cells, known)
            }
    });
    let columns = if has_header {
        let shown = cells.iter().take(COLUMNS_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if cells.len() > COLUMNS_SHOWN { ", ..." } else { "" };
        format!("with the columns {shown}{more}")
    } else {
        format!("without a header, in {} columns", cells.len())
    };
    let sort = if separator == b',' { "CSV" } else { "a table of text (CSV)" };
    let (whose, way_out) = match known {
        Some(known) => (format!(" ({})", known.what), WayOut::Filter(known.filter(name))),
        None => (String::new(), WayOut::Words(MAKE_MESSAGES.to_owned())),
    };
    Some(ForeignKind { line: Some(number), what: format!("{sort} {columns}{whose}"), way_out })
}

fn is_text(line: &[u8]) -> bool {
    std::str::from_utf8(line).is_ok_and(|line| !line.chars().any(|c| c.is_control() && c != '\t'))
}

/// Whether the cells of a table without a header are of the sorts that a table of Binance's has.
fn is_of_binance(cells: &[String], known: &KnownTable) -> bool {
    known.columns.iter().zip(cells).all(|(column, cell)| match *column {
        "time" => matches!(cell.len(), 13 | 16) && cell.bytes().all(|byte| byte.is_ascii_digit()),
        "is_buyer_maker" | "is_best_match" => matches!(&*cell.to_ascii_lowercase(), "true" | "false"),
        "price" | "qty" | "quote_qty" => cell.parse::<f64>().is_ok(),
        _ => cell.bytes().all(|byte| byte.is_ascii_digit()),
    })
}

impl KnownTable {
    /// The command that makes messages of its rows.
    fn filter(&self, name: &str) -> String {
        let column = |name: &str| {
            let at = self.columns.iter().position(|column| *column == name).unwrap_or_default();
            format!("${}", at + 1)
        };
        let (mut pattern, mut values) = (String::new(), Vec::new());
        if let Some(received) = self.received {
            pattern.push_str("%s000 ");
            values.push(column(received));
        }
        pattern.push_str(&format!(r#"{{\"type\":\"{}\",\"event_time\":\"%s\""#, self.kind));
        values.push(format!("t({})", column(self.time)));
        for (field, value) in self.fields {
            match value {
                Given("SYMBOL") => pattern.push_str(&format!(r#",\"{field}\":\"{}\""#, symbol_of(name))),
                Given(text) => pattern.push_str(&format!(r#",\"{field}\":\"{text}\""#)),
                Text(text) => {
                    pattern.push_str(&format!(r#",\"{field}\":\"%s\""#));
                    values.push(column(text));
                }
                Number(number) => {
                    pattern.push_str(&format!(r#",\"{field}\":%s"#));
                    values.push(format!("n({})", column(number)));
                }
                Side(made) => {
                    pattern.push_str(&format!(r#",\"{field}\":\"%s\""#));
                    values.push(format!(r#"(tolower({})=="true"?"sell":"buy")"#, column(made)));
                }
            }
        }
        let rows = if self.has_header { "NR>1" } else { "" };
        let values = values.join(",");
        format!(
            r#"awk -F, 'function t(x){{return strftime("%Y-%m-%dT%H:%M:%S",substr(x,1,10),1)"."substr(x,11)"Z"}} function n(x){{return x==""?"null":x}} {{sub(/\r$/,"")}} {rows}{{printf "{pattern}}}\n",{values}}}'"#
        )
    }
}

/// The symbol that a file's name begins with, as `BTCUSDT-trades-2026-01-01.csv` does.
fn symbol_of(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or_default();
    let symbol = name.split(['-', '.']).next().unwrap_or_default();
    let is_symbol =
        symbol.len() >= 5 && symbol.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    if is_symbol { symbol.to_owned() } else { "SYMBOL".to_owned() }
}
