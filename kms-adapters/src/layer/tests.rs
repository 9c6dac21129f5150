//! The layer on a paused clock, above an adapter that does as it is told.

use super::*;
use keyfold::{KmsContext, Lineage, wire::KeyId};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tokio::time::sleep;

/// What the adapter does, asked with the number of the attempt (from 1) and the time since the first.
type Script = Box<dyn Fn(u32, Duration) -> Step + Send + Sync>;

enum Step {
    Answer,
    Fail(Failure),
    FailUnsent(Failure),
    AnswerAfter(Duration),
    Hang,
}

struct Scripted {
    script: Script,
    begun: Instant,
    attempts: AtomicU32,
}

impl Scripted {
    async fn step(&self, trace: Option<&KmsTrace>) -> Attempt<()> {
        let number = self.attempts.fetch_add(1, Ordering::SeqCst) + 1;
        let step = (self.script)(number, self.begun.elapsed());
        if let (Some(trace), false) = (trace, matches!(step, Step::FailUnsent(_))) {
            trace.request_sent();
            trace.set_request_id(&format!("00000000-0000-4000-8000-{number:012}"));
        }
        match step {
            Step::Answer => Ok(()),
            Step::Fail(failure) | Step::FailUnsent(failure) => Err(failure),
            Step::AnswerAfter(time) => {
                sleep(time).await;
                Ok(())
            }
            Step::Hang => std::future::pending().await,
        }
    }
}

impl Adapter for Scripted {
    fn label(&self) -> &str {
        "scripted"
    }

    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Attempt<WrappedKey>> {
        Box::pin(async move {
            self.step(request.trace).await?;
            Ok(WrappedKey { kek_version: String::new(), bytes: request.payload.expose().to_vec() })
        })
    }

    fn check(&self, wrapped: &WrappedKey) -> Attempt<()> {
        match wrapped.kek_version.as_str() {
            "foreign" => Err(Failure::new(KmsErrorKind::WrongKey, "of another key")),
            _ => Ok(()),
        }
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Attempt<Secret<64>>> {
        Box::pin(async move {
            self.step(request.trace).await?;
            Ok(Secret::with(|payload| payload.copy_from_slice(&request.wrapped.bytes)))
        })
    }
}

fn layered(limits: Limits, script: impl Fn(u32, Duration) -> Step + Send + Sync + 'static) -> Layered<Scripted> {
    let adapter = Scripted { script: Box::new(script), begun: Instant::now(), attempts: AtomicU32::new(0) };
    Layered::new(adapter, limits).unwrap().in_callers_runtime()
}

fn attempts(kms: &Layered<Scripted>) -> u32 {
    kms.adapter().attempts.load(Ordering::SeqCst)
}

async fn unwrap(kms: &Layered<Scripted>) -> Result<Secret<64>> {
    unwrap_of(kms, "").await
}

async fn unwrap_of(kms: &Layered<Scripted>, version: &str) -> Result<Secret<64>> {
    let context = KmsContext::new("test", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
    let wrapped = WrappedKey { kek_version: version.to_owned(), bytes: vec![7; 64] };
    kms.unwrap(UnwrapRequest::new(&wrapped, &context)).await
}

fn fail(kind: KmsErrorKind) -> Step {
    Step::Fail(Failure::new(kind, "as told"))
}

fn kind(result: Result<Secret<64>>) -> KmsErrorKind {
    match result.map(drop).unwrap_err().kind() {
        ErrorKind::Kms(kind) => kind,
        other => panic!("{other:?}"),
    }
}

/// Covers KC-12, KC-39.
// Failures A4, A24
#[tokio::test(start_paused = true)]
async fn what_may_succeed_later_is_repeated_and_nothing_else() {
    for &class in KmsErrorKind::ALL {
        // The rows of the contract, in its order.
        let is_repeated = match class {
            KmsErrorKind::Throttled | KmsErrorKind::Unavailable | KmsErrorKind::Timeout => true,
            // With new credentials, which `refused_credentials_are_renewed_once` has; not as such.
            KmsErrorKind::TlsError | KmsErrorKind::Credentials | KmsErrorKind::ClockSkew => false,
            // Of bytes that were damaged on the way: what is wrong otherwise is marked as not to be repeated.
            KmsErrorKind::MalformedResponse => true,
            KmsErrorKind::Rejected | KmsErrorKind::WrongKey | KmsErrorKind::InvalidCiphertext => false,
            KmsErrorKind::AccessDenied | KmsErrorKind::KeyDisabled | KmsErrorKind::KeyNotFound => false,
            other => panic!("the contract has no row of {other:?}"),
        };
        let kms = layered(Limits::default(), move |number, _| if number < 3 { fail(class) } else { Step::Answer });
        let result = unwrap(&kms).await;
        assert_eq!((result.is_ok(), class.is_retryable()), (is_repeated, is_repeated), "{class:?}");
        assert_eq!(attempts(&kms), if is_repeated { 3 } else { 1 }, "{class:?}");
    }
    let kms = layered(Limits::default(), |_, _| fail(KmsErrorKind::Throttled));
    assert_eq!(kind(unwrap(&kms).await), KmsErrorKind::Throttled);
    assert_eq!(attempts(&kms), Limits::default().attempts);
}

/// Covers KC-2, KC-10, KC-11.
// Failure A2
#[tokio::test(start_paused = true)]
async fn silence_ends_with_the_deadline_and_a_slow_attempt_with_its_timeout() {
    let limits = Limits { deadline: Duration::from_secs(7), ..Limits::default() };
    let kms = layered(limits, |_, _| Step::Hang);
    let begun = Instant::now();
    assert_eq!(kind(unwrap(&kms).await), KmsErrorKind::Timeout);
    assert!(begun.elapsed() <= Duration::from_millis(7_001), "{:?}", begun.elapsed());
    let kms = layered(limits, |number, _| if number == 1 { Step::Hang } else { Step::Answer });
    let begun = Instant::now();
    assert!(unwrap(&kms).await.is_ok());
    assert!(begun.elapsed() < Duration::from_millis(3_300), "{:?}", begun.elapsed());
}

/// Covers KC-14, KC-18.
// Failures A4, A5
#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_but_capped_and_never_waited_for_in_vain() {
    let asked = |seconds| {
        move |number, _| match number {
            1 => {
                let pause = Some(Duration::from_secs(seconds));
                Step::Fail(Failure::new(KmsErrorKind::Throttled, "as told").retry_after(pause))
            }
            _ => Step::Answer,
        }
    };
    for (seconds, waited) in [(2, 2_000), (3600, 5_000)] {
        let kms = layered(Limits::default(), asked(seconds));
        let begun = Instant::now();
        assert!(unwrap(&kms).await.is_ok());
        let took = begun.elapsed().as_millis();
        assert!((waited..waited + 10).contains(&took), "asked for {seconds} s, waited {took} ms");
    }
    let hurried = Limits { deadline: Duration::from_secs(3), ..Limits::default() };
    let kms = layered(hurried, asked(3600));
    let begun = Instant::now();
    assert_eq!(kind(unwrap(&kms).await), KmsErrorKind::Throttled);
    assert!(begun.elapsed().is_zero(), "no point in waiting past the deadline");
}

/// Covers KC-13.
// Failure A4
#[test]
fn pauses_have_full_jitter() {
    let limits = Limits::default();
    for (failed, longest) in [(1, 100), (2, 200), (3, 400), (5, 1_600), (6, 2_000), (40, 2_000)] {
        assert!(limits.pause(failed, 0, None).is_zero());
        assert_eq!(limits.pause(failed, u32::MAX, None).as_millis(), longest);
        let half = limits.pause(failed, u32::MAX / 2, None).as_millis();
        assert!(half.abs_diff(longest / 2) <= 1, "{half}");
    }
    let drawn: std::collections::BTreeSet<u32> = (0..64).map(|_| Time::Runtime.random()).collect();
    assert!(drawn.len() > 60);
}

/// Covers KC-19.
// Failure A20
#[tokio::test(start_paused = true)]
async fn refused_credentials_are_renewed_once() {
    let refused = || {
        let failure = Failure::new(KmsErrorKind::Credentials, "expired").again(Again::WithNewCredentials);
        Step::Fail(failure)
    };
    let once = layered(Limits::default(), move |number, _| if number == 1 { refused() } else { Step::Answer });
    assert!(unwrap(&once).await.is_ok());
    assert_eq!(attempts(&once), 2);
    let always = layered(Limits::default(), move |_, _| refused());
    assert_eq!(kind(unwrap(&always).await), KmsErrorKind::Credentials);
    assert_eq!(attempts(&always), 2);
}

/// An outage of a minute, with an operation begun every 10 ms.
/// Covers KC-16, KC-17, KC-22.
// Failure A6
#[tokio::test(start_paused = true)]
async fn an_open_circuit_lets_one_probe_a_second_through_and_closes_within_two_seconds() {
    const BACK: Duration = Duration::from_secs(60);
    for hangs in [false, true] {
        let script = move |_, at| match (at < BACK, hangs) {
            (true, true) => Step::Hang,
            (true, false) => fail(KmsErrorKind::Unavailable),
            (false, _) => Step::Answer,
        };
        let kms = Arc::new(layered(Limits { attempts: 1, ..Limits::default() }, script));
        let begun = kms.adapter().begun;
        let recovered = Arc::new(Mutex::new(None));
        let mut refused_at_once = 0;
        let mut operations = Vec::new();
        let mut before = 0;
        while begun.elapsed() < BACK + Duration::from_secs(3) {
            let (ring, recovered) = (Arc::clone(&kms), Arc::clone(&recovered));
            operations.push(tokio::spawn(async move {
                let asked = begun.elapsed();
                let result = unwrap(&ring).await;
                if result.is_ok() {
                    recovered.lock().unwrap().get_or_insert(begun.elapsed());
                }
                u32::from(result.is_err() && begun.elapsed() == asked)
            }));
            tokio::time::sleep(Duration::from_millis(10)).await;
            if begun.elapsed() < BACK
                && begun.elapsed() > Duration::from_secs(5)
                && begun.elapsed().subsec_millis() < 10
            {
                let now = attempts(&kms);
                assert!(before == 0 || now - before <= 1, "{} probes in a second", now - before);
                before = now;
            }
        }
        for operation in operations {
            refused_at_once += operation.await.unwrap();
        }
        let recovered = recovered.lock().unwrap().expect("the service came back");
        assert!(recovered - BACK < Duration::from_secs(2), "{:?} after the service", recovered - BACK);
        assert!(refused_at_once > 4_000, "only {refused_at_once} operations were refused at once");
        assert!(attempts(&kms) > 200, "after the outage every operation reaches the service");
    }
}

/// Covers KC-21.
#[tokio::test(start_paused = true)]
async fn a_refusal_proves_that_the_service_is_there() {
    let script = |number: u32, _| {
        fail(if number.is_multiple_of(5) { KmsErrorKind::AccessDenied } else { KmsErrorKind::Unavailable })
    };
    let kms = layered(Limits { attempts: 1, ..Limits::default() }, script);
    for _ in 0..100 {
        let _ = unwrap(&kms).await;
    }
    assert_eq!(attempts(&kms), 100);
}

/// Covers KC-15.
// Failure A26
#[tokio::test(start_paused = true)]
async fn a_kek_is_asked_no_faster_than_its_rate() {
    let limits = Limits { rate: 10.0, burst: 5, deadline: Duration::from_secs(60), ..Limits::default() };
    let kms = Arc::new(layered(limits, |_, _| Step::Answer));
    let begun = Instant::now();
    let operations: Vec<_> = (0..105)
        .map(|_| {
            let kms = Arc::clone(&kms);
            tokio::spawn(async move { unwrap(&kms).await })
        })
        .collect();
    for operation in operations {
        assert!(operation.await.unwrap().is_ok());
    }
    let took = begun.elapsed().as_millis();
    assert!((9_990..10_200).contains(&took), "105 attempts with 10 a second and a burst of 5 took {took} ms");
    let hurried = Limits {
        rate: 1.0,
        burst: 1,
        deadline: Duration::from_millis(500),
        attempt: Duration::from_millis(500),
        ..limits
    };
    let kms = layered(hurried, |_, _| Step::Answer);
    assert!(unwrap(&kms).await.is_ok());
    assert_eq!(kind(unwrap(&kms).await), KmsErrorKind::Throttled);
    assert_eq!(attempts(&kms), 1);
}

/// Twice as many operations as the rate allows, for a minute; the service answers each within 50 ms.
/// Covers KC-23.
#[tokio::test(start_paused = true)]
async fn a_healthy_service_is_not_away_because_it_is_asked_too_often() {
    let kms = Arc::new(layered(Limits::default(), |_, _| Step::AnswerAfter(Duration::from_millis(50))));
    let operations: Vec<_> = (0..12_000)
        .map(|number| {
            let kms = Arc::clone(&kms);
            tokio::spawn(async move {
                sleep(Duration::from_millis(5 * number)).await;
                unwrap(&kms).await
            })
        })
        .collect();
    let mut answered = 0;
    for operation in operations {
        match operation.await.unwrap() {
            Ok(_) => answered += 1,
            refused => assert_eq!(kind(refused), KmsErrorKind::Throttled),
        }
    }
    assert!(answered >= 6_000, "only {answered} in a minute at 100 a second");
}

/// Covers KC-16, KC-24.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_the_deadline_cuts_short_is_no_outage() {
    // The second attempt of each operation has 300 ms or less, which the service does not make.
    let script =
        |number: u32, _| if number % 2 == 1 { Step::Hang } else { Step::AnswerAfter(Duration::from_millis(400)) };
    let limits = Limits { deadline: Duration::from_millis(3_300), attempts: 2, outages: 2, ..Limits::default() };
    let kms = layered(Limits { attempt: Duration::from_secs(3), first_pause: Duration::ZERO, ..limits }, script);
    assert_eq!(kind(unwrap(&kms).await), KmsErrorKind::Timeout);
    assert_eq!(attempts(&kms), 2);
    assert_eq!(kind(unwrap(&kms).await), KmsErrorKind::Timeout, "asked, because one outage does not open the circuit");
    // Silence for a whole deadline counts, where that is shorter than the time of an attempt.
    let kms = layered(Limits { deadline: Duration::from_secs(1), ..Limits::default() }, |_, _| Step::Hang);
    for _ in 0..Limits::default().outages {
        assert_eq!(kind(unwrap(&kms).await), KmsErrorKind::Timeout);
    }
    assert_eq!(kind(unwrap(&kms).await), KmsErrorKind::Unavailable);
}

/// Covers KC-20, KC-7.
#[tokio::test(start_paused = true)]
async fn foreign_records_use_up_no_rate_and_prove_nothing_of_the_service() {
    let limits = Limits { rate: 1.0, burst: 5, outages: 2, attempts: 1, ..Limits::default() };
    let kms = layered(limits, |_, _| fail(KmsErrorKind::Unavailable));
    for outage in 1..=2 {
        for _ in 0..100 {
            let error = unwrap_of(&kms, "foreign").await.map(drop).unwrap_err();
            assert_eq!(error.to_string(), "of another key: scripted; nothing was sent");
        }
        assert_eq!(kind(unwrap(&kms).await), KmsErrorKind::Unavailable);
        assert_eq!(attempts(&kms), outage);
    }
    assert_eq!(kms.adapter().begun.elapsed(), Duration::ZERO, "nobody waited for a turn");
    assert_eq!(kind(unwrap_of(&kms, "foreign").await), KmsErrorKind::WrongKey, "also while the circuit is open");
    assert_eq!(kind(unwrap(&kms).await), KmsErrorKind::Unavailable);
    assert_eq!(attempts(&kms), 2, "the circuit is still open");
}

/// Covers KC-21.
#[tokio::test(start_paused = true)]
async fn what_fails_before_a_request_does_not_close_the_circuit() {
    let script = |number: u32, _| match number {
        3 => Step::FailUnsent(Failure::new(KmsErrorKind::Credentials, "no token file")),
        _ => fail(KmsErrorKind::Unavailable),
    };
    let kms = layered(Limits { outages: 2, attempts: 1, ..Limits::default() }, script);
    for expected in [KmsErrorKind::Unavailable, KmsErrorKind::Unavailable] {
        assert_eq!(kind(unwrap(&kms).await), expected);
    }
    sleep(Limits::default().probe_every).await;
    assert_eq!(kind(unwrap(&kms).await), KmsErrorKind::Credentials, "the probe");
    assert_eq!(kind(unwrap(&kms).await), KmsErrorKind::Unavailable);
    assert_eq!(attempts(&kms), 3, "the circuit is still open");
}

#[test]
fn an_outage_is_no_finding() {
    let sealed = Failure::new(KmsErrorKind::Unavailable, "sealed").again(Again::No);
    assert!(sealed.while_looking("key-rotation", "read").is_err());
    let odd = Failure::new(KmsErrorKind::Rejected, "odd");
    assert!(odd.while_looking("key-rotation", "read").is_ok());
}

/// Covers KC-3.
#[tokio::test(start_paused = true)]
async fn errors_name_kek_requests_and_request_id() {
    let kms = layered(Limits::default(), |number, _| {
        fail(if number < 3 { KmsErrorKind::Unavailable } else { KmsErrorKind::AccessDenied })
    });
    let error = unwrap(&kms).await.map(drop).unwrap_err();
    assert_eq!(error.to_string(), "as told: scripted; 3 requests; request ID 00000000-0000-4000-8000-000000000003");

    let context = KmsContext::new("test", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
    let payload = Secret::with(|bytes: &mut [u8; 64]| bytes.fill(7));
    let trace = KmsTrace::new();
    let kms = layered(Limits::default(), |_, _| Step::Answer);
    kms.wrap(WrapRequest::new(&payload, &context).with_trace(&trace)).await.unwrap();
    assert_eq!((trace.requests(), trace.request_id().as_deref()), (1, Some("00000000-0000-4000-8000-000000000001")));
}

/// Covers KC-8.
#[tokio::test(start_paused = true)]
async fn oversize_wraps_are_never_sent() {
    let kms = layered(Limits::default(), |_, _| Step::Answer);
    let context = KmsContext::new("test", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
    let wrapped = WrappedKey { kek_version: String::new(), bytes: vec![7; WrappedKey::MAX_LEN + 1] };
    assert_eq!(kind(kms.unwrap(UnwrapRequest::new(&wrapped, &context)).await), KmsErrorKind::InvalidCiphertext);
    assert_eq!(attempts(&kms), 0);
}

#[test]
fn limits_have_bounds() {
    Limits::default().check().unwrap();
    let wrong = [
        Limits { deadline: Duration::from_millis(99), attempt: Duration::from_millis(1), ..Limits::default() },
        Limits { deadline: Duration::from_secs(301), ..Limits::default() },
        Limits { attempt: Duration::ZERO, ..Limits::default() },
        Limits { attempts: 0, ..Limits::default() },
        Limits { attempts: 11, ..Limits::default() },
        Limits { rate: 0.0, ..Limits::default() },
        Limits { rate: f64::NAN, ..Limits::default() },
        Limits { burst: 0, ..Limits::default() },
        Limits { outages: 0, ..Limits::default() },
    ];
    for limits in wrong {
        assert_eq!(limits.check().unwrap_err().kind(), ErrorKind::Configuration, "{limits:?}");
    }
}

/// A clock that moves when somebody waits by it.
#[derive(Default)]
struct Leaping(Arc<AtomicU64>);

impl keyfold::Clock for Leaping {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn jitter(&self) -> u64 {
        u64::MAX
    }
}

impl Timer for Leaping {
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let clock = self.0.clone();
        Box::pin(async move {
            clock.fetch_add(u64::try_from(time.as_nanos()).unwrap(), Ordering::SeqCst);
        })
    }
}

/// Everything that takes time takes that of the timer, and none of the machine; no runtime is there.
#[test]
fn by_a_timer_no_runtime_is_needed() {
    use keyfold::Clock as _;
    let begun = std::time::Instant::now();
    let run = |script: fn(u32, Duration) -> Step| {
        let adapter = Scripted { script: Box::new(script), begun: Instant::now(), attempts: AtomicU32::new(0) };
        let timer = Arc::new(Leaping::default());
        let kms = Layered::new(adapter, Limits::default()).unwrap().by_timer(timer.clone());
        let result = keyfold::testing::block_on(unwrap(&kms));
        (result.map(drop).map_err(|error| error.kind()), attempts(&kms), timer.now())
    };
    // The longest pauses are drawn: 100, 200 and 400 ms.
    let (result, count, took) = run(|_, _| fail(KmsErrorKind::Throttled));
    assert_eq!((result, count), (Err(ErrorKind::Kms(KmsErrorKind::Throttled)), 4));
    assert_eq!(took.as_millis(), 700);
    // Three attempts and what the deadline leaves of a fourth.
    let (result, count, took) = run(|_, _| Step::Hang);
    assert_eq!((result, count), (Err(ErrorKind::Kms(KmsErrorKind::Timeout)), 4));
    assert_eq!(took, Limits::default().deadline);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
