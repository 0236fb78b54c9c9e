//! Errors of the cluster store.

/// A failure of the cluster store. Each names the store or the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store does not answer, or answers that it cannot serve now.
    #[error("the {store} cannot be used now: {cause}")]
    Unreachable {
        /// The store.
        store: String,
        /// The cause.
        cause: String,
    },
    /// The store does not grant the token a right that the request needs. This includes a list that
    /// would come back empty or with entries missing for that reason.
    #[error("the {store} denies {right} ({cause}); check the token and its policies")]
    Denied {
        /// The store.
        store: String,
        /// The missing right and what it is for, in the store's terms:
        /// `read on key_prefix "weft/v1/nodes/"`.
        right: String,
        /// The store's reason.
        cause: String,
    },
    /// The store answered something that this program does not understand.
    #[error("the {store} answered {answer}")]
    Unexpected {
        /// The store.
        store: String,
        /// Its answer.
        answer: String,
    },
    /// A value is not what weft writes there.
    #[error("{key} in the cluster store cannot be read: {reason}")]
    BadValue {
        /// The key.
        key: String,
        /// The defect of its value.
        reason: String,
    },
    /// The request is larger than every store can take.
    #[error("a request to the {store} is too large: {what}")]
    TooLarge {
        /// The store.
        store: String,
        /// Its size and the limit.
        what: String,
    },
    /// The request breaks a rule that all stores share. This is a defect of the program.
    #[error("a request to the {store} is not valid: {what}")]
    Invalid {
        /// The store.
        store: String,
        /// The rule that the request breaks, and the key.
        what: String,
    },
    /// The store's options cannot be used.
    #[error("{option} of the {store}: {reason}")]
    Options {
        /// The store.
        store: String,
        /// The option.
        option: &'static str,
        /// The defect of its value.
        reason: String,
    },
}

impl StoreError {
    /// Returns whether the same request may succeed later although nobody changed a configuration.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}
