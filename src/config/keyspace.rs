//! Section `keyspace`: what operators are told of the keys.

use std::time::Duration;

/// What is told, and how often it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspacePolicy {
    /// Each ends a prefix.
    pub delimiters: String,
    /// Prefixes with up to so many of them are counted.
    pub depth: usize,
    /// So many of each depth are told.
    pub prefixes_max: usize,
    /// So many of the largest keys are told.
    pub largest_max: usize,
    /// How long the walk that finds them rests; zero: nothing is walked.
    pub interval: Duration,
}

impl Default for KeyspacePolicy {
    fn default() -> Self {
        let (delimiters, interval) = ("/:".to_owned(), Duration::from_secs(10));
        Self { delimiters, depth: 2, prefixes_max: 100, largest_max: 20, interval }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigErrors, Loaded, Sources, load};

    fn with(delimiters: &str) -> Result<Loaded, ConfigErrors> {
        let environment = vec![("TANDEM__KEYSPACE__DELIMITERS".to_owned(), delimiters.to_owned())];
        load(&Sources { environment, ..Sources::default() })
    }

    #[test]
    fn delimiters_are_a_few_visible_characters() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("shown.yml");
        for good in ["/:", "", r#"\""#, "'#|"] {
            let loaded = with(good).unwrap();
            assert_eq!(loaded.settings.keyspace.delimiters, good);
            std::fs::write(&file, loaded.show()).unwrap();
            let again = load(&Sources { file: Some(file.clone()), ..Sources::default() }).unwrap();
            assert_eq!(again.settings, loaded.settings, "{}", loaded.show());
        }
        for bad in ["/ :", "ä", "/\u{7f}", "0123456789abcdefg"] {
            let errors = with(bad).unwrap_err().to_string();
            assert!(errors.contains("keyspace.delimiters") && errors.contains("it takes up to 16"), "{bad}: {errors}");
        }
    }
}
