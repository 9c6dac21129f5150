//! An ordered parallel map with bounded memory.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Tells the workers to drop what is queued as soon as the caller's part is over, for whatever
/// reason: the end, an error, or a panic in the sink.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A batch and where its result is expected.
type Job<B, O, E> = (B, SyncSender<Result<O, E>>);

/// Pulls batches from `source`, maps them with `work` on `threads` threads, and hands the results
/// to `sink` in the order of the batches.
///
/// `source` runs on a thread of its own, `sink` on the calling thread. `source` is not called again
/// after it returned `None` or an error. At most `2 * threads + 2` batches exist at any time,
/// counting the ones that `source` and `sink` are working on.
///
/// A `source` that blocks, for example on a pipe that nobody writes to, delays the return, since
/// it cannot be stopped from outside.
///
/// # Errors
///
/// The first error in the order of the batches, whether it comes from `source`, `work` or `sink`.
/// `sink` has then seen exactly the results before it (and, if the error is its own, that one).
///
/// # Panics
///
/// A panic in any of the three closures stops the others and is continued on the calling thread.
pub(crate) fn run<B, O, E>(
    threads: usize,
    mut source: impl FnMut() -> Result<Option<B>, E> + Send,
    work: impl Fn(B) -> Result<O, E> + Sync,
    mut sink: impl FnMut(O) -> Result<(), E>,
) -> Result<(), E>
where
    B: Send,
    O: Send,
    E: Send,
{
    let threads = threads.max(1);
    let stop = AtomicBool::new(false);
    // Needs no bound of its own, since every job is announced in the queue of pending results
    // first. So the only thing that the source ever waits for is that queue, and the queue
    // vanishes when the caller stops listening, even if all the workers are gone.
    let (jobs, queue) = channel::<Job<B, O, E>>();
    let queue = Mutex::new(queue);
    thread::scope(|scope| {
        // The queue of pending results is what bounds the memory and what keeps the order. The
        // source puts the receiving end of each result here before it hands out the job: with this
        // queue full, one more batch is with the source and one with the sink.
        let (order, pending) = sync_channel::<Receiver<Result<O, E>>>(2 * threads);
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let (queue, work, stop) = (&queue, &work, &stop);
                scope.spawn(move || {
                    while let Some((batch, result)) = next_job(queue) {
                        if stop.load(Ordering::Relaxed) {
                            continue;
                        }
                        // A failure to send means that the caller stopped listening.
                        let _ = result.send(work(batch));
                    }
                })
            })
            .collect();
        let reader = scope.spawn(move || {
            loop {
                let next = source();
                let (result, receiver) = sync_channel(1);
                // In both failures the other side has stopped, and knows why.
                match next {
                    Ok(None) => return,
                    Ok(Some(batch)) => {
                        if order.send(receiver).is_err() || jobs.send((batch, result)).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        let _ = result.send(Err(error));
                        let _ = order.send(receiver);
                        return;
                    }
                }
            }
        });
        let outcome = {
            let _stop = StopOnDrop(&stop);
            // A result that never comes is that of a worker that panicked. Joining finds the panic.
            // `pending` is dropped here, which makes the source's next `send` fail.
            pending.into_iter().map_while(|receiver| receiver.recv().ok()).try_for_each(|result| sink(result?))
        };
        // A source that panicked looks like the end of the input above. Without these joins its
        // truncated result would be taken for the whole.
        for thread in workers.into_iter().chain([reader]) {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
        outcome
    })
}

/// Takes the next job; `None` when there will be no more.
fn next_job<J>(queue: &Mutex<Receiver<J>>) -> Option<J> {
    // No job runs while the lock is held, so a poisoned lock still guards a sound receiver.
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

#[cfg(test)]
mod tests {
    use super::run;
    use proptest::prelude::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    /// Fails the test, instead of hanging it, if `body` does not come back.
    fn within_ten_seconds<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, finished) = mpsc::channel();
        thread::spawn(move || {
            let _ = done.send(catch_unwind(AssertUnwindSafe(body)));
        });
        match finished.recv_timeout(Duration::from_secs(10)) {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => panic!("the pipeline hangs"),
        }
    }

    fn count_to(end: u32) -> impl FnMut() -> Result<Option<u32>, String> + Send {
        let mut next = 0;
        move || {
            next += 1;
            Ok((next <= end).then_some(next - 1))
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Place {
        Source,
        Work,
        Sink,
    }

    /// Runs over `0..batches`; at the given positions the given place fails.
    fn run_failing(threads: usize, batches: u32, failures: Vec<(Place, u32)>) -> (Result<(), String>, Vec<u32>) {
        within_ten_seconds(move || {
            let mut seen = Vec::new();
            let fails = |place: Place, n: u32| match failures.iter().any(|&(p, at)| at == n && p as u8 == place as u8) {
                true => Err(format!("{place:?} {n}")),
                false => Ok(()),
            };
            let mut next = 0;
            let result = run(
                threads,
                || {
                    if next == batches {
                        return Ok(None);
                    }
                    fails(Place::Source, next)?;
                    next += 1;
                    Ok(Some(next - 1))
                },
                |n| {
                    // Uneven work, so that results are ready out of order.
                    thread::sleep(Duration::from_micros(u64::from(n % 7) * 30));
                    fails(Place::Work, n).map(|()| n)
                },
                |n| {
                    seen.push(n);
                    fails(Place::Sink, n)
                },
            );
            (result, seen)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn keeps_order_and_reports_the_first_error(
            threads in 0_usize..6,
            batches in 0_u32..60,
            failures in proptest::collection::vec(
                (prop_oneof![Just(Place::Source), Just(Place::Work), Just(Place::Sink)], 0_u32..80), 0..4),
        ) {
            let (result, seen) = run_failing(threads, batches, failures.clone());
            // At one position the source comes before the work, and the work before the sink.
            let first = failures.iter().filter(|f| f.1 < batches).min_by_key(|f| (f.1, f.0 as u8));
            match first {
                None => {
                    prop_assert_eq!(result, Ok(()));
                    prop_assert_eq!(seen, (0..batches).collect::<Vec<_>>());
                }
                Some(&(place, at)) => {
                    prop_assert_eq!(result, Err(format!("{place:?} {at}")));
                    let end = if matches!(place, Place::Sink) { at + 1 } else { at };
                    prop_assert_eq!(seen, (0..end).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn holds_few_batches_when_the_sink_is_slow() {
        for threads in 1..=4 {
            let most = within_ten_seconds(move || {
                let (alive, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
                let mut source = count_to(60);
                let result = run(
                    threads,
                    || {
                        let now = alive.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        source()
                    },
                    Ok,
                    |_| {
                        thread::sleep(Duration::from_millis(1));
                        alive.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    },
                );
                assert_eq!(result, Ok(()));
                most.into_inner()
            });
            assert!(most <= 2 * threads + 2, "{most} batches with {threads} threads");
            assert!(most > threads, "{threads} threads were never all busy: {most}");
        }
    }

    #[test]
    fn workers_run_at_the_same_time() {
        // Two batches that each wait for the other: one worker alone would never finish.
        let result = within_ten_seconds(|| {
            let barrier = std::sync::Barrier::new(2);
            run(2, count_to(2), |_| Ok(barrier.wait().is_leader()), |_| Ok(()))
        });
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn a_failing_sink_stops_an_endless_source() {
        let (result, _) = run_failing(3, u32::MAX, vec![(Place::Sink, 5)]);
        assert_eq!(result, Err("Sink 5".to_owned()));
        let (result, _) = run_failing(3, u32::MAX, vec![(Place::Work, 5)]);
        assert_eq!(result, Err("Work 5".to_owned()));
    }

    #[test]
    fn an_error_stops_the_source_promptly() {
        let pulled = within_ten_seconds(|| {
            let pulled = AtomicUsize::new(0);
            let mut source = count_to(u32::MAX);
            let counted = || {
                pulled.fetch_add(1, Ordering::SeqCst);
                source()
            };
            let result = run(2, counted, |n| if n == 3 { Err("at 3".to_owned()) } else { Ok(n) }, |_| Ok(()));
            assert_eq!(result, Err("at 3".to_owned()));
            pulled.into_inner()
        });
        assert!(pulled <= 3 + 2 * 2 + 2, "{pulled} batches were read");
    }

    #[test]
    fn queued_batches_are_dropped_after_an_error() {
        let worked = within_ten_seconds(|| {
            let (worked, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let work = |n| {
                worked.fetch_add(1, Ordering::SeqCst);
                // All but the first wait for the error, and a little more for it to be noticed.
                while n > 0 && failed.load(Ordering::SeqCst) == 0 {
                    thread::yield_now();
                }
                thread::sleep(Duration::from_millis(50));
                Ok(n)
            };
            let sink = |_| {
                failed.store(1, Ordering::SeqCst);
                Err("full".to_owned())
            };
            assert_eq!(run(2, count_to(u32::MAX), work, sink), Err("full".to_owned()));
            worked.into_inner()
        });
        assert!(worked <= 3, "{worked} batches were worked on");
    }

    /// The message of the panic that `body` ends in.
    fn panic_of(body: impl FnOnce() + Send + 'static) -> String {
        within_ten_seconds(move || {
            let panic = catch_unwind(AssertUnwindSafe(body)).expect_err("the panic was swallowed");
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        })
        .expect("a text")
    }

    #[test]
    fn panics_propagate() {
        for threads in 1..4 {
            let message = panic_of(move || {
                let mut n = 0;
                let source = || {
                    n += 1;
                    assert!(n != 9, "source broke");
                    Ok::<_, String>(Some(n))
                };
                let _ = run(threads, source, Ok, |_| Ok(()));
            });
            assert_eq!(message, "source broke");
            let message = panic_of(move || {
                let work = |n: u32| if n == 9 { panic!("work broke") } else { Ok(n) };
                let _ = run(threads, count_to(u32::MAX), work, |_| Ok(()));
            });
            assert_eq!(message, "work broke");
            let message = panic_of(move || {
                let _ =
                    run(threads, count_to(u32::MAX), |_| -> Result<u32, String> { panic!("all broke") }, |_| Ok(()));
            });
            assert_eq!(message, "all broke");
            let message = panic_of(move || {
                let sink = |n: u32| if n == 9 { panic!("sink broke") } else { Ok(()) };
                let _ = run(threads, count_to(u32::MAX), Ok, sink);
            });
            assert_eq!(message, "sink broke");
        }
    }
}
