//! Signals between tasks: something about a network of this node has changed.

use tokio::sync::broadcast;
use weft_model::NetworkName;

/// Signals that a task may be behind before it takes one for its own.
const BACKLOG: usize = 256;

/// Signals of one kind, to all tasks.
#[derive(Clone)]
pub struct Signals(broadcast::Sender<NetworkName>);

impl Default for Signals {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl Signals {
    /// Tells that the network has changed.
    pub fn send(&self, network: &NetworkName) {
        // Without receivers there is no network.
        let _ = self.0.send(network.clone());
    }

    /// Signals from now on.
    pub fn subscribe(&self) -> Receiver {
        Receiver(self.0.subscribe())
    }
}

/// Signals, as one task sees them.
pub struct Receiver(broadcast::Receiver<NetworkName>);

impl Receiver {
    /// Waits for the next change, and returns the network that it is about; `None` if there were so
    /// many that it may be about any.
    pub async fn next(&mut self) -> Option<NetworkName> {
        match self.0.recv().await {
            Ok(changed) => Some(changed),
            Err(broadcast::error::RecvError::Lagged(_)) => None,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }

    /// Waits until the network has changed, or may have.
    pub async fn changed(&mut self, network: &NetworkName) {
        loop {
            match self.0.recv().await {
                Ok(changed) if changed == *network => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn tasks_hear_of_their_network_only_and_after_too_many_signals_of_all() {
        let name = |name: &str| NetworkName::new(name).unwrap();
        let signals = Signals::default();
        let mut receiver = signals.subscribe();
        signals.send(&name("other"));
        let wait = Duration::from_secs(1);
        assert!(tokio::time::timeout(wait, receiver.changed(&name("red"))).await.is_err());
        signals.send(&name("red"));
        assert!(tokio::time::timeout(wait, receiver.changed(&name("red"))).await.is_ok());
        for _ in 0..=BACKLOG {
            signals.send(&name("other"));
        }
        assert!(tokio::time::timeout(wait, receiver.changed(&name("red"))).await.is_ok());
    }
}
