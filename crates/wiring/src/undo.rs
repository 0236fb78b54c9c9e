//! Steps that a failed attempt takes back, in reverse order.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;

use log::warn;

/// A step that takes something back; it runs only if the attempt fails.
type Step<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// The steps that take back what was done so far.
#[derive(Default)]
pub struct Undo<'a>(Vec<Step<'a>>);

impl<'a> Undo<'a> {
    /// Notes how to take back what was just done.
    pub fn push<T, E: Display>(&mut self, step: impl Future<Output = Result<T, E>> + 'a) {
        self.0.push(Box::pin(async { step.await.map(drop).map_err(|error| error.to_string()) }));
    }

    /// Takes everything back, the last first. A failure is logged and the rest goes on: the caller
    /// of a failed attempt deletes what may be left.
    pub async fn run(self) {
        for step in self.0.into_iter().rev() {
            if let Err(error) = step.await {
                warn!("while taking back a failed attempt: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn takes_steps_back_in_reverse_order_past_one_that_fails() {
        let done = RefCell::new(vec![]);
        let mut undo = Undo::default();
        for step in 1..=3 {
            let done = &done;
            undo.push(async move {
                done.borrow_mut().push(step);
                if step == 2 { Err("no") } else { Ok(()) }
            });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(undo.run());
        assert_eq!(*done.borrow(), [3, 2, 1]);
    }
}
