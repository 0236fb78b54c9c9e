//! Events of links, from one subscription, to the tasks of the networks that the links belong to.

use std::sync::Arc;
use std::time::Duration;

use log::warn;
use tokio::sync::broadcast;
use weft_datapath::events::{Changed, Events};
use weft_model::{Vni, device};

/// Bursts that a task may be behind before it checks its devices without knowing why.
const BACKLOG: usize = 64;

/// Delay before a subscription that failed is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// Events of links, for tasks to subscribe to.
#[derive(Clone)]
pub struct Links(broadcast::Sender<Arc<Changed>>);

impl Default for Links {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl Links {
    /// Events from now on.
    pub fn subscribe(&self) -> LinkEvents {
        LinkEvents(self.0.subscribe())
    }
}

/// Events of links, as one task sees them.
pub struct LinkEvents(broadcast::Receiver<Arc<Changed>>);

impl LinkEvents {
    /// Waits until something has happened to any link, or may have.
    pub async fn any(&mut self) {
        if matches!(self.0.recv().await, Err(broadcast::error::RecvError::Closed)) {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until something has happened to the bridge or the VXLAN device of the network with
    /// this VNI, or may have.
    pub async fn changed(&mut self, vni: Vni) {
        let (bridge, vxlan) = (device::bridge(vni), device::vxlan(vni));
        loop {
            match self.0.recv().await {
                Ok(changed) if changed.concerns(&bridge) || changed.concerns(&vxlan) => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// Passes events on for as long as the future is polled.
pub async fn run(links: Links) {
    loop {
        match Events::subscribe() {
            Ok(mut events) => loop {
                // Without receivers there is no network.
                let _ = links.0.send(Arc::new(events.changed().await));
            },
            Err(error) => {
                warn!("{error}; devices are checked on a timer only, will retry in 30 s");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}
