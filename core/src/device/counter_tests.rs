//! No nonce comes twice, wherever the power fails and whatever that leaves in the memory.

use super::*;
use std::cell::RefCell;
use std::collections::HashSet;

const X: Device = Device { id: [1; 8], issued: 7 };
const Y: Device = Device { id: [2; 8], issued: 8 };

/// What a power cut makes of the slot that is being written.
#[derive(Clone, Copy, Debug)]
enum Torn {
    Old,
    New,
    Erased(u8),
    /// So many bytes of the new over what was there.
    OverOld(usize),
    /// So many bytes of the new over erased memory.
    OverErased(usize),
    /// Each bit from the old or the new one.
    Mixed(u64),
}

impl Torn {
    fn all() -> Vec<Self> {
        let mut all = vec![Self::Old, Self::New, Self::Erased(0xFF), Self::Erased(0)];
        all.extend((1..SLOT_LEN).flat_map(|len| [Self::OverOld(len), Self::OverErased(len)]));
        all.extend((1..=16).map(Self::Mixed));
        all
    }

    fn few() -> [Self; 4] {
        [Self::Old, Self::New, Self::Erased(0xFF), Self::Mixed(7)]
    }

    fn of(self, old: &[u8; SLOT_LEN], new: &[u8; SLOT_LEN]) -> [u8; SLOT_LEN] {
        let first = |len: usize, mut under: [u8; SLOT_LEN]| {
            under[..len].copy_from_slice(&new[..len]);
            under
        };
        match self {
            Self::Old => *old,
            Self::New => *new,
            Self::Erased(fill) => [fill; SLOT_LEN],
            Self::OverOld(len) => first(len, *old),
            Self::OverErased(len) => first(len, [0xFF; SLOT_LEN]),
            Self::Mixed(seed) => {
                let mut state = seed;
                std::array::from_fn(|at| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let mask = (state >> 56) as u8;
                    (old[at] & mask) | (new[at] & !mask)
                })
            }
        }
    }
}

/// Two slots; the power fails at a write, or never.
#[derive(Clone)]
struct Memory {
    slots: [[u8; SLOT_LEN]; 2],
    cut: Option<(usize, Torn)>,
    is_off: bool,
}

impl Memory {
    const fn new() -> Self {
        Self { slots: [[0xFF; SLOT_LEN]; 2], cut: None, is_off: false }
    }
}

const OFF: Error = Error::new(ErrorKind::Io, "no power");

impl Slots for &RefCell<Memory> {
    fn read(&mut self, slot: u8, bytes: &mut [u8; SLOT_LEN]) -> Result<()> {
        let memory = self.borrow();
        *bytes = memory.slots[usize::from(slot)];
        if memory.is_off { Err(OFF) } else { Ok(()) }
    }

    fn write(&mut self, slot: u8, bytes: &[u8; SLOT_LEN]) -> Result<()> {
        let mut memory = self.borrow_mut();
        if memory.is_off {
            return Err(OFF);
        }
        let slot = &mut memory.slots[usize::from(slot)];
        let old = *slot;
        *slot = *bytes;
        match &mut memory.cut {
            Some((0, torn)) => {
                let torn = torn.of(&old, bytes);
                let newer = memory.slots.iter().position(|slot| slot == bytes).expect("just written");
                memory.slots[newer] = torn;
                memory.is_off = true;
                Err(OFF)
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// A device's life so far: what is in its memory, and which nonces it has used.
#[derive(Clone)]
struct Life {
    memory: Memory,
    used: HashSet<[u8; NONCE_LEN]>,
    may_create: bool,
}

impl Life {
    fn new() -> Self {
        Self { memory: Memory::new(), used: HashSet::new(), may_create: true }
    }

    /// One start under the bundle of `device`: a message, a new prefix, a message. The power fails at write `cut`.
    /// The counter is created wherever the library allows it, unless we know that the bundle is not new.
    fn boot(&mut self, device: Device, cut: Option<(usize, Torn)>) -> bool {
        self.memory.cut = cut;
        self.memory.is_off = false;
        let memory = RefCell::new(self.memory.clone());
        let created = if self.may_create { Counter::create(&memory, device) } else { Err(OFF) };
        if let Ok(mut counter) = created.or_else(|_| Counter::start(&memory, device)) {
            for _ in 0..2 {
                let mut nonce = [0; NONCE_LEN];
                if counter.next(100, &mut nonce).is_ok() {
                    assert!(self.used.insert(nonce), "{nonce:x?} came twice");
                }
                counter.messages = MESSAGES;
            }
        }
        self.memory = memory.into_inner();
        self.memory.is_off
    }
}

/// At every write of a start, with everything that can be left; twice in a row.
/// Covers F-4.4-4.
#[test]
fn no_power_cut_repeats_a_nonce() {
    let all = Torn::all();
    let mut cuts = 0;
    let mut first = vec![Life::new()];
    for _ in 0..3 {
        let mut life = first[first.len() - 1].clone();
        assert!(!life.boot(X, None));
        first.push(life);
    }
    for life in &first {
        for write in 0.. {
            let mut is_cut = false;
            for &torn in &all {
                let mut one = life.clone();
                is_cut = one.boot(X, Some((write, torn)));
                for again in 0.. {
                    let mut is_cut_again = false;
                    for &torn in &all {
                        let mut two = one.clone();
                        is_cut_again = two.boot(X, Some((again, torn)));
                        cuts += usize::from(is_cut_again);
                        two.boot(X, None);
                        two.boot(X, None);
                    }
                    if !is_cut_again {
                        break;
                    }
                }
            }
            if !is_cut {
                break;
            }
        }
    }
    assert!(cuts > 100_000, "{cuts}");
}

/// Any number of starts that fail in any way, with two bundles of which either may be put back at any time.
#[test]
fn no_order_of_starts_cuts_and_bundles_repeats_a_nonce() {
    fn go(life: &Life, depth: usize, count: &mut usize) {
        if depth == 0 {
            return;
        }
        for device in [X, Y] {
            for cut in std::iter::once(None).chain((0..3).flat_map(|write| Torn::few().map(|torn| Some((write, torn)))))
            {
                let mut next = life.clone();
                let is_cut = next.boot(device, cut);
                if cut.is_none() || is_cut {
                    *count += 1;
                    go(&next, depth - 1, count);
                }
            }
        }
    }
    let mut count = 0;
    go(&Life::new(), 4, &mut count);
    assert!(count > 50_000, "{count}");
}

/// Either slot becomes unreadable for ever at any time, the newer one too, also together with a power cut.
#[test]
fn a_slot_that_is_lost_repeats_no_nonce() {
    let mut refused = 0;
    for starts in 1..5 {
        let mut life = Life::new();
        for _ in 0..starts {
            life.boot(X, None);
        }
        life.may_create = false;
        for write in 0..4 {
            for torn in Torn::few() {
                for (lost, lost_again) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    let mut next = life.clone();
                    next.memory.slots[lost].fill(0);
                    next.boot(X, Some((write, torn)));
                    next.memory.slots[lost_again].fill(0);
                    let before = next.used.len();
                    next.boot(X, None);
                    refused += usize::from(next.used.len() == before);
                    next.boot(X, None);
                }
            }
        }
    }
    assert!(refused > 0, "both slots were lost in some of them");
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_counter_is_created_once_and_never_from_nothing() {
    let memory = RefCell::new(Memory::new());
    assert_eq!(kind(Counter::start(&memory, X)), Some(ErrorKind::KeyState));
    Counter::create(&memory, X).unwrap();
    assert_eq!(kind(Counter::create(&memory, X)), Some(ErrorKind::KeyState));
    assert_eq!(kind(Counter::start(&memory, Y)), Some(ErrorKind::KeyState));
    Counter::start(&memory, X).unwrap();
    // A new bundle, after which the old one counts no more, and none of the same time.
    Counter::create(&memory, Y).unwrap();
    assert_eq!(kind(Counter::start(&memory, X)), Some(ErrorKind::KeyState));
    assert_eq!(kind(Counter::create(&memory, X)), Some(ErrorKind::RecordRejected));
    assert_eq!(kind(Counter::create(&memory, Device { id: [3; 8], ..Y })), Some(ErrorKind::RecordRejected));
    memory.borrow_mut().slots = [[0xFF; SLOT_LEN]; 2];
    assert_eq!(kind(Counter::start(&memory, Y)), Some(ErrorKind::KeyState));
}

/// A program that starts twice has two counters, of which one has to stop.
#[test]
fn two_counters_with_the_same_slots_make_no_nonce_twice() {
    for order in 0..1 << 6_u32 {
        let memory = RefCell::new(Memory::new());
        let mut both = [Counter::create(&memory, X).unwrap(), Counter::start(&memory, X).unwrap()];
        let mut used = HashSet::new();
        for step in 0..6 {
            let mut nonce = [0; NONCE_LEN];
            let one = &mut both[(order >> step & 1) as usize];
            if one.next(67, &mut nonce).is_ok() {
                assert!(used.insert(nonce), "{order:b}");
            }
            one.messages = MESSAGES;
        }
        let [first, last] = &mut both;
        assert!(last.renew().is_ok());
        assert_eq!(kind(first.renew()), Some(ErrorKind::KeyState));
    }
}

/// Covers F-4.4-4.
// Failure N5
#[test]
fn a_prefix_has_its_limits_and_the_last_one_is_the_end() {
    let memory = RefCell::new(Memory::new());
    let mut counter = Counter::create(&memory, X).unwrap();
    let mut nonce = [0; NONCE_LEN];
    let mut used = HashSet::new();
    for _ in 0..=MESSAGES {
        counter.next(67, &mut nonce).unwrap();
        assert!(used.insert(nonce));
    }
    assert_eq!(nonce[..12], [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 2]);
    assert_eq!(nonce[12..], [0; 12]);
    // 1 MiB has more than 2¹⁶ blocks, so its messages are fewer.
    let count = (0..=MESSAGES).take_while(|_| counter.next(1 << 20, &mut nonce).is_ok() && nonce[11] == 2).count();
    assert!((65_000..65_536).contains(&count), "{count}");
    assert_eq!(nonce[11], 3);
    counter.boot = u32::MAX - 1;
    counter.messages = MESSAGES;
    counter.next(67, &mut nonce).unwrap();
    assert_eq!(nonce[8..12], [0xFF; 4]);
    counter.messages = MESSAGES;
    assert_eq!(kind(counter.next(67, &mut nonce)), Some(ErrorKind::LimitExceeded));
    assert_eq!(kind(Counter::start(&memory, X)), Some(ErrorKind::LimitExceeded));
}

#[test]
fn what_cannot_be_stored_is_not_used() {
    let memory = RefCell::new(Memory::new());
    let mut counter = Counter::create(&memory, X).unwrap();
    let mut nonce = [0; NONCE_LEN];
    counter.next(67, &mut nonce).unwrap();
    counter.messages = MESSAGES;
    memory.borrow_mut().is_off = true;
    let before = nonce;
    assert_eq!(kind(counter.next(67, &mut nonce)), Some(ErrorKind::Io));
    assert_eq!(nonce, before);
    memory.borrow_mut().is_off = false;
    counter.next(67, &mut nonce).unwrap();
    assert_eq!(nonce[8..12], [0, 0, 0, 2]);

    /// Says that it has written, and has not.
    struct Deaf;
    impl Slots for Deaf {
        fn read(&mut self, _: u8, bytes: &mut [u8; SLOT_LEN]) -> Result<()> {
            bytes.fill(0xFF);
            Ok(())
        }
        fn write(&mut self, _: u8, _: &[u8; SLOT_LEN]) -> Result<()> {
            Ok(())
        }
    }
    assert_eq!(kind(Counter::create(Deaf, X)), Some(ErrorKind::Store));
}
