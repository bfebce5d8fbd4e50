//! What finding a counter by its name costs: when the thread remembers it, and when the store has to be asked.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use proxy_stats::{Store, StoreOptions, ThreadIndex};

fn look_up(criterion: &mut Criterion) {
    let store = Store::create(StoreOptions::private(1)).expect("private memory is there");
    assert!(store.bind_thread(ThreadIndex(0)));
    let scope = store.root().scope("cluster.b");
    let bench = |criterion: &mut Criterion, id: &str, names: &[String]| {
        let mut turn = 0;
        criterion.bench_function(id, |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % names.len();
                black_box(&scope).counter(black_box(&names[turn])).inc();
            });
        });
    };
    let few: Vec<_> = (200..216).map(|status| format!("upstream_rq_{status}")).collect();
    bench(criterion, "remembered", &few);
    let long: Vec<_> = few.iter().map(|name| format!("{name}_{}", "x".repeat(50))).collect();
    bench(criterion, "asked of the store", &long);
}

criterion_group!(benches, look_up);
criterion_main!(benches);
