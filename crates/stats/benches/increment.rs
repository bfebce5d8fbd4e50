//! What an increment costs: alone, and while another thread increments the same counter. Budget: 2 ns each.

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

criterion_group!(benches, increment);
criterion_main!(benches);
