//! Places where a program under test panics, as `PROXYTOP_FAULT=PLACE` says. Programs that are not built for tests have none of
//! this.

/// Something that a key leads to, so that a test has seen the screen before it panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the main thread, in drawing.
    DrawHelp,
    /// On the thread that looks.
    ChangeInterval,
    /// On the thread that asks.
    AskForMore,
}

/// To be called at each of them.
#[cfg(not(debug_assertions))]
pub(crate) fn at(_place: Place) {}

/// To be called at each of them.
#[cfg(debug_assertions)]
pub(crate) fn at(place: Place) {
    let wanted = std::env::var("PROXYTOP_FAULT");
    assert!(wanted.as_deref() != Ok(&*format!("{place:?}")), "a fault was wanted: {place:?}");
}
