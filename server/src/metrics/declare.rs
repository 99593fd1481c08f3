//! `metrics!`: a struct of metrics, each declared in one line.

/// Declares a group: `field: kind "name" ["label", …] (start, factor, count) "help";`,
/// where histograms have exponential buckets.
macro_rules! metrics {
    ($(#[$doc:meta])* $group:ident {
        $($field:ident: $kind:ident $name:literal $([$($label:literal),+])? $(($($bucket:expr),+))? $help:literal;)*
    }) => {
        $(#[$doc])*
        pub struct $group {
            $(#[doc = $help] pub $field: metrics!(@type $kind),)*
        }

        impl $group {
            pub(super) fn register(registry: &prometheus::Registry) -> $group {
                $(
                    let $field = metrics!(@make $kind $name, $help, [$($($label),+)?], ($($($bucket),+)?));
                    registry.register(Box::new($field.clone())).expect(concat!($name, " is declared once"));
                )*
                $group { $($field,)* }
            }
        }
    };

    (@type counter) => { prometheus::IntCounter };
    (@type seconds) => { prometheus::Counter };
    (@type gauge) => { prometheus::IntGauge };
    (@type real) => { prometheus::Gauge };
    (@type histogram) => { prometheus::Histogram };
    (@type counters) => { prometheus::IntCounterVec };
    (@type gauges) => { prometheus::IntGaugeVec };
    (@type histograms) => { prometheus::HistogramVec };

    (@make counter $name:literal, $help:literal, [], ()) => {
        prometheus::IntCounter::new($name, $help).expect("a valid name")
    };
    (@make seconds $name:literal, $help:literal, [], ()) => {
        prometheus::Counter::new($name, $help).expect("a valid name")
    };
    (@make gauge $name:literal, $help:literal, [], ()) => {
        prometheus::IntGauge::new($name, $help).expect("a valid name")
    };
    (@make real $name:literal, $help:literal, [], ()) => {
        prometheus::Gauge::new($name, $help).expect("a valid name")
    };
    (@make histogram $name:literal, $help:literal, [], ($start:expr, $factor:expr, $count:expr)) => {
        prometheus::Histogram::with_opts(prometheus::HistogramOpts::new($name, $help).buckets(
            prometheus::exponential_buckets($start, $factor, $count).expect("valid buckets"),
        ))
        .expect("a valid name")
    };
    (@make counters $name:literal, $help:literal, [$($label:literal),+], ()) => {
        prometheus::IntCounterVec::new(prometheus::Opts::new($name, $help), &[$($label),+]).expect("valid names")
    };
    (@make gauges $name:literal, $help:literal, [$($label:literal),+], ()) => {
        prometheus::IntGaugeVec::new(prometheus::Opts::new($name, $help), &[$($label),+]).expect("valid names")
    };
    (@make histograms $name:literal, $help:literal, [$($label:literal),+], ($start:expr, $factor:expr, $count:expr)) => {
        prometheus::HistogramVec::new(
            prometheus::HistogramOpts::new($name, $help)
                .buckets(prometheus::exponential_buckets($start, $factor, $count).expect("valid buckets")),
            &[$($label),+],
        )
        .expect("valid names")
    };
}
