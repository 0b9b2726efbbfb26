//! One message ─► its rows, with the account of what became of it: the same for files and topics.

use foreshock_operators::account::{DeadLetter, Ledger, Notice, Reason};
use foreshock_operators::row::{Extent, Row, Source};
use foreshock_operators::venues::{Envelope, Format, RefusedRow, Verdict, decode};

use crate::batch::TimeRange;
use crate::control::{FoundRecord, is_record};
use crate::instruments::Resolver;

/// What bounds the messages and rows that are taken.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub range: TimeRange,
    /// A longer message is refused.
    pub max_message_bytes: usize,
    /// Whether control records are obeyed, not counted only.
    pub control: bool,
}

/// The account of one batch while it is decoded.
#[derive(Debug, Default)]
pub struct BatchLedger {
    pub ledger: Ledger,
    /// Position in the batch of the next row or refusal.
    pub order: u32,
    /// Control records that are still to be read.
    pub records: Vec<FoundRecord>,
}

/// Decodes messages one by one.
pub struct Messages {
    pub limits: Limits,
    resolver: Resolver,
    rows: Vec<Row>,
    refused: Vec<RefusedRow>,
    /// Whether it was said that times come in another unit than the venue's.
    has_told_unit: bool,
}

impl Messages {
    pub fn new(limits: Limits, resolver: Resolver) -> Messages {
        Messages { limits, resolver, rows: Vec::new(), refused: Vec::new(), has_told_unit: false }
    }

    /// Takes a message apart and gives its rows, each with its position in the batch. Says so where the message
    /// is of another market than its envelope names.
    pub fn take_message(
        &mut self,
        format: Format,
        message: &[u8],
        envelope: &Envelope,
        account: &mut BatchLedger,
        give: impl FnMut(u32, Row),
    ) -> Option<String> {
        let (source, extent) = (envelope.source, envelope.extent);
        if message.len() > self.limits.max_message_bytes {
            let detail = self.too_large(message.len() as u64);
            account.refuse_message(source, extent, Reason::TooLarge, detail);
            return None;
        }
        self.rows.clear();
        self.refused.clear();
        let verdict =
            decode(format, message, envelope, &mut self.resolver, &mut self.rows, &mut self.refused);
        if may_be_control(&verdict) && is_control(message) {
            self.control(message, source, extent, account);
            return None;
        }
        match verdict {
            Verdict::Control => account.control_message(),
            Verdict::Ignored => {
                account.ledger.counts.messages_in += 1;
                account.ledger.counts.messages_ignored += 1;
            }
            Verdict::Rows => {
                self.look_at_unit(format, account);
                self.deal(source, extent, account, give);
            }
            Verdict::RefusedRow { reason, detail } => account.refuse_message(source, extent, reason, detail),
            Verdict::Contradiction { found } => {
                let expected = envelope.exchange.unwrap_or_default();
                let detail = format!("a message of {found} in a file of {expected}");
                account.refuse_message(source, extent, Reason::OtherMarket, detail.clone());
                return Some(detail);
            }
        }
        None
    }

    /// Says once that a venue's times are in another unit than it is known for.
    fn look_at_unit(&mut self, format: Format, account: &mut BatchLedger) {
        let (Some(known), false) = (format.time_digits(), self.has_told_unit) else { return };
        // Those of receipts have nine digits.
        let Some(row) = self.rows.iter().find(|row| row.digits != known && row.digits < 9) else { return };
        self.has_told_unit = true;
        let unit = if row.digits == 0 { "s" } else { "µs" };
        let text = format!(
            "times of {} come in {unit}, where its venue has ms; they are read as what they are",
            format.name()
        );
        account.ledger.notices.push(Notice { instrument: None, text });
    }

    /// Takes a control message: one that is a record of ours is read by whoever knows the shard.
    fn control(&self, message: &[u8], source: Source, extent: Extent, account: &mut BatchLedger) {
        if self.limits.control && is_record(message) {
            account.found_record(source, extent);
        } else {
            account.control_record();
        }
    }

    /// Takes a message that its header calls a control record, whatever it holds.
    pub fn headed_control(&self, source: Source, extent: Extent, account: &mut BatchLedger) {
        if !self.limits.control {
            account.control_record();
        } else if extent.length as usize > self.limits.max_message_bytes {
            let detail = self.too_large(u64::from(extent.length));
            account.refuse_message(source, extent, Reason::TooLarge, detail);
        } else {
            account.found_record(source, extent);
        }
    }

    /// Has symbols stand for what this one says from now on.
    pub fn resolve_by(&mut self, resolver: Resolver) {
        self.resolver = resolver;
    }

    /// What is wrong with a message of this length.
    pub fn too_large(&self, length: u64) -> String {
        format!("{length} bytes, expected at most {}", self.limits.max_message_bytes)
    }

    fn deal(
        &mut self,
        source: Source,
        extent: Extent,
        account: &mut BatchLedger,
        mut give: impl FnMut(u32, Row),
    ) {
        let before = self.rows.len() + self.refused.len();
        let range = self.limits.range;
        self.rows.retain(|row| range.contains(row.event_time));
        self.refused.retain(|refused| refused.event_time.is_none_or(|time| range.contains(time)));
        let counts = &mut account.ledger.counts;
        let outside = before - self.rows.len() - self.refused.len();
        counts.outside += outside as i64;
        if outside > 0 && self.rows.is_empty() && self.refused.is_empty() {
            return;
        }
        counts.messages_in += 1;
        counts.messages_rows += 1;
        counts.rows_in += (self.rows.len() + self.refused.len()) as i64;
        for mut row in self.rows.drain(..) {
            row.alone = before == 1;
            give(account.order, row);
            account.order += 1;
        }
        for RefusedRow { index, reason, detail, .. } in self.refused.drain(..) {
            account.ledger.counts.rows_deadlettered += 1;
            account.refuse(source, index, extent, reason, detail);
        }
    }
}

impl BatchLedger {
    /// Counts a message that is an acknowledgement or a line of the recorder's.
    pub fn control_message(&mut self) {
        self.ledger.counts.messages_in += 1;
        self.ledger.counts.messages_control += 1;
    }

    /// Counts a control record that is not obeyed.
    pub fn control_record(&mut self) {
        self.control_message();
        self.ledger.counts.control_records += 1;
    }

    /// Keeps a control record of ours; its fate is counted by whoever reads it.
    pub fn found_record(&mut self, source: Source, extent: Extent) {
        self.records.push(FoundRecord { order: self.order, source, extent });
        self.order += 1;
    }

    /// Refuses a whole message.
    pub fn refuse_message(&mut self, source: Source, extent: Extent, reason: Reason, detail: String) {
        self.ledger.counts.messages_in += 1;
        self.ledger.counts.messages_deadlettered += 1;
        self.refuse(source, 0, extent, reason, detail);
    }

    fn refuse(&mut self, source: Source, index: u32, extent: Extent, reason: Reason, detail: String) {
        self.ledger.refuse(DeadLetter {
            order: self.order,
            reason,
            detail,
            source,
            index,
            extent,
            original: None,
        });
        self.order += 1;
    }
}

/// Whether a decoder's word leaves room for a control record, which stands in logs of any format (docs/definitions.md, "Control records").
fn may_be_control(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Control | Verdict::Ignored => true,
        Verdict::RefusedRow { reason, .. } => *reason == Reason::WrongType,
        Verdict::Rows | Verdict::Contradiction { .. } => false,
    }
}

fn is_control(message: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Record<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
    }
    memchr::memmem::find(message, b"\"control\"").is_some()
        && serde_json::from_slice::<Record>(message).is_ok_and(|record| record.kind == "control")
}
