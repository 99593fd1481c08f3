//! One wake-up for a runtime, however many of its streams have news.
//!
//! Waking a task of another thread costs a system call. A lane is a small task
//! on a runtime: who has news for many of that runtime's tasks leaves their
//! wakers there and wakes the lane once; the lane wakes them at home, for free.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};

/// The lane of one runtime (on a runtime of several threads: of one of them).
#[derive(Default)]
pub(super) struct Lane(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    task: Option<Waker>,
    waiting: Vec<Waker>,
    /// The runtime is gone: nobody is left to wake.
    over: bool,
}

thread_local! {
    static HERE: RefCell<Option<(Id, Weak<Lane>)>> = const { RefCell::new(None) };
}

impl Lane {
    /// The lane of the runtime this thread runs; none outside of one.
    pub(super) fn here() -> Option<Arc<Self>> {
        let runtime = Handle::try_current().ok()?;
        HERE.with_borrow_mut(|here| {
            if let Some((id, lane)) = here
                && *id == runtime.id()
                && let Some(lane) = lane.upgrade()
            {
                return Some(lane);
            }
            let lane = Arc::new(Self::default());
            *here = Some((runtime.id(), Arc::downgrade(&lane)));
            runtime.spawn(Running(lane.clone()).run());
            Some(lane)
        })
    }

    /// Leaves wakers with the lane and wakes it once.
    pub(super) fn wake(&self, wakers: &mut Vec<Waker>) {
        let mut inner = self.0.lock();
        if inner.over {
            wakers.clear();
            return;
        }
        inner.waiting.append(wakers);
        let task = inner.task.take();
        drop(inner);
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// The lane's task; ends with its runtime.
struct Running(Arc<Lane>);

impl Running {
    async fn run(self) {
        let mut wakers = Vec::new();
        poll_fn(|context| {
            {
                let mut inner = self.0.0.lock();
                std::mem::swap(&mut wakers, &mut inner.waiting);
                inner.task = Some(context.waker().clone());
            }
            wakers.drain(..).for_each(Waker::wake);
            Poll::<()>::Pending
        })
        .await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut inner = self.0.0.lock();
        inner.over = true;
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_of_a_runtime_are_woken_from_outside() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let lane = Lane::here().unwrap();
            assert!(Arc::ptr_eq(&lane, &Lane::here().unwrap()));
            let ready = Arc::new(Mutex::new((false, None::<Waker>)));
            let other = {
                let (lane, ready) = (lane.clone(), ready.clone());
                std::thread::spawn(move || {
                    loop {
                        let mut ready = ready.lock();
                        if let Some(waker) = ready.1.take() {
                            ready.0 = true;
                            lane.wake(&mut vec![waker]);
                            return;
                        }
                        drop(ready);
                        std::thread::yield_now();
                    }
                })
            };
            poll_fn(|context| {
                let mut ready = ready.lock();
                if ready.0 {
                    return Poll::Ready(());
                }
                ready.1 = Some(context.waker().clone());
                Poll::Pending
            })
            .await;
            other.join().unwrap();
        });
    }

    #[test]
    fn a_thread_that_runs_another_runtime_gets_another_lane() {
        let lane = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async { Lane::here().unwrap() })
        };
        let (first, second) = (lane(), lane());
        assert!(!Arc::ptr_eq(&first, &second));
        first.wake(&mut vec![Waker::noop().clone()]);
        assert!(first.0.lock().waiting.is_empty());
        assert!(Lane::here().is_none());
    }
}
