//! Alert rules, seen from outside.

mod any_script;
mod job;
mod scripts;
mod states;
