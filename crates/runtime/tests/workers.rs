//! Workers, mailboxes and slots with real threads.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proxy_runtime::{
    Deadlines, Drain, Slot, WorkerIndex, Workers, WorkersOptions, clock, local_runtime, worker_local,
};

const DEADLINE: Duration = Duration::from_secs(30);

fn on_main<F: Future>(future: F) -> F::Output {
    let runtime = local_runtime().expect("descriptors are left");
    runtime.block_on(async { tokio::time::timeout(DEADLINE, future).await.expect("no answer in time") })
}

fn start(concurrency: u16) -> Workers {
    Workers::start(WorkersOptions { concurrency, measured: false }, |_| {})
}

#[test]
fn names_threads_and_runs_init_before_mail() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let options = WorkersOptions { concurrency: 3, measured: false };
    let workers = Workers::start(options, move |index| {
        let name = std::thread::current().name().unwrap().to_owned();
        record.lock().unwrap().push((index, name));
        worker_local::insert(Rc::new(index));
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    on_main(workers.post_all_then(move || {
        tell.lock().unwrap().push(*worker_local::get::<WorkerIndex>().expect("init has run"));
    }));
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    let expected: Vec<_> =
        workers.indexes().map(|index| (index, format!("wrk:worker_{}", index.0))).collect();
    assert_eq!(seen, expected);
    assert_eq!(told.lock().unwrap().len(), 3);
    on_main(workers.stop(DEADLINE)).unwrap();
}

#[test]
fn mail_keeps_its_order() {
    let workers = start(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..1000 {
        let order = Arc::clone(&order);
        assert!(workers.post(WorkerIndex(0), Box::new(move || order.lock().unwrap().push(number))));
    }
    assert!(!workers.post(WorkerIndex(1), Box::new(|| {})));
    on_main(workers.stop(DEADLINE)).unwrap();
    assert!(order.lock().unwrap().iter().copied().eq(0..1000));
}

#[test]
fn a_panic_takes_no_worker_down() {
    let workers = start(2);
    on_main(workers.post_all_then(|| panic!("from mail")));
    on_main(workers.post_all_then(|| {
        tokio::task::spawn_local(async { panic!("from a task") });
    }));
    let alive = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&alive);
    on_main(workers.post_all_then(move || {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    assert_eq!(alive.load(Ordering::Relaxed), 2);
    on_main(workers.stop(DEADLINE)).unwrap();
}

#[test]
fn stopping_drops_tasks_and_names_who_is_stuck() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            // What a task drops may still reach what its worker holds.
            assert!(worker_local::get::<u8>().is_some());
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let workers = start(2);
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Dropped(Arc::clone(&dropped));
    workers.post(
        WorkerIndex(0),
        Box::new(move || {
            worker_local::insert(Rc::new(1_u8));
            tokio::task::spawn_local(async move {
                let _flag = flag;
                std::future::pending::<()>().await;
            });
        }),
    );
    let (release, wait) = std::sync::mpsc::channel::<()>();
    workers.post(
        WorkerIndex(1),
        Box::new(move || {
            let _ = wait.recv();
        }),
    );
    let error = on_main(workers.stop(Duration::from_millis(50))).unwrap_err();
    assert_eq!(error.0, [WorkerIndex(1)]);
    assert!(dropped.load(Ordering::Relaxed));
    drop(release);
}

#[test]
fn a_thousand_slot_updates_under_load_reach_every_reader_in_order() {
    const UPDATES: u64 = 1000;
    let workers = start(2);
    let slot = Slot::new(&workers, Arc::new(0_u64));
    let done = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));
    let (reader, stop, count) = (slot.reader(), Arc::clone(&done), Arc::clone(&reads));
    // Four streams a worker, each of which keeps one snapshot over several turns, as a request does.
    on_main(workers.post_all_then(move || {
        for _ in 0..4 {
            let (reader, stop, count) = (reader.clone(), Arc::clone(&stop), Arc::clone(&count));
            tokio::task::spawn_local(async move {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let snapshot = reader.get();
                    let value = *snapshot;
                    assert!(value >= last, "a reader went back from {last} to {value}");
                    last = value;
                    for _ in 0..3 {
                        tokio::task::yield_now().await;
                        assert_eq!(*snapshot, value);
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }));
    let reader = slot.reader();
    on_main(async {
        for update in 1..=UPDATES {
            let published = slot.publish(Arc::new(update));
            assert_eq!(*reader.get(), update, "main is reader 0");
            if update % 100 == 0 {
                published.await;
                let (reader, wrong) = (reader.clone(), Arc::new(AtomicUsize::new(0)));
                let count = Arc::clone(&wrong);
                workers
                    .post_all_then(move || {
                        count.fetch_add(usize::from(*reader.get() != update), Ordering::Relaxed);
                    })
                    .await;
                assert_eq!(wrong.load(Ordering::Relaxed), 0);
            }
        }
    });
    assert!(reads.load(Ordering::Relaxed) > 0);
    assert_eq!(*slot.latest(), UPDATES);
    done.store(true, Ordering::Relaxed);
    on_main(workers.stop(DEADLINE)).unwrap();
}

#[test]
fn dropping_a_slot_frees_every_copy() {
    let workers = start(2);
    let value = Arc::new("table".to_owned());
    let slot = Slot::new(&workers, Arc::clone(&value));
    let reader = slot.reader();
    on_main(workers.post_all_then(|| {}));
    // Main's copy, two workers', and the one for other threads.
    assert_eq!(Arc::strong_count(&value), 1 + 4);
    let elsewhere = reader.clone();
    std::thread::spawn(move || assert_eq!(*elsewhere.get(), "table")).join().unwrap();
    drop(slot);
    on_main(workers.post_all_then(|| {}));
    assert_eq!(*reader.get(), "table");
    drop(reader);
    assert_eq!(Arc::strong_count(&value), 1);
    on_main(workers.stop(DEADLINE)).unwrap();
}

#[test]
fn a_table_is_edited_piece_by_piece_and_drained_per_worker() {
    #[derive(Default)]
    struct Table(RefCell<HashMap<u32, Drain>>);
    let options = WorkersOptions { concurrency: 2, measured: false };
    let workers = Workers::start(options, |_| {
        worker_local::insert(Rc::new(Table::default()));
    });
    for id in 0..100 {
        workers.post_all(move || {
            let drain = Drain::new();
            let guard = drain.guard();
            tokio::task::spawn_local(async move { guard.draining().await });
            worker_local::get::<Table>().unwrap().0.borrow_mut().insert(id, drain);
        });
    }
    let (told, mut gone) = tokio::sync::mpsc::unbounded_channel();
    workers.post_all(move || {
        let told = told.clone();
        tokio::task::spawn_local(async move {
            let table = worker_local::get::<Table>().unwrap();
            let drains: Vec<Drain> = table.0.borrow_mut().drain().map(|(_, drain)| drain).collect();
            for drain in &drains {
                drain.close_and_wait().await;
            }
            told.send(drains.len()).unwrap();
        });
    });
    on_main(async {
        let mut drained = Vec::new();
        while let Some(count) = gone.recv().await {
            drained.push(count);
        }
        assert_eq!(drained, [100, 100]);
    });
    on_main(workers.stop(DEADLINE)).unwrap();
}

#[test]
fn timers_run_on_workers_in_coarse_time() {
    let workers = start(1);
    let (told, mut fired) = tokio::sync::mpsc::unbounded_channel();
    workers.post_all(move || {
        let told = told.clone();
        tokio::task::spawn_local(async move {
            let deadlines = Deadlines::<2>::new();
            let begin = clock::now();
            let turns = Cell::new(0);
            deadlines.set(1, begin + Duration::from_millis(10));
            let which = std::future::poll_fn(|context| {
                turns.set(turns.get() + 1);
                deadlines.poll_expired(context)
            })
            .await;
            told.send((which, clock::now() - begin, turns.get())).unwrap();
        });
    });
    let (which, after, turns) = on_main(fired.recv()).unwrap();
    assert_eq!(which, 1);
    assert!(after >= Duration::from_millis(10));
    assert_eq!(turns, 2, "polled once to register and once when due");
    on_main(workers.stop(DEADLINE)).unwrap();
}
