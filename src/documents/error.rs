//! What is wrong with a configuration, all of it at once, and where.

use std::fmt;
use std::sync::Arc;

/// More errors than this are counted, not kept.
const MAX_LISTED: usize = 50;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Built into the program.
    Default,
    /// A line of a file, counted from 1; 0 stands for the file as a whole.
    File { name: Arc<str>, line: u32 },
    /// An environment variable.
    Variable(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { name, line: 0 } => f.write_str(name),
            Origin::File { name, line } => write!(f, "{name}:{line}"),
            Origin::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub origin: Origin,
    /// The key, with dots between levels; empty where the whole file is meant.
    pub path: String,
    /// What was found, and what is allowed.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let separator = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{}: {}{separator}{}", self.origin, self.path, self.problem)
    }
}

/// Everything that is wrong with a configuration, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors {
    listed: Vec<ConfigError>,
    /// How many more there are than are listed.
    unlisted: usize,
}

impl ConfigErrors {
    /// The errors, in the order of their files and lines.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.listed.iter()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    pub(crate) fn add(&mut self, origin: Origin, path: impl Into<String>, problem: impl Into<String>) {
        if self.listed.len() == MAX_LISTED {
            self.unlisted += 1;
        } else {
            self.listed.push(ConfigError { origin, path: path.into(), problem: problem.into() });
        }
    }

    /// Takes over another list of errors, put in the order of its lines.
    pub(crate) fn absorb(&mut self, mut other: ConfigErrors) {
        other.listed.sort_by(|a, b| a.origin.cmp(&b.origin));
        self.unlisted += other.unlisted;
        for ConfigError { origin, path, problem } in other.listed {
            self.add(origin, path, problem);
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (at, error) in self.listed.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        if self.unlisted > 0 {
            write!(f, "\nand {} more", self.unlisted)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u32) -> Origin {
        Origin::File { name: "my.yaml".into(), line }
    }

    #[test]
    fn one_line_an_error_by_line() {
        let (mut all, mut file) = (ConfigErrors::default(), ConfigErrors::default());
        file.add(at(12), "features.window", "found 60");
        file.add(at(0), "", "too large");
        all.absorb(file);
        all.add(Origin::Variable("FORESHOCK_X__Y".into()), "x.y", "found \"z\"");
        let lines = "my.yaml: too large\nmy.yaml:12: features.window: found 60\n\
                     environment variable FORESHOCK_X__Y: x.y: found \"z\"";
        assert_eq!(all.to_string(), lines);
    }

    #[test]
    fn a_thousand_errors_are_counted() {
        let mut errors = ConfigErrors::default();
        (1..=1000).for_each(|line| errors.add(at(line), "", "wrong"));
        assert_eq!(errors.iter().count(), MAX_LISTED);
        assert!(errors.to_string().ends_with("\nand 950 more"));
    }
}
