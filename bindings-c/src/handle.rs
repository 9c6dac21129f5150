//! Handles: names of objects, in the guise of pointers that nobody follows.
//!
//! A handle is a number: kind, generation and place in a table. So a handle that was released, that is of another kind, or that was
//! never one, is refused on any thread, and an object that one thread releases lives until the calls of the others have ended.

use crate::boundary::{Failure, Outcome};
use crate::result::kf_result;
use arc_swap::{ArcSwapOption, Guard};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::ptr::without_provenance_mut;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Bits of a handle that say which kind it is of. No kind is 0, so no handle is NULL.
const KIND_BITS: u32 = 4;
/// Bits that say where in the table it is.
const PLACE_BITS: u32 = if usize::BITS == 64 { 26 } else { 16 };
/// Generations, after which a place begins again.
const GENERATIONS: usize = 1 << (usize::BITS - KIND_BITS - PLACE_BITS);
/// Places in the first chunk of a table; each further one has twice as many.
const FIRST_CHUNK: usize = 64;
const CHUNKS: usize = (PLACE_BITS - FIRST_CHUNK.ilog2()) as usize;

/// An object that C programs hold by a handle, which they see as `*mut Self`.
pub(crate) trait Object: Sized + 'static {
    /// The objects of this kind.
    fn table() -> &'static Table<Self>;
}

/// All objects of one kind.
pub(crate) struct Table<T> {
    kind: usize,
    /// Never moved nor given back, so that they are read without a lock.
    chunks: [OnceLock<Box<[Place<T>]>>; CHUNKS],
    vacant: Mutex<Vacant>,
}

type Place<T> = ArcSwapOption<Entry<T>>;

struct Entry<T> {
    generation: usize,
    object: T,
}

/// Places without an object. The one that was left first is taken first, so that its generations last.
struct Vacant {
    /// Each with its next generation.
    left: VecDeque<(usize, usize)>,
    /// Places from here on were never taken.
    fresh: usize,
}

/// An object in use: it lives at least as long as this.
pub(crate) struct Held<T>(Guard<Option<Arc<Entry<T>>>>);

impl<T> Deref for Held<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0.as_ref().expect("only made of an entry").object
    }
}

impl<T> Table<T> {
    pub(crate) const fn new(kind: usize) -> Self {
        assert!(kind > 0 && kind < 1 << KIND_BITS);
        let vacant = Vacant { left: VecDeque::new(), fresh: 0 };
        Self { kind, chunks: [const { OnceLock::new() }; CHUNKS], vacant: Mutex::new(vacant) }
    }

    /// Takes `object` in; returns its handle.
    pub(crate) fn add(&self, object: T) -> Outcome<*mut T> {
        let (place, generation) = {
            let mut vacant = self.vacant.lock().unwrap_or_else(PoisonError::into_inner);
            match vacant.left.pop_front() {
                Some(left) => left,
                None => {
                    vacant.fresh += 1;
                    // It begins anywhere, so that a number which is no handle is hardly ever taken for one.
                    (vacant.fresh - 1, RandomState::new().hash_one(vacant.fresh) as usize % GENERATIONS)
                }
            }
        };
        let (chunk, at) = split(place);
        let places =
            self.chunks.get(chunk).ok_or(Failure::own(kf_result::KF_ERR_LIMIT_EXCEEDED, "too many handles"))?;
        let places = places.get_or_init(|| (0..FIRST_CHUNK << chunk).map(|_| Place::empty()).collect());
        places[at].store(Some(Arc::new(Entry { generation, object })));
        let bits = self.kind | generation << KIND_BITS | place << (usize::BITS - PLACE_BITS);
        Ok(without_provenance_mut(bits))
    }

    /// The object of a handle.
    #[inline]
    fn get(&self, handle: *const T) -> Outcome<Held<T>> {
        let (place, generation) = self.find(handle)?;
        let entry = place.load();
        match &*entry {
            Some(found) if found.generation == generation => Ok(Held(entry)),
            _ => Err(INVALID),
        }
    }

    /// Takes the object of a handle out. Of several threads that try, one does.
    fn remove(&self, handle: *const T) -> Outcome<()> {
        let (place, generation) = self.find(handle)?;
        let entry = place.load();
        if entry.as_ref().is_none_or(|found| found.generation != generation) {
            return Err(INVALID);
        }
        let before = place.compare_and_swap(&*entry, None);
        if before.as_ref().map(Arc::as_ptr) != entry.as_ref().map(Arc::as_ptr) {
            return Err(INVALID);
        }
        let next = (generation + 1) % GENERATIONS;
        let mut vacant = self.vacant.lock().unwrap_or_else(PoisonError::into_inner);
        vacant.left.push_back((handle.addr() >> (usize::BITS - PLACE_BITS), next));
        Ok(())
    }

    #[inline]
    fn find(&self, handle: *const T) -> Outcome<(&Place<T>, usize)> {
        let bits = handle.addr();
        if bits == 0 {
            return Err(Failure::NULL);
        }
        let (chunk, at) = split(bits >> (usize::BITS - PLACE_BITS));
        let places = self.chunks.get(chunk).and_then(OnceLock::get);
        match places.and_then(|places| places.get(at)) {
            Some(place) if bits % (1 << KIND_BITS) == self.kind => Ok((place, (bits >> KIND_BITS) % GENERATIONS)),
            _ => Err(INVALID),
        }
    }
}

const INVALID: Failure =
    Failure::own(kf_result::KF_ERR_INVALID_HANDLE, "the handle was released, is of another kind, or was never one");

/// The chunk of a place, and where in it.
#[inline]
fn split(place: usize) -> (usize, usize) {
    let chunk = (place / FIRST_CHUNK + 1).ilog2();
    (chunk as usize, place - FIRST_CHUNK * ((1 << chunk) - 1))
}

/// The object of a handle.
#[inline]
pub(crate) fn held<T: Object>(handle: *const T) -> Outcome<Held<T>> {
    T::table().get(handle)
}

/// A handle of `object`.
pub(crate) fn give<T: Object>(object: T) -> Outcome<*mut T> {
    T::table().add(object)
}

/// Releases a handle; `NULL` is none.
pub(crate) fn release<T: Object>(handle: *mut T) -> Outcome<()> {
    if handle.is_null() { Ok(()) } else { T::table().remove(handle) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_place_is_where_its_chunk_says() {
        let mut expected = (0, 0);
        for place in 0..10_000 {
            assert_eq!(split(place), expected);
            expected.1 += 1;
            if expected.1 == FIRST_CHUNK << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }

    // Failure F3
    #[test]
    fn handles_that_are_none_are_refused() {
        static NUMBERS: Table<usize> = Table::new(3);
        static OTHERS: Table<usize> = Table::new(4);
        let handles: Vec<_> = (0..1000).map(|number| NUMBERS.add(number).unwrap()).collect();
        let other = OTHERS.add(7).unwrap();
        for (number, &handle) in handles.iter().enumerate() {
            assert_eq!(*NUMBERS.get(handle).unwrap(), number);
            assert!(OTHERS.get(handle).is_err());
        }
        assert!(NUMBERS.get(other).is_err());
        for bits in [0, 1, 3, 16, usize::MAX, usize::MAX - 12, 1 << 40, &raw const NUMBERS as usize] {
            assert!(NUMBERS.get(without_provenance_mut(bits)).is_err(), "{bits:x}");
        }
        let held = NUMBERS.get(handles[5]).unwrap();
        assert!(NUMBERS.remove(handles[5]).is_ok());
        assert_eq!(*held, 5, "an object in use stays");
        assert!(NUMBERS.get(handles[5]).is_err());
        assert!(NUMBERS.remove(handles[5]).is_err());
        let again = NUMBERS.add(5).unwrap();
        assert_ne!(again, handles[5]);
        assert_eq!(again.addr() >> (usize::BITS - PLACE_BITS), 5, "its place is used again");
        assert!(NUMBERS.get(handles[5]).is_err());
    }

    // Failure F5
    #[test]
    fn of_many_threads_one_releases() {
        static NUMBERS: Table<usize> = Table::new(1);
        for _ in 0..200 {
            let handle = NUMBERS.add(1).unwrap().addr();
            let released = thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| scope.spawn(move || NUMBERS.remove(without_provenance_mut(handle)).is_ok()))
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).filter(|won| *won).count()
            });
            assert_eq!(released, 1);
        }
    }
}
