//! The threads of a member beside its runtimes.
//!
//! Each part has one place where it begins and waits for work without holding
//! the thread, so that a simulation can do the work of a whole cluster in turn,
//! on one thread and in an order that a seed decides.

#[cfg(not(feature = "simulation"))]
pub use real::{Running, aside, blocking, start, turn};
#[cfg(feature = "simulation")]
pub use simulated::{Running, aside, blocking, start, turn};

#[cfg(not(feature = "simulation"))]
mod real {
    use std::future::Future;
    use std::io;
    use std::thread::{self, Builder, JoinHandle};

    use tokio::task::JoinError;

    /// Work that was started.
    pub struct Running<T>(JoinHandle<T>);

    impl<T> Running<T> {
        /// Waits for its end.
        ///
        /// # Errors
        /// What it panicked with.
        pub fn join(self) -> thread::Result<T> {
            self.0.join()
        }
    }

    /// Does the work on a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start<F>(name: &str, work: F) -> io::Result<Running<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let thread = Builder::new().name(name.into());
        Ok(Running(thread.spawn(move || futures::executor::block_on(work))?))
    }

    /// Does something that takes its time on a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn aside(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        Builder::new().name(name.into()).spawn(work).map(drop)
    }

    /// Does something that takes its time on a thread for such things.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        tokio::task::spawn_blocking(work).await
    }

    /// The next piece of work is about to be done. Nothing to wait for: the system says whose turn it is.
    pub async fn turn() {}
}

#[cfg(feature = "simulation")]
mod simulated {
    use std::future::Future;
    use std::io;

    use tokio::task::{JoinError, JoinHandle};

    use crate::simulation;

    /// Work that was started.
    pub struct Running<T>(JoinHandle<T>);

    impl<T> Running<T> {
        /// Waits for its end, from outside of a runtime.
        ///
        /// # Errors
        /// What it panicked with.
        pub fn join(self) -> std::thread::Result<T> {
            futures::executor::block_on(self.0).map_err(JoinError::into_panic)
        }

        /// Waits for its end.
        ///
        /// # Errors
        /// When it panicked.
        pub async fn ended(self) -> Result<T, JoinError> {
            self.0.await
        }
    }

    /// Does the work in turn with all other.
    ///
    /// # Errors
    /// Never.
    pub fn start<F>(_name: &str, work: F) -> io::Result<Running<F::Output>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        Ok(Running(tokio::spawn(work)))
    }

    /// Does something later.
    ///
    /// # Errors
    /// Never.
    pub fn aside(_name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        tokio::spawn(async move {
            turn().await;
            work();
        });
        Ok(())
    }

    /// Does something later, and waits for it.
    ///
    /// # Errors
    /// Never.
    pub async fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        turn().await;
        Ok(work())
    }

    /// The next piece of work is about to be done: after as long as the simulation lets it wait.
    pub async fn turn() {
        simulation::wait(simulation::Work::Thread).await;
    }
}
