//! What a store can answer other than what it was asked for.

/// A failure of the cluster store. Each says which store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It does not answer, or answers that it cannot serve now.
    #[error("the {store} cannot be used now: {cause}")]
    Unreachable {
        /// The store.
        store: String,
        /// What happened.
        cause: String,
    },
    /// It knows who asks and says no.
    #[error("the {store} refuses access ({cause}); check the token and its policies")]
    Denied {
        /// The store.
        store: String,
        /// Its reason.
        cause: String,
    },
    /// It answered something that this program does not understand or that it cannot do.
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
        /// What is wrong with its value.
        reason: String,
    },
    /// The request is too large for the store.
    #[error("a request to the {store} is too large: {what}")]
    TooLarge {
        /// The store.
        store: String,
        /// How large it is, and what the limit is.
        what: String,
    },
    /// The store's options cannot be used.
    #[error("{option} of the {store}: {reason}")]
    Options {
        /// The store.
        store: String,
        /// Which option.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl StoreError {
    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}
