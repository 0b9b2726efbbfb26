//! Which instrument a symbol stands for: one table for all workers, asked once for each new symbol.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use foreshock_operators::account::Notice;
use foreshock_operators::operator::Instrument;
use foreshock_operators::row::{Channel, InstrumentId};
use foreshock_operators::venues::{ClockSource, Resolve, Resolved};
use rustc_hash::FxHashMap;

use crate::settings::{ClockChoice, ExchangeSettings, InheritedLimit, InstrumentSettings, Unknown};
use crate::subjects::Subjects;

/// All instruments of a job, as some settings see them. Clones share one table.
///
/// Numbers are given in the order of asking, which differs from run to run with several workers; nothing that is
/// written depends on them.
#[derive(Clone, Debug)]
pub struct Instruments {
    view: Arc<View>,
    shared: Arc<Shared>,
}

/// Which instrument a symbol stands for under some settings.
#[derive(Debug)]
struct View {
    settings: InstrumentSettings,
    /// Positions in the list of instruments, by exchange and symbol, and by exchange and canonical name.
    by_symbol: ListIndex,
    by_name: ListIndex,
    symbols: RwLock<Symbols>,
}

#[derive(Debug, Default)]
struct Shared {
    table: RwLock<Table>,
    too_many: AtomicBool,
    conflict: OnceLock<OwnershipConflict>,
}

/// An instrument that was met in two shards: then nobody knows the order of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnershipConflict {
    pub instrument: InstrumentId,
    pub owner: u32,
    pub met_in: u32,
}

type ListIndex = HashMap<String, HashMap<String, usize>>;

/// By exchange, then by symbol and by canonical name.
#[derive(Debug, Default)]
struct Symbols(HashMap<Arc<str>, HashMap<Arc<str>, Resolved>>);

#[derive(Debug, Default)]
struct Table {
    instruments: Vec<Arc<Instrument>>,
    /// By instrument number: the clock that its rows run on.
    clocks: Vec<ClockSource>,
    /// By exchange and symbol: the number entered last.
    latest: HashMap<(Arc<str>, Arc<str>), InstrumentId>,
    /// By instrument number: the shard it was first met in, in a live job.
    owners: Vec<Option<u32>>,
    /// The instruments that got an owner, in the order in which they did.
    assigned: Vec<(InstrumentId, u32)>,
}

impl Instruments {
    /// A table in which the listed instruments are known and the others are treated as `settings` says.
    pub fn new(settings: InstrumentSettings) -> Instruments {
        let (mut by_symbol, mut by_name) = (ListIndex::new(), ListIndex::new());
        for (at, listed) in settings.listed.iter().enumerate() {
            let of_exchange = |index: &mut ListIndex, name: &String| {
                index.entry(listed.exchange.clone()).or_default().entry(name.clone()).or_insert(at);
            };
            of_exchange(&mut by_symbol, &listed.symbol);
            of_exchange(&mut by_name, &listed.id);
        }
        let view = View { settings, by_symbol, by_name, symbols: RwLock::default() };
        Instruments { view: Arc::new(view), shared: Arc::default() }
    }

    /// The same table as other settings see it. An instrument that they define alike keeps its number; one that they
    /// define otherwise gets a new one, so that it begins anew.
    pub fn under(&self, settings: InstrumentSettings) -> Instruments {
        let Instruments { view, .. } = Instruments::new(settings);
        Instruments { view, shared: self.shared.clone() }
    }

    /// The instrument with this number.
    pub fn get(&self, id: InstrumentId) -> Arc<Instrument> {
        self.read().instruments[id.0 as usize].clone()
    }

    /// All that is known of an instrument beside its number, as text: alike only for those that are defined alike.
    pub fn definition(&self, id: InstrumentId) -> String {
        let table = self.read();
        let (instrument, clock) = (&table.instruments[id.0 as usize], table.clocks[id.0 as usize]);
        let Instrument { name, quote_channel, trade_channel, gap_after, max_jump, .. } = &**instrument;
        format!("{name} {quote_channel:?} {trade_channel:?} {gap_after:?} {max_jump:?} {clock:?}")
    }

    /// Notices as text, with the instrument that they are of.
    pub fn describe(&self, notices: &[Notice]) -> Vec<String> {
        let text = |Notice { instrument, text }: &Notice| match instrument {
            Some(id) => {
                let instrument = self.get(*id);
                format!("{}:{}: {text}", instrument.exchange, instrument.name)
            }
            None => text.clone(),
        };
        notices.iter().map(text).collect()
    }

    /// Whether a row was refused because there would have been more instruments than settings allow.
    pub fn too_many(&self) -> bool {
        self.shared.too_many.load(Ordering::Relaxed)
    }

    /// The instruments met so far, ordered by exchange and name: an order that is the same in every run.
    pub fn by_name(&self) -> Vec<Arc<Instrument>> {
        let mut instruments = self.read().instruments.clone();
        instruments.sort_by(|a, b| (&a.exchange, &a.name).cmp(&(&b.exchange, &b.name)));
        instruments
    }

    /// The shard that an instrument belongs to, once it was met in one.
    pub fn owner(&self, id: InstrumentId) -> Option<u32> {
        self.read().owners.get(id.0 as usize).copied().flatten()
    }

    /// The instruments that got an owner after the first `known` ones, with that.
    pub fn owned_after(&self, known: usize) -> Vec<(Arc<Instrument>, u32)> {
        let table = self.read();
        let fresh = table.assigned.iter().skip(known);
        fresh.map(|(id, shard)| (table.instruments[id.0 as usize].clone(), *shard)).collect()
    }

    /// Enters an instrument that a shard is known to have. `None`: the settings don't take it.
    pub fn enter_owned(&self, exchange: &str, symbol: &str, shard: u32) -> Option<InstrumentId> {
        let id = self.enter(exchange, symbol)?.instrument;
        self.assign_owner(id, shard);
        Some(id)
    }

    /// The first instrument that was met in two shards, if any.
    pub fn conflict(&self) -> Option<&OwnershipConflict> {
        self.shared.conflict.get()
    }

    /// A view of the table for one decoder, with a memory of its own.
    pub fn resolver(&self) -> Resolver {
        Resolver { instruments: self.clone(), shard: None, known: Vec::new() }
    }

    /// A view for the decoder of one shard: the instruments it meets are owned by it.
    pub fn resolver_of_shard(&self, shard: u32) -> Resolver {
        Resolver { shard: Some(shard), ..self.resolver() }
    }

    fn assign_owner(&self, id: InstrumentId, shard: u32) {
        let mut table = self.shared.table.write().unwrap_or_else(PoisonError::into_inner);
        let at = id.0 as usize;
        if table.owners.len() <= at {
            table.owners.resize(at + 1, None);
        }
        if table.owners[at].is_none() {
            table.assigned.push((id, shard));
        }
        let owner = *table.owners[at].get_or_insert(shard);
        if owner != shard {
            // The first one is reason enough.
            let _ = self.shared.conflict.set(OwnershipConflict { instrument: id, owner, met_in: shard });
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.shared.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a symbol, or enters it when it may be.
    fn enter(&self, exchange: &str, symbol: &str) -> Option<Resolved> {
        let View { settings, by_symbol, by_name, symbols } = &*self.view;
        let known = symbols.read().unwrap_or_else(PoisonError::into_inner).find(exchange, symbol);
        if known.is_some() {
            return known;
        }
        let listed_as = |index: &ListIndex, name: &str| index.get(exchange)?.get(name).copied();
        let listed = listed_as(by_symbol, symbol).or(listed_as(by_name, symbol));
        let listed = listed.map(|at| &settings.listed[at]);
        if listed.is_none() && settings.unknown == Unknown::DeadLetter {
            return None;
        }
        let mut symbols = symbols.write().unwrap_or_else(PoisonError::into_inner);
        // Another worker may have entered it in the meantime.
        if let Some(known) = symbols.find(exchange, symbol) {
            return Some(known);
        }
        let own = listed.map(|l| &l.settings);
        let venue = settings.exchanges.get(exchange);
        let instrument = Instrument {
            id: InstrumentId(0),
            exchange: exchange.into(),
            symbol: listed.map_or(symbol, |l| &l.symbol).into(),
            name: listed.map_or(symbol, |l| &l.id).into(),
            quote_channel: own.and_then(|s| s.quote_channel).or(venue.and_then(|s| s.quote_channel)),
            trade_channel: own.and_then(|s| s.trade_channel).or(venue.and_then(|s| s.trade_channel)),
            gap_after: InheritedLimit::in_force(
                own.map(|s| s.gap_after),
                venue.map(|s| s.gap_after),
                settings.gap_after,
            ),
            max_jump: InheritedLimit::in_force(
                own.map(|s| s.max_jump),
                venue.map(|s| s.max_jump),
                settings.max_jump,
            ),
        };
        let clock = clock(own, venue, &instrument);
        let mut table = self.shared.table.write().unwrap_or_else(PoisonError::into_inner);
        let Some(id) = table.number(&instrument, clock, settings.max) else {
            self.shared.too_many.store(true, Ordering::Relaxed);
            return None;
        };
        let resolved = Resolved { instrument: id, clock };
        let symbols = symbols.0.entry(instrument.exchange.clone()).or_default();
        symbols.insert(instrument.symbol.clone(), resolved);
        // A name that is another instrument's symbol stands for that one, whichever of the two comes first.
        if listed_as(by_symbol, &instrument.name).is_none() {
            symbols.insert(instrument.name, resolved);
        }
        Some(resolved)
    }
}

impl Symbols {
    fn find(&self, exchange: &str, symbol: &str) -> Option<Resolved> {
        self.0.get(exchange)?.get(symbol).copied()
    }
}

impl Table {
    /// The number of an instrument: a new one where it is new, or was last defined otherwise. `None`: that would be
    /// more than `max`.
    fn number(&mut self, instrument: &Instrument, clock: ClockSource, max: usize) -> Option<InstrumentId> {
        let name = (instrument.exchange.clone(), instrument.symbol.clone());
        let latest = self.latest.get(&name).copied();
        if let Some(id) = latest {
            let at = id.0 as usize;
            if *self.instruments[at] == (Instrument { id, ..instrument.clone() }) && self.clocks[at] == clock
            {
                return Some(id);
            }
        }
        // What takes the place of another is not one more.
        if self.latest.len() >= max && latest.is_none() {
            return None;
        }
        let id = InstrumentId(self.instruments.len() as u32);
        if let Some(owner) = latest.and_then(|latest| self.owners.get_mut(latest.0 as usize)) {
            // Its successor is what the shard has of it from now on.
            *owner = None;
        }
        self.instruments.push(Arc::new(Instrument { id, ..instrument.clone() }));
        self.clocks.push(clock);
        self.latest.insert(name, id);
        Some(id)
    }
}

impl Subjects for Instruments {
    type Key = InstrumentId;
    type Subject = Instrument;

    fn index(key: InstrumentId) -> usize {
        key.0 as usize
    }

    fn subject(&self, key: InstrumentId) -> Arc<Instrument> {
        self.get(key)
    }

    fn shard_of(&self, key: InstrumentId) -> Option<u32> {
        self.owner(key)
    }

    fn of_shard(&self, shard: u32) -> Vec<InstrumentId> {
        let table = self.read();
        let numbered = (0..).map(InstrumentId).zip(&table.owners);
        numbered.filter(|(_, owner)| **owner == Some(shard)).map(|(id, _)| id).collect()
    }

    fn in_order(&self) -> Vec<InstrumentId> {
        self.by_name().into_iter().map(|instrument| instrument.id).collect()
    }
}

/// The clock that an instrument's rows run on: never mixed, so decided before its first row.
fn clock(
    own: Option<&ExchangeSettings>,
    venue: Option<&ExchangeSettings>,
    instrument: &Instrument,
) -> ClockSource {
    let choice = |settings: Option<&ExchangeSettings>| settings.map_or(ClockChoice::Auto, |s| s.clock);
    let choice = match choice(own) {
        ClockChoice::Auto => choice(venue),
        chosen => chosen,
    };
    match choice {
        ClockChoice::Exchange => ClockSource::Exchange,
        ClockChoice::Received => ClockSource::Received,
        // A quote channel that has a time of its own, where others of the venue have none.
        ClockChoice::Auto
            if instrument.quote_channel.is_some_and(|channel| channel != Channel::BookTicker) =>
        {
            ClockSource::Exchange
        }
        ClockChoice::Auto => ClockSource::Auto,
    }
}

/// How many symbols of an exchange are remembered before those that are not taken are no longer.
const UNKNOWN_REMEMBERED: usize = 4_096;

/// How many bytes of a symbol are looked up as numbers.
const PACKED: usize = 24;

/// One decoder's view of [`Instruments`]: a symbol met before costs a look into its own table of integers, with
/// no lock and without hashing text.
#[derive(Debug)]
pub struct Resolver {
    instruments: Instruments,
    shard: Option<u32>,
    /// One for each exchange, few.
    known: Vec<KnownSymbols>,
}

/// The symbols of one exchange that were met before.
#[derive(Debug)]
struct KnownSymbols {
    exchange: Box<str>,
    /// `None` for those that are not taken.
    numbers: FxHashMap<[u64; PACKED / 8], Option<Resolved>>,
}

impl Resolve for Resolver {
    fn resolve(&mut self, exchange: &str, symbol: &str) -> Option<Resolved> {
        let Some(packed) = pack(symbol) else { return self.enter(exchange, symbol) };
        let position = self.known.iter().position(|known| *known.exchange == *exchange);
        let number = position.and_then(|at| self.known[at].numbers.get(&packed));
        if let Some(number) = number {
            return *number;
        }
        let resolved = self.enter(exchange, symbol);
        if position.is_none() && resolved.is_none() {
            return None;
        }
        let at = position.unwrap_or_else(|| {
            self.known.push(KnownSymbols { exchange: exchange.into(), numbers: FxHashMap::default() });
            self.known.len() - 1
        });
        let numbers = &mut self.known[at].numbers;
        // Symbols that are not taken have no end in a feed that is damaged.
        if resolved.is_some() || numbers.len() < UNKNOWN_REMEMBERED {
            numbers.insert(packed, resolved);
        }
        resolved
    }
}

impl Resolver {
    fn enter(&self, exchange: &str, symbol: &str) -> Option<Resolved> {
        let resolved = self.instruments.enter(exchange, symbol)?;
        if let Some(shard) = self.shard {
            self.instruments.assign_owner(resolved.instrument, shard);
        }
        Some(resolved)
    }
}

/// A symbol's bytes as integers; `None` for one that is too long. Symbols hold no zero byte, so the padding
/// can't make two alike.
fn pack(symbol: &str) -> Option<[u64; PACKED / 8]> {
    let mut bytes = [0u8; PACKED];
    bytes.get_mut(..symbol.len())?.copy_from_slice(symbol.as_bytes());
    let (words, _) = bytes.as_chunks::<8>();
    Some(std::array::from_fn(|i| u64::from_le_bytes(words[i])))
}
