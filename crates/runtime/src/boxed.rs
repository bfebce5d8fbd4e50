//! Boxes for the large futures that each stream has.

use std::pin::Pin;

/// A future built where it is to be. `Box::pin` builds it on the stack and copies it, with all the room that its
/// states will need: for a stream some kilobytes.
pub fn boxed<F>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    let place = Box::new_uninit();
    Box::into_pin(Box::write(place, make()))
}
