//! A wire format as a row of the table of venues.

use std::fmt;

use super::detect::Shape;
use super::rows::Rows;
use super::shift::MovablePlace;
use super::subject::Subject;
use super::{VENUES, Venue, Verdict};
use crate::json::field::FieldProblem;

/// All that is known of a wire format.
pub(crate) struct WireFormat {
    /// On the command line and in configuration.
    pub(crate) name: &'static str,
    /// Takes one message apart.
    pub(crate) decode: fn(&str, &mut Rows) -> Result<Verdict, FieldProblem>,
    /// Fraction digits of its times, where they are numbers.
    pub(crate) time_digits: Option<u8>,
    /// First bytes of messages that can only be of this format, where the exchange is one of the venue's.
    pub(crate) begins: &'static [&'static [u8]],
    /// Whether a message of this shape can only be of this format.
    pub(crate) detects: fn(&Shape, &str) -> bool,
    /// What a message is about, where its source names this exchange or none.
    pub(crate) subject: fn(&str, Option<&str>) -> Option<Subject>,
    /// Which of a message's values [`super::shift`] moves.
    pub(crate) movable: fn(&[u8]) -> Movable,
}

/// What stands under a key, given the key of the object around it.
pub(crate) type Movable = fn(parent: &[u8], key: &[u8]) -> Option<MovablePlace>;

/// A wire format.
#[derive(Clone, Copy)]
pub struct Format(pub(crate) &'static WireFormat);

impl Format {
    /// All formats, venue by venue.
    pub fn all() -> impl Iterator<Item = Format> {
        VENUES.iter().flat_map(|venue| venue.formats).map(|format| Format(format))
    }

    /// The name used on the command line and in configuration.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Fraction digits of its times, where they are numbers: 3 where they count milliseconds.
    pub fn time_digits(self) -> Option<u8> {
        self.0.time_digits
    }

    /// The format of that name.
    pub fn parse(name: &str) -> Option<Format> {
        Format::all().find(|format| format.name() == name)
    }

    /// The venue that speaks it.
    pub fn venue(self) -> &'static Venue {
        let speaks = |venue: &&&Venue| venue.formats.iter().any(|format| Format(format) == self);
        VENUES.iter().find(speaks).expect("every format is a venue's")
    }
}

impl PartialEq for Format {
    fn eq(&self, other: &Format) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Format {}

impl fmt::Debug for Format {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(self.name())
    }
}
