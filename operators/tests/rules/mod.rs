//! Alert rules, seen from outside.

mod any_script;
mod changed;
mod job;
mod scripts;
mod states;
