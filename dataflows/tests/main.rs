//! How inputs come to states, in which order, and what is kept of them. One binary, since each would hold all libraries.

mod control;
mod instruments;
mod keyed;
