//! `proxyctl restart --hot` and `proxyctl rollback`: the running process does the work, and says how it goes.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use proxy_control::restart::{Moved, Progress, Standing, Step};
use proxy_control::{AskError, Found, Method, StatusCode};

use crate::arguments::{Restart, Rollback};
use crate::generations::{Seen, leader, of_one};
use crate::instance::{encoded, name};
use crate::output::Output;

/// Succeeds only when the new process leads; with `--dry-run`, when it could run the configuration.
pub(crate) fn restart(arguments: &Restart, output: &mut Output) -> anyhow::Result<()> {
    let mut query = Vec::new();
    for (parameter, path) in [("binary", &arguments.binary), ("config", &arguments.config_path)] {
        if let Some(path) = path {
            query.push(format!("{parameter}={}", encoded(&absolute(path)?)));
        }
    }
    if arguments.dry_run {
        query.push("dry_run".to_owned());
    }
    let target = format!("/restart?{}", query.join("&"));
    let joint = if query.is_empty() { "" } else { "&" };
    let deadline = Instant::now() + arguments.timeout;
    let mut busy = None;
    loop {
        let instance = leader(&arguments.instance)?;
        let mut told = Told::new(arguments.instance.json, output);
        // So that there is time to say so.
        let within = deadline.saturating_duration_since(Instant::now()).saturating_sub(LAST_WORD);
        let target = format!("{target}{joint}within_ms={}", within.as_millis());
        match follow(&instance, &target, deadline, &mut told) {
            Ok(Some(with)) => busy = Some(with),
            Ok(None) if arguments.dry_run => return told.validated(),
            Ok(None) => return told.leads(&instance),
            // The last question came too late for its answer, which was known.
            Err(_) if busy.is_some() && !told.begun => {}
            Err(error) => return Err(error),
        }
        if let Some(busy) = &busy
            && Instant::now() + RETRY_INTERVAL >= deadline
        {
            bail!("{}: {busy}", name(instance.base_id(), instance.generation()));
        }
        thread::sleep(RETRY_INTERVAL);
    }
}

/// Succeeds when the process before leads: still, or again.
pub(crate) fn rollback(arguments: &Rollback, output: &mut Output) -> anyhow::Result<()> {
    let all = of_one(&arguments.instance)?;
    let unconfirmed = |seen: &&Seen| seen.is(Standing::Starting) || seen.is(Standing::ServingNotConfirmed);
    let newest = all.iter().rev();
    let Some(seen) =
        newest.clone().find(unconfirmed).or_else(|| newest.clone().find(|seen| seen.is(Standing::Draining)))
    else {
        bail!(
            "there is nothing to roll back to: the process before has ended (restart --hot --binary starts an older program again)"
        );
    };
    let instance = &seen.found;
    let mut told = Told::new(arguments.instance.json, output);
    let deadline = Instant::now() + arguments.timeout;
    if let Some(busy) = follow(instance, "/rollback", deadline, &mut told)? {
        bail!("{}: {busy}", name(instance.base_id(), instance.generation()));
    }
    told.leads(instance)
}

/// Asks, and tells what follows. `Some`: it is busy, and says with what.
fn follow(
    instance: &Found,
    target: &str,
    deadline: Instant,
    told: &mut Told<'_>,
) -> anyhow::Result<Option<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = instance.client(deadline.saturating_duration_since(Instant::now()));
    let answered = runtime.block_on(client.follow(Method::POST, target, |line| told.line(line)));
    let named = || name(instance.base_id(), instance.generation());
    match answered {
        // Its end may cut the answer short, and nothing that matters comes after that.
        Ok(_) | Err(_) if told.leads => Ok(None),
        Ok(answer) if answer.status.is_success() => Ok(None),
        Ok(answer) if answer.status == StatusCode::CONFLICT => Ok(Some(answer.text.trim().to_owned())),
        Ok(answer) => bail!("{} refuses: {}", named(), answer.text.trim()),
        Err(AskError::Deadline(_)) => {
            bail!(
                "{} has not come to an end in time, and goes on; proxyctl epochs says what became of it",
                named()
            )
        }
        Err(error) => Err(error).with_context(named),
    }
}

/// What has been told so far.
struct Told<'a> {
    json: bool,
    output: &'a mut Output,
    elapsed_ms: u64,
    begun: bool,
    validated: bool,
    leads: bool,
    failed: Option<String>,
}

impl<'a> Told<'a> {
    fn new(json: bool, output: &'a mut Output) -> Self {
        Told { json, output, elapsed_ms: 0, begun: false, validated: false, leads: false, failed: None }
    }

    fn line(&mut self, line: &str) {
        self.begun = true;
        if self.json {
            self.output.line(line);
        }
        // Other versions may say more.
        let Some(Progress { step, elapsed_ms }) = Progress::of_line(line) else { return };
        if !self.json {
            let took = elapsed_ms.saturating_sub(self.elapsed_ms);
            self.output.line(&format!("{elapsed_ms:>7} ms {:>9}  {}", format!("(+{took})"), text(&step)));
        }
        self.elapsed_ms = elapsed_ms;
        match step {
            Step::Validated => self.validated = true,
            Step::Leads | Step::GivenUp => self.leads = true,
            Step::Failed { reason } => self.failed = Some(reason),
            _ => {}
        }
    }

    fn validated(self) -> anyhow::Result<()> {
        match self.failed {
            Some(reason) => bail!("{reason}"),
            None if self.validated => Ok(()),
            None => bail!("the process ended before it had validated the configuration"),
        }
    }

    fn leads(self, instance: &Found) -> anyhow::Result<()> {
        let named = name(instance.base_id(), instance.generation());
        match self.failed {
            Some(reason) if !self.leads => bail!("{reason}\n{named} goes on as before"),
            _ if self.leads => Ok(()),
            _ => bail!("{named} ended before another process led"),
        }
    }
}

fn text(step: &Step) -> String {
    match step {
        Step::Validating { program } => format!("{program} reads the configuration"),
        Step::Validated => "it can run it".to_owned(),
        Step::Spawned { pid } => format!("it is started, process {pid}"),
        Step::Greeted { generation, version } => {
            format!("generation {generation} (version {version}) asks to take over")
        }
        Step::SocketsPassed { sockets } => format!("{sockets} listening sockets passed"),
        Step::Serving => "it accepts connections, the process before does not".to_owned(),
        Step::Leads => "it leads".to_owned(),
        Step::Moved(moved) => counts(moved),
        Step::Done(moved) => format!("done: {}", counts(moved)),
        Step::GivenUp => "it has given up, the process before goes on".to_owned(),
        Step::Failed { .. } => "failed".to_owned(),
    }
}

fn counts(Moved { moved, refused, withdrawn, left }: &Moved) -> String {
    format!(
        "{moved} connections moved, {refused} refused, {withdrawn} taken back, {left} left in the old process"
    )
}

/// The process that is asked may have another working directory.
fn absolute(path: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(path)?;
    path.into_os_string().into_string().map_err(|path| anyhow::anyhow!("{} is not UTF-8", path.display()))
}

/// From the running process giving up to its saying why.
const LAST_WORD: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
