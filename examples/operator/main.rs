//! An operator of one's own: the signed volume of trades over a window, for each instrument of a recorded file.
//!
//! ```text
//! lines ─► decode ─► chain of each instrument: order ─► gaps ─► signed volume ─► printed
//! ```
//! `cargo run --release --example operator -- FILE EXCHANGE` reads a recording of `FILE` that `EXCHANGE` sent. All that an
//! operator needs stands in `signed_volume.rs`; the line that puts it behind the others is [`SignedVolumeChain`].

mod signed_volume;

use std::collections::BTreeMap;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use foreshock::config::{Config, Mode};
use foreshock_dataflows::instruments::Instruments;
use foreshock_operators::chain::Chain;
use foreshock_operators::gaps::Gaps;
use foreshock_operators::links;
use foreshock_operators::links::Out;
use foreshock_operators::operator::Context;
use foreshock_operators::order::Order;
use foreshock_operators::row::{Extent, InstrumentId, Source};
use foreshock_operators::time::TimeText;
use foreshock_operators::venues::{Envelope, Line, Receipt, decode, detect, split_line};
use signed_volume::SignedVolume;

/// Order and gaps as in the product, then the operator of one's own.
type SignedVolumeChain = Chain<Order, links![Gaps, SignedVolume]>;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [file, exchange] = &arguments[..] else { bail!("usage: operator FILE EXCHANGE") };
    let text = fs::read(file).with_context(|| format!("could not read {file:?}"))?;
    let settings = Config::load(&[], [], Mode::Backtest)?.settings;
    let instruments = Instruments::new(settings.instruments.clone());
    let mut resolver = instruments.resolver();
    let mut states: BTreeMap<InstrumentId, SignedVolumeChain> = BTreeMap::new();
    let mut out = Out::new(Context::default(), 0);
    let (mut rows, mut refused) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let Line::Message { received, body } = split_line(line) else { continue };
        let Some(format) = detect(&line[body.clone()]) else { continue };
        let envelope = Envelope {
            received: received.map(Receipt::Stated),
            exchange: Some(exchange),
            checked: false,
            source: Source { file: 0, line: number },
            extent: Extent::default(),
        };
        decode(format, &line[body], &envelope, &mut resolver, &mut rows, &mut refused);
        for row in rows.drain(..) {
            let state = states.entry(row.instrument).or_insert_with(|| {
                SignedVolumeChain::new(&settings.parameters, &instruments.get(row.instrument))
            });
            out.tag(row.instrument, 0);
            state.on_input(row, &mut out, &mut ());
        }
    }
    let mut shown = Vec::new();
    for tagged in &out.values {
        shown.clear();
        TimeText::default().write(tagged.value.time, 3, &mut shown);
        let time = String::from_utf8_lossy(&shown);
        println!("{time} {:10} {:+.4}", instruments.get(tagged.key).name, tagged.value.volume);
    }
    eprintln!("{} trades, {} rows refused", out.values.len(), refused.len());
    Ok(())
}
