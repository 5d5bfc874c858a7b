//! For tests: a waker that tells by which thread it is woken.

use std::{
    sync::{Arc, mpsc},
    task::Wake,
    thread,
};

/// Tells the name of each thread that wakes it.
pub(super) struct Woken(pub(super) mpsc::Sender<String>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        let _nobody_asks = self.0.send(thread::current().name().unwrap_or_default().to_owned());
    }
}
