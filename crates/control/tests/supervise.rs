//! The supervisor with real processes: this program is the test, the supervisor and the generations, by its first argument.
//!
//! A generation does what the words of its script say, one after the other, and tells on standard output, which all
//! processes of a test share. Scripts are named, and lie in the environment.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests: a panic is a failure")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};

use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use proxy_control::supervise;
use proxy_control::{Ended, Spawned, Supervisor};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.first().and_then(|role| role.to_str()) {
        Some("supervise") => match supervise::run(&this_program(), &["generation".into(), "A".into()]) {
            Ok(code) => ExitCode::from(code),
            Err(error) => panic!("{error}"),
        },
        Some("generation") => generation(arguments[1].to_str().unwrap()),
        // Or a part of a test's name.
        filter => {
            let filter = filter.filter(|part| !part.starts_with('-')).unwrap_or_default();
            for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(filter)) {
                test();
                println!("test {name} ... ok");
            }
            ExitCode::SUCCESS
        }
    }
}

const TESTS: &[(&str, fn())] = &[
    ("the_code_is_that_of_the_leader", the_code_is_that_of_the_leader),
    ("a_leader_that_is_killed_ends_the_service", a_leader_that_is_killed_ends_the_service),
    ("signals_reach_whom_they_are_for", signals_reach_whom_they_are_for),
    ("a_successor_that_fails_harms_nobody", a_successor_that_fails_harms_nobody),
    ("nobody_drains_for_long_when_nobody_leads", nobody_drains_for_long_when_nobody_leads),
    ("a_process_that_leads_again_gets_the_signals", a_process_that_leads_again_gets_the_signals),
    ("what_is_too_much_is_refused", what_is_too_much_is_refused),
    ("generations_outlive_their_supervisor", generations_outlive_their_supervisor),
    ("as_pid_1_it_buries_orphans", as_pid_1_it_buries_orphans),
];

fn the_code_is_that_of_the_leader() {
    let run = Run::start(&[("A", "lead exit:3")]);
    assert_eq!(run.code(), Some(3));
    // Also if it is one that never came to lead.
    assert_eq!(Run::start(&[("A", "exit:1")]).code(), Some(1));
}

fn a_leader_that_is_killed_ends_the_service() {
    assert_eq!(Run::start(&[("A", "lead kill")]).code(), Some(128 + 9));
}

fn signals_reach_whom_they_are_for() {
    let mut run = Run::start(&[("A", "lead spawn:B serve exit:0"), ("B", "lead serve exit:5")]);
    run.reads("A serves");
    run.reads("B serves");
    run.signal(Signal::SIGHUP);
    run.reads("B got 1");
    run.signal(Signal::SIGUSR2);
    run.reads("B got 12");
    run.signal(Signal::SIGUSR1);
    run.reads("A got 10");
    run.reads("B got 10");
    run.signal(Signal::SIGTERM);
    run.reads("A got 15");
    run.reads("B got 15");
    assert_eq!(run.code(), Some(5), "the leader's");
}

fn a_successor_that_fails_harms_nobody() {
    let mut run = Run::start(&[
        ("A", "lead spawn:B wait spawn:C wait missing serve exit:0"),
        ("B", "exit:1"),
        ("C", "kill"),
    ]);
    run.reads("A heard that it exited with 1");
    run.reads("A heard that it was ended by SIGKILL");
    run.reads("A is refused: /missing/program: No such file or directory (os error 2)");
    run.reads("A serves");
    run.signal(Signal::SIGHUP);
    run.reads("A got 1");
    run.signal(Signal::SIGINT);
    run.reads("A got 2");
    assert_eq!(run.code(), Some(0));
}

fn nobody_drains_for_long_when_nobody_leads() {
    let mut run = Run::start(&[("A", "lead spawn:B serve exit:0"), ("B", "lead kill")]);
    run.reads("A got 15");
    assert_eq!(run.code(), Some(128 + 9));
}

fn a_process_that_leads_again_gets_the_signals() {
    let mut run = Run::start(&[("A", "lead spawn:B wait lead serve exit:0"), ("B", "lead exit:0")]);
    run.reads("A serves");
    run.signal(Signal::SIGHUP);
    run.reads("A got 1");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), Some(0));
}

fn what_is_too_much_is_refused() {
    let mut run = Run::start(&[
        ("A", "lead spawn:B spawn:B spawn:B spawn:B spawn:B large serve exit:0"),
        ("B", "serve exit:0"),
    ]);
    run.reads("A is refused: 5 processes live already: the oldest has to end first");
    assert!(run.read("A is refused: the arguments have 2000").ends_with("bytes, which is too much"));
    run.reads("A serves");
    (0..4).for_each(|_| run.reads("B serves"));
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), Some(0));
}

fn generations_outlive_their_supervisor() {
    let mut run = Run::start(&[("A", "lead pid serve spawn:B exit:0")]);
    let pid: i32 = run.read("A has pid ").parse().unwrap();
    run.reads("A serves");
    run.signal(Signal::SIGKILL);
    run.supervisor.wait().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    run.reads("A got 15");
    run.reads("A is refused: the supervisor is gone");
}

fn as_pid_1_it_buries_orphans() {
    let unshare = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    let permitted = Command::new("unshare").args(unshare).arg("true").stderr(Stdio::null()).status();
    if !permitted.is_ok_and(|status| status.success()) {
        println!("skipped: unshare is not permitted, or not there");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(unshare).arg(this_program());
    let mut run = Run::start_as(command, &[("A", "lead orphan exit:0")]);
    run.reads("A saw its orphan buried");
    assert_eq!(run.code(), Some(0));
}

/// A supervisor at work.
struct Run {
    supervisor: Child,
    output: BufReader<ChildStdout>,
    /// Lines that came before the one that was waited for: processes do not take turns.
    early: Vec<String>,
}

impl Run {
    fn start(scripts: &[(&str, &str)]) -> Run {
        Run::start_as(Command::new(this_program()), scripts)
    }

    fn start_as(mut command: Command, scripts: &[(&str, &str)]) -> Run {
        command.arg("supervise").envs(scripts.iter().copied()).stdout(Stdio::piped());
        let mut supervisor = command.spawn().unwrap();
        let output = BufReader::new(supervisor.stdout.take().unwrap());
        Run { supervisor, output, early: Vec::new() }
    }

    fn reads(&mut self, line: &str) {
        assert_eq!(self.read(line), "");
    }

    /// The rest of the line that begins so.
    fn read(&mut self, beginning: &str) -> String {
        loop {
            if let Some(at) = self.early.iter().position(|line| line.starts_with(beginning)) {
                return self.early.remove(at)[beginning.len()..].to_owned();
            }
            let mut line = String::new();
            let length = self.output.read_line(&mut line).unwrap();
            assert_ne!(length, 0, "it ended without '{beginning}'; {:?}", self.early);
            self.early.push(line.trim_end().to_owned());
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.supervisor.id() as i32), signal).unwrap();
    }

    fn code(mut self) -> Option<i32> {
        self.supervisor.wait().unwrap().code()
    }
}

fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// A generation by its script.
fn generation(name: &str) -> ExitCode {
    assert!(supervise::is_supervised());
    let script = std::env::var(name).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let supervisor = Supervisor::from_environment().unwrap();
        let mut spawned = Vec::new();
        for word in script.split(' ') {
            let (word, argument) = word.split_once(':').unwrap_or((word, ""));
            match word {
                "lead" => supervisor.leads().await.unwrap(),
                "spawn" => spawned.extend(spawn(&supervisor, name, &this_program(), argument).await),
                "missing" => drop(spawn(&supervisor, name, Path::new("/missing/program"), "").await),
                "large" => drop(spawn(&supervisor, name, &this_program(), &"x".repeat(200_000)).await),
                "wait" => {
                    let spawned: Spawned = spawned.pop().unwrap();
                    let ended: Ended = spawned.wait().await;
                    println!("{name} heard that it {ended}");
                }
                "serve" => serve(name).await,
                "orphan" => orphan(name),
                "pid" => println!("{name} has pid {}", std::process::id()),
                "kill" => raise(Signal::SIGKILL).unwrap(),
                "exit" => return ExitCode::from(argument.parse::<u8>().unwrap()),
                _ => panic!("{name} cannot {word}"),
            }
        }
        ExitCode::SUCCESS
    })
}

async fn spawn(supervisor: &Supervisor, name: &str, program: &Path, script: &str) -> Option<Spawned> {
    let spawned = supervisor.spawn(program, &["generation".into(), script.into()]).await;
    spawned.inspect_err(|error| println!("{name} is refused: {error}")).ok()
}

/// Tells of signals until one says to end.
async fn serve(name: &str) {
    let numbers = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
    let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
    for number in numbers.map(|signal| signal as i32) {
        let mut signals = signal(SignalKind::from_raw(number)).unwrap();
        let told = told.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                told.send(number).unwrap();
            }
        });
    }
    println!("{name} serves");
    while let Some(number) = tell.recv().await {
        println!("{name} got {number}");
        if number == Signal::SIGTERM as i32 || number == Signal::SIGINT as i32 {
            break;
        }
    }
}

/// Leaves a process without a parent that ends at once.
fn orphan(name: &str) {
    let shell = Command::new("sh").args(["-c", "sh -c 'read line' >/dev/null 2>&1 <&- & echo $!"]).output();
    let orphan: u32 = String::from_utf8(shell.unwrap().stdout).unwrap().trim().parse().unwrap();
    let path = PathBuf::from(format!("/proc/{orphan}"));
    while path.exists() {
        std::thread::yield_now();
    }
    println!("{name} saw its orphan buried");
}
