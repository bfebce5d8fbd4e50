//! Declaring a subsystem's stats as one block.

/// Declares a struct of handles that are resolved once, by `new(&Scope)`. A stat is called as its field unless a
/// literal says otherwise. The struct keeps the scope, and so its stats, alive.
///
/// ```
/// proxy_stats::stats_block! {
///     /// Of one listener.
///     pub struct ListenerStats {
///         counters: downstream_cx_total, response_flood = "http1.response_flood";
///         gauges: downstream_cx_active: Accumulate, in_memory = "connections.in_memory": NeverImport;
///         histograms: downstream_cx_length_ms;
///         text_readouts: version_text;
///     }
/// }
/// # use proxy_stats::{Store, StoreOptions};
/// let store = Store::create(StoreOptions::private(1))?;
/// let stats = ListenerStats::new(&store.root().scope("listener.127.0.0.1_80."));
/// stats.response_flood.inc();
/// assert_eq!(store.value("listener.127.0.0.1_80.http1.response_flood"), Some(1));
/// # Ok::<(), proxy_stats::StatsError>(())
/// ```
///
/// The four sections are optional, in this order, and separated by semicolons.
#[macro_export]
macro_rules! stats_block {
    (
        $(#[$meta:meta])*
        $vis:vis struct $block:ident {
            $(counters: $($(#[$counter_meta:meta])* $counter:ident $(= $counter_name:literal)?),+ $(,)? $(;)?)?
            $(gauges: $($(#[$gauge_meta:meta])* $gauge:ident $(= $gauge_name:literal)? : $mode:ident),+ $(,)? $(;)?)?
            $(histograms: $($(#[$histogram_meta:meta])* $histogram:ident $(= $histogram_name:literal)?),+ $(,)? $(;)?)?
            $(text_readouts: $($(#[$text_meta:meta])* $text:ident $(= $text_name:literal)?),+ $(,)? $(;)?)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        $vis struct $block {
            $($($(#[$counter_meta])* $vis $counter: $crate::Counter,)+)?
            $($($(#[$gauge_meta])* $vis $gauge: $crate::Gauge,)+)?
            $($($(#[$histogram_meta])* $vis $histogram: $crate::Histogram,)+)?
            $($($(#[$text_meta])* $vis $text: $crate::TextReadout,)+)?
            /// Keeps the slots of the handles above.
            $vis scope: $crate::Scope,
        }

        impl $block {
            /// Finds or makes the stats under `scope`.
            $vis fn new(scope: &$crate::Scope) -> Self {
                Self {
                    $($($counter: scope.counter($crate::stats_block!(@name $counter $($counter_name)?)),)+)?
                    $($($gauge: scope.gauge(
                        $crate::stats_block!(@name $gauge $($gauge_name)?),
                        $crate::ImportMode::$mode,
                    ),)+)?
                    $($($histogram: scope.histogram(
                        $crate::stats_block!(@name $histogram $($histogram_name)?),
                    ),)+)?
                    $($($text: scope.text_readout($crate::stats_block!(@name $text $($text_name)?)),)+)?
                    scope: scope.clone(),
                }
            }
        }
    };
    (@name $field:ident) => { ::core::stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
}
