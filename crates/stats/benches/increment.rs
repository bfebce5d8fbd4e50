//! What counting costs. Budgets: an increment 2 ns, alone and while another thread increments the same counter; a value
//! of a histogram 15 ns.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use proxy_stats::{Store, StoreOptions, ThreadIndex};

fn increment(criterion: &mut Criterion) {
    let store = Store::create(StoreOptions::private(2)).expect("private memory is there");
    assert!(store.bind_thread(ThreadIndex(0)));
    let scope = store.root().scope("cluster.b");
    let counter = scope.counter("upstream_rq_total");
    criterion.bench_function("alone", |bencher| bencher.iter(|| black_box(counter).inc()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            assert!(store.bind_thread(ThreadIndex(1)));
            while !stop.load(Ordering::Relaxed) {
                (0..1000).for_each(|_| black_box(counter).inc());
            }
        });
        criterion
            .bench_function("two threads, one counter", |bencher| bencher.iter(|| black_box(counter).inc()));
        stop.store(true, Ordering::Relaxed);
    });
    let unbound = Store::create(StoreOptions::private(1)).expect("private memory is there");
    let counter = unbound.root().counter("x");
    criterion.bench_function("unbound thread", |bencher| bencher.iter(|| black_box(counter).inc()));
}

fn record(criterion: &mut Criterion) {
    let store = Store::create(StoreOptions::private(1)).expect("private memory is there");
    assert!(store.bind_thread(ThreadIndex(0)));
    // As many as a request records in, and a spread of values.
    let histograms: Vec<_> = (0..16).map(|index| store.root().histogram(&format!("time_{index}"))).collect();
    let mut value = 1_u64;
    let mut turn = 0;
    criterion.bench_function("histogram", |bencher| {
        bencher.iter(|| {
            turn = (turn + 1) % histograms.len();
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            black_box(histograms[turn]).record(value >> 48);
        });
    });
}

criterion_group!(benches, increment, record);
criterion_main!(benches);
