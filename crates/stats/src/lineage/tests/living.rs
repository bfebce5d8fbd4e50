//! What processes show of others that live beside them.

use std::thread;

use super::*;

#[test]
fn gauges_are_those_of_all_that_live() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    let hold = |process: &Process, connections: i64| {
        let scope = process.scope("server");
        process.settle();
        scope.gauge("total_connections", ImportMode::Accumulate).add(connections);
        scope.gauge("parent_connections", ImportMode::Accumulate);
        scope.gauge("epoch", ImportMode::NeverImport).add(connections);
    };
    let first = join(&path, 1);
    hold(&first, 5);
    let second = join(&path, 2);
    hold(&second, 20);
    let third = join(&path, 3);
    hold(&third, 300);
    let seen = |process: &Process| {
        assert!(process.look().is_empty());
        let value = |name| process.store().value(name).unwrap();
        [value("server.total_connections"), value("server.parent_connections"), value("server.epoch")]
    };
    // Only those before a process are its parents.
    assert_eq!([seen(&first), seen(&second), seen(&third)], [[325, 0, 5], [325, 5, 20], [325, 25, 300]]);
    drop(second);
    assert_eq!([seen(&first), seen(&third)], [[305, 0, 5], [305, 5, 300]]);
    assert!(third.take_over(1, first.turn()));
    assert_eq!(read(&path)["server.parent_connections"], 5, "to readers too");
    drop(first);
    assert_eq!(seen(&third), [300, 0, 300], "what nobody holds any more is gone at once");
}

#[test]
fn stats_come_and_go_while_others_are_looked_at() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    let many = 3 * 1024u64;
    let first = join(&path, 1);
    let scope = first.scope("cluster.a");
    (0..many).for_each(|stat| scope.counter(&format!("c{stat}")).add(stat));
    first.settle();
    let second = join(&path, 2);
    second.settle();
    let stop = &AtomicBool::new(false);
    thread::scope(|threads| {
        let store = second.store().clone();
        threads.spawn(move || {
            while !stop.load(Relaxed) {
                let scope = store.root().scope("cluster.a");
                for stat in (0..many).step_by(7) {
                    let name = format!("c{stat}");
                    scope.counter(&name);
                    let value = store.value(&format!("cluster.a.{name}"));
                    // Nothing after its scope went, until it is looked at again.
                    assert!(value == Some(0) || value == Some(stat), "{name} has {value:?}");
                }
            }
        });
        for _ in 0..20 {
            assert!(second.look().is_empty());
        }
        stop.store(true, Relaxed);
    });
    second.scope("cluster.a");
    assert!(second.look().is_empty());
    assert_eq!(shown(&second).values().sum::<u64>(), (0..many).sum());
}
