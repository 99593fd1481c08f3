//! What a checker found.

use serde::{Deserialize, Serialize};

/// Something that must not be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Who found it, such as `watch`.
    pub checker: String,
    /// What it is called, such as `watch-gap`.
    pub name: String,
    /// What was seen, and why it cannot be, for people.
    pub explanation: String,
    /// Which operations of the history show it.
    #[serde(default)]
    pub operations: Vec<usize>,
    /// Which watch of the history shows it.
    #[serde(default)]
    pub watch: Option<usize>,
}
<<<<<<< HEAD

impl Anomaly {
    /// One without a watch.
    pub fn new(checker: &str, name: &str, operations: Vec<usize>, explanation: String) -> Self {
        Self { checker: checker.into(), name: name.into(), explanation, operations, watch: None }
    }
}
=======
>>>>>>> report
