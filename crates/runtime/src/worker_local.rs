//! One value per type and thread: what a worker's code reaches without being handed it through every call.
//!
//! For the few things a worker owns once, such as its cluster table. Values die when the worker ends, after its
//! tasks.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Puts this thread's value of type `T`, and returns the one it replaces.
pub fn insert<T: 'static>(value: Rc<T>) -> Option<Rc<T>> {
    let old = VALUES.try_with(|values| values.borrow_mut().insert(TypeId::of::<T>(), value)).ok().flatten();
    old.and_then(|old| old.downcast().ok())
}

/// This thread's value of type `T`; a reference count, no atomics.
pub fn get<T: 'static>() -> Option<Rc<T>> {
    let value = VALUES.try_with(|values| values.borrow().get(&TypeId::of::<T>()).cloned()).ok().flatten();
    value.and_then(|value| value.downcast().ok())
}

/// Takes this thread's value of type `T` out.
pub fn remove<T: 'static>() -> Option<Rc<T>> {
    let value = VALUES.try_with(|values| values.borrow_mut().remove(&TypeId::of::<T>())).ok().flatten();
    value.and_then(|value| value.downcast().ok())
}

/// Drops everything, while the other thread-locals that destructors may reach still live.
pub(crate) fn clear() {
    let values = VALUES.try_with(|values| std::mem::take(&mut *values.borrow_mut()));
    drop(values);
}

thread_local! {
    static VALUES: RefCell<HashMap<TypeId, Rc<dyn Any>>> = RefCell::new(HashMap::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_one_value_per_type() {
        assert!(get::<String>().is_none());
        assert!(insert(Rc::new("a".to_owned())).is_none());
        assert_eq!(insert(Rc::new("b".to_owned())).as_deref().map(String::as_str), Some("a"));
        insert(Rc::new(7_u8));
        assert_eq!(get::<String>().as_deref().map(String::as_str), Some("b"));
        assert_eq!(remove::<u8>().as_deref(), Some(&7));
        assert!(get::<u8>().is_none());
        clear();
        assert!(get::<String>().is_none());
    }
}
