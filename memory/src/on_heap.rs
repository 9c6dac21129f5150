//! A value on the heap that is erased on drop.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;

/// A value on the heap. When it is dropped, the value is dropped and its bytes are erased, whatever its own `Drop` does.
///
/// Nothing is locked, nor left out of core dumps: for values of which one call may have thousands, for as long as it goes on, which would take all that a
/// process may lock. It counts for neither number of [`status`](crate::status). What stays longer belongs into [`Guarded`](crate::Guarded).
pub struct OnHeap<T>(Box<ManuallyDrop<T>>);

impl<T> OnHeap<T> {
    /// Moves `value` to the heap, and erases where it was when it came here. Copies that the compiler made before are outside of its control.
    pub fn new(value: T) -> Self {
        let mut value = ManuallyDrop::new(value);
        let mut place = Box::<ManuallyDrop<T>>::new_uninit();
        // SAFETY: both are of one type, and apart. `value` is not used again, nor dropped, so its bytes are nobody's; `place` is a value from then on.
        unsafe {
            place.as_mut_ptr().copy_from_nonoverlapping(&raw const value, 1);
            crate::erase(NonNull::from(&mut value).cast(), size_of::<T>());
            Self(place.assume_init())
        }
    }
}

impl<T> Deref for OnHeap<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Drop for OnHeap<T> {
    fn drop(&mut self) {
        // SAFETY: the value is not used again, nor dropped by its box, which frees the bytes afterwards.
        unsafe { end(NonNull::from(&mut *self.0).cast::<T>()) };
    }
}

/// Drops a value and erases its bytes, also if it panics when it is dropped.
///
/// # Safety
///
/// It is not used again, nor dropped.
unsafe fn end<T>(value: NonNull<T>) {
    struct Place(NonNull<u8>, usize);
    impl Drop for Place {
        fn drop(&mut self) {
            // SAFETY: the bytes are those of a value that was dropped.
            unsafe { crate::erase(self.0, self.1) };
        }
    }
    let _place = Place(value.cast(), size_of::<T>());
    // SAFETY: as the caller says.
    unsafe { value.drop_in_place() };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::MaybeUninit;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;

    #[test]
    fn a_value_is_dropped_once() {
        let counted = Rc::new(());
        let held = OnHeap::new((counted.clone(), [0xa5_u8; 500]));
        assert_eq!((held.1, Rc::strong_count(&counted)), ([0xa5; 500], 2));
        drop(held);
        assert_eq!(Rc::strong_count(&counted), 1);
    }

    #[test]
    fn nothing_of_a_value_is_left_also_where_dropping_it_panics() {
        struct Key([u8; 500], bool);
        impl Drop for Key {
            fn drop(&mut self) {
                assert_eq!(self.0, [0xa5; 500], "erased before it was dropped");
                assert!(!self.1, "on purpose");
            }
        }
        for panics in [false, true] {
            let mut place = MaybeUninit::new(Key([0xa5; 500], panics));
            let value = NonNull::from(&mut place).cast::<Key>();
            // SAFETY: it is not used again, and nothing drops what is in a `MaybeUninit`.
            let ended = catch_unwind(AssertUnwindSafe(|| unsafe { end(value) }));
            assert_eq!(ended.is_err(), panics);
            // SAFETY: every byte was written.
            let left = unsafe { std::slice::from_raw_parts(place.as_ptr().cast::<u8>(), size_of::<Key>()) };
            assert!(left.iter().all(|&byte| byte == 0));
        }
    }
}
