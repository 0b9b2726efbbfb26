//! OKX v5. Its acknowledgements are told from its data; no channel is used yet, so all data is ignored.

use super::Verdict;
use super::field::{Field, FieldProblem};
use super::message::{fill, message};

message! {
    Message {
        event: "event",
        op: "op",
        arg: "arg",
        data: "data",
    }
}

/// Reads one message.
pub(super) fn decode(text: &str) -> Result<Verdict, FieldProblem> {
    // Signs of life of the connection, which are no JSON.
    if matches!(text, "ping" | "pong") {
        return Ok(Verdict::Control);
    }
    let mut message = Message::default();
    fill(text, &mut message)?;
    if message.event.text().is_some() || message.op.text().is_some() {
        return Ok(Verdict::Control);
    }
    match message.data {
        Field::List => Ok(Verdict::Ignored),
        other => Err(other.wrong("data", "a list")),
    }
}

/// Whether a message can only be of this format: data or an acknowledgement with its subscription.
pub(super) fn is_okx(text: &str) -> bool {
    let mut message = Message::default();
    let is_subscription = |field: &Field| matches!(field, Field::Object);
    fill(text, &mut message).is_ok()
        && is_subscription(&message.arg)
        && (matches!(message.data, Field::List) || message.event.text().is_some())
}
