//! Name look-ups for DNS clusters: `/etc/hosts`, `localhost`, then the system's name servers. Runs on main.
//!
//! hickory-resolver asks the servers; what is around it follows Envoy's c-ares: which families are asked for, and that nothing is
//! cached, because a cluster's refresh rate decides how often a name is asked for.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use proxy_config::settings::DnsFamily;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

/// Looks names up. Clones share everything.
#[derive(Clone)]
pub struct Resolver {
    servers: TokioResolver,
    hosts: Arc<HostsFile>,
    /// Look-ups under way; more wait, in order.
    slots: Arc<Semaphore>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Never empty; in the order of preference of the family asked for, then as the server sent them.
    pub addresses: Vec<IpAddr>,
    /// How long that may be believed: the shortest time to live, at least a second.
    pub ttl: Duration,
}

/// Why there are no addresses.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DnsError {
    #[error("{0:?} is not a host name")]
    Name(String),
    /// The servers say that there is no such name, or no address of this family.
    #[error("no address for {0}")]
    NotFound(String),
    #[error("no answer for {host} within {limit:?}", limit = LOOKUP_LIMIT)]
    Timeout { host: String },
    #[error("look-up of {host}: {error}")]
    Server { host: String, error: String },
    #[error("resolver: {0}")]
    Start(String),
}

impl Resolver {
    /// A resolver by `/etc/resolv.conf` and `/etc/hosts`. Without name servers, the hosts file and `localhost` still resolve.
    ///
    /// # Errors
    /// hickory-resolver cannot be set up.
    pub fn new() -> Result<Self, DnsError> {
        let (config, options) = system_conf::read_system_conf().unwrap_or_else(|error| {
            warn!(%error, "no name servers: only names in /etc/hosts can be looked up");
            (ResolverConfig::from_parts(None, Vec::new(), Vec::new()), ResolverOpts::default())
        });
        Self::with(config, options, PathBuf::from("/etc/hosts"))
    }

    /// A resolver that asks `servers` by UDP and TCP, each on its own port, and reads `hosts`.
    ///
    /// # Errors
    /// As [`Resolver::new`].
    pub fn with_servers(servers: &[std::net::SocketAddr], hosts: PathBuf) -> Result<Self, DnsError> {
        let of_server = |server: &std::net::SocketAddr| {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            config.connections.iter_mut().for_each(|connection| connection.port = server.port());
            config
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(of_server).collect());
        Self::with(config, ResolverOpts::default(), hosts)
    }

    fn with(config: ResolverConfig, mut options: ResolverOpts, hosts: PathBuf) -> Result<Self, DnsError> {
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never; // hickory reads it once; we look when it changes
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let servers =
            builder.with_options(options).build().map_err(|error| DnsError::Start(error.to_string()))?;
        Ok(Self {
            servers,
            hosts: Arc::new(HostsFile { path: hosts, read: Mutex::default() }),
            slots: Arc::new(Semaphore::new(CONCURRENT_LOOKUPS)),
        })
    }

    /// The addresses of `host`, which may also be a literal. Within tokio's runtime.
    ///
    /// # Errors
    /// See [`DnsError`].
    pub async fn resolve(&self, host: &str, family: DnsFamily) -> Result<Answer, DnsError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return known(&[address], family, FOREVER).ok_or_else(|| DnsError::NotFound(host.to_owned()));
        }
        let name = Name::from_utf8(host).ok().filter(|name| name.num_labels() > 0);
        let name = name.ok_or_else(|| DnsError::Name(host.to_owned()))?;
        if let Some(addresses) = self.hosts.addresses(&name).await {
            // Whoever writes a name there means it: servers are not asked for the family that he left out.
            return known(&addresses, family, HOSTS_TTL).ok_or_else(|| DnsError::NotFound(host.to_owned()));
        }
        if is_localhost(&name) {
            let both = [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)];
            return known(&both, family, FOREVER).ok_or_else(|| DnsError::NotFound(host.to_owned()));
        }
        let asked = tokio::time::timeout(LOOKUP_LIMIT, self.ask(host, &name, family)).await;
        let answer = asked.unwrap_or_else(|_| Err(DnsError::Timeout { host: host.to_owned() }));
        match &answer {
            Ok(answer) => debug!(host, ?family, addresses = ?answer.addresses, ttl = ?answer.ttl, "resolved"),
            Err(error) => debug!(host, ?family, %error, "not resolved"),
        }
        answer
    }

    async fn ask(&self, host: &str, name: &Name, family: DnsFamily) -> Result<Answer, DnsError> {
        use RecordType::{A, AAAA};
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        match family {
            DnsFamily::V4Only => self.ask_for(host, name, A).await,
            DnsFamily::V6Only => self.ask_for(host, name, AAAA).await,
            DnsFamily::Auto => self.ask_then(host, name, AAAA, A).await,
            DnsFamily::V4Preferred => self.ask_then(host, name, A, AAAA).await,
            DnsFamily::All => {
                match tokio::join!(self.ask_for(host, name, AAAA), self.ask_for(host, name, A)) {
                    (Ok(six), Ok(four)) => Ok(Answer {
                        ttl: six.ttl.min(four.ttl),
                        addresses: six.addresses.into_iter().chain(four.addresses).collect(),
                    }),
                    (Ok(answer), Err(_)) | (Err(_), Ok(answer)) => Ok(answer),
                    (Err(DnsError::NotFound(_)), Err(error)) | (Err(error), Err(_)) => Err(error),
                }
            }
        }
    }

    async fn ask_then(
        &self,
        host: &str,
        name: &Name,
        first: RecordType,
        second: RecordType,
    ) -> Result<Answer, DnsError> {
        match self.ask_for(host, name, first).await {
            Err(_) => self.ask_for(host, name, second).await,
            found => found,
        }
    }

    async fn ask_for(&self, host: &str, name: &Name, record_type: RecordType) -> Result<Answer, DnsError> {
        let found = self.servers.lookup(name.clone(), record_type).await.map_err(|error| match error {
            NetError::Timeout => DnsError::Timeout { host: host.to_owned() },
            error if error.is_no_records_found() => DnsError::NotFound(host.to_owned()),
            error => DnsError::Server { host: host.to_owned(), error: error.to_string() },
        })?;
        let records = || found.answers().iter().filter(|record| record.record_type() == record_type);
        let addresses: Vec<_> =
            records().filter_map(|record| record.data.ip_addr()).take(MOST_ADDRESSES).collect();
        // The way over aliases is as short-lived as its shortest part.
        match found.answers().iter().map(|record| record.ttl).min() {
            Some(ttl) if !addresses.is_empty() => {
                Ok(Answer { addresses, ttl: Duration::from_secs(u64::from(ttl)).max(SHORTEST_TTL) })
            }
            _ => Err(DnsError::NotFound(host.to_owned())),
        }
    }
}

/// Of addresses that need no asking, those that `family` takes.
fn known(addresses: &[IpAddr], family: DnsFamily, ttl: Duration) -> Option<Answer> {
    let of = |six: bool| addresses.iter().copied().filter(move |address| address.is_ipv6() == six);
    let either = |first: bool| match of(first).next() {
        Some(_) => of(first).collect(),
        None => of(!first).collect(),
    };
    let addresses: Vec<_> = match family {
        DnsFamily::V4Only => of(false).collect(),
        DnsFamily::V6Only => of(true).collect(),
        DnsFamily::Auto => either(true),
        DnsFamily::V4Preferred => either(false),
        DnsFamily::All => of(true).chain(of(false)).collect(),
    };
    (!addresses.is_empty()).then_some(Answer { addresses, ttl })
}

/// RFC 6761, section 6.3: these names never leave the host.
fn is_localhost(name: &Name) -> bool {
    name.iter().next_back().is_some_and(|label| label.eq_ignore_ascii_case(b"localhost"))
}

/// `/etc/hosts`, read again when it changes.
struct HostsFile {
    path: PathBuf,
    read: Mutex<ReadHosts>,
}

#[derive(Default, Clone)]
struct ReadHosts {
    modified: Option<SystemTime>,
    hosts: Arc<Hosts>,
}

impl HostsFile {
    async fn addresses(&self, name: &Name) -> Option<Vec<IpAddr>> {
        let hosts = self.current().await;
        let of_type = |record_type| hosts.lookup_static_host(&Query::query(name.clone(), record_type));
        let found = [RecordType::AAAA, RecordType::A].into_iter().filter_map(of_type);
        let addresses: Vec<_> = found
            .flat_map(|lookup| {
                lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>()
            })
            .collect();
        (!addresses.is_empty()).then_some(addresses)
    }

    async fn current(&self) -> Arc<Hosts> {
        let modified = fs::metadata(&self.path).and_then(|found| found.modified()).ok();
        let known = self.lock().clone();
        if known.modified == modified {
            return known.hosts;
        }
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read_hosts(&path)).await;
        let hosts = Arc::new(read.ok().and_then(Result::ok).unwrap_or_default());
        *self.lock() = ReadHosts { modified, hosts: Arc::clone(&hosts) };
        hosts
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ReadHosts> {
        self.read.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn read_hosts(path: &std::path::Path) -> io::Result<Hosts> {
    let mut hosts = Hosts::default();
    hosts.read_hosts_conf(fs::File::open(path)?)?;
    Ok(hosts)
}

/// Over all servers, families and repetitions.
const LOOKUP_LIMIT: Duration = Duration::from_secs(30);
const CONCURRENT_LOOKUPS: usize = 64;
const MOST_ADDRESSES: usize = 1024;
/// A record that says 0 must not make a busy loop.
const SHORTEST_TTL: Duration = Duration::from_secs(1);
const HOSTS_TTL: Duration = Duration::from_secs(5);
const FOREVER: Duration = Duration::from_secs(86_400);

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
