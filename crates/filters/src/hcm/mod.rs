//! The HTTP connection manager: from a connection's bytes to requests, through filters, to responses.
//!
//! [`respond`] is what happens to a request whatever its version; [`h1`] and [`h2`] speak to the client.

mod detect;
mod h1;
mod h2;
mod kept;
mod log;
mod moving;
mod respond;
mod stats;

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proxy_config::settings::{self, LocalReplyConfig, LogNeeds};
use proxy_http::filter::{ChainIndex, FilterSet, HttpFilter};
use proxy_http::h1::head::{HeadLimits, RequestRules};
use proxy_http::h1::write::HeadStyle;
use proxy_http::route::RouteTable;
use proxy_http::{StreamInfo, Version};
use proxy_net::{
    CloseReason, Connection, ConnectionInfo, Handover, LocalBoxFuture, MovedConnection, MovedKind,
    NetworkFilter, NextNetwork,
};
use proxy_runtime::{Drain, SlotReader};
use proxy_upstream::ClusterMap;

use crate::http::{ChainPlan, FilterChains, FilterWorker};
use crate::router::Router;
use detect::Detected;
pub use log::ManagerLogs;
use moving::MovedHttp;
pub use stats::{ConnectionGuard, HttpStats, ListenerCodeStats, ManagerStats, RouterStats};

/// How long an HTTP/1 connection must have been quiet before a listener that goes away closes it. A client that has just
/// connected, or just had an answer that did not announce the end, is likely to be sending a request already.
const QUIET_BEFORE_CLOSE: Duration = Duration::from_secs(1);

/// What a connection manager needs of its worker.
pub struct ManagerContext {
    pub clusters: Rc<ClusterMap>,
    pub routes: SlotReader<RouteTable>,
    /// This machine's own address: see [`proxy_http::forwarding::ForwardingContext`].
    pub local_address: Option<IpAddr>,
    pub stats: Arc<HttpStats>,
    pub logs: ManagerLogs,
    /// The listener's `per_connection_buffer_limit_bytes`.
    pub buffer_limit: u32,
    /// Tells connections to close after their next response.
    pub drain: Drain,
    /// Tells idle connections to close as soon as they were quiet for [`QUIET_BEFORE_CLOSE`].
    pub closing: Drain,
    /// Whether connections are dropped as they are.
    pub cut: Rc<CutOff>,
    /// Where connections go in a hot restart.
    pub handover: Rc<Handover>,
}

/// Set before the tasks of all connections are dropped because there is to be no such chain any more: the
/// `%RESPONSE_CODE_DETAILS%` of requests under way. Otherwise it is a client that has left.
pub type CutOff = Cell<Option<&'static str>>;

/// One worker's instance for a filter chain.
#[derive(Clone)]
pub struct HttpConnectionManager(Rc<Manager>);

pub(crate) struct Manager {
    settings: Arc<settings::HttpConnectionManager>,
    filters: Vec<Box<dyn HttpFilter>>,
    /// Those that only requests see whose route says so.
    disabled_filters: FilterSet,
    default_chain: Chain,
    /// By [`ChainIndex`], without the default one.
    upgrade_chains: Vec<Chain>,
    routes: SlotReader<RouteTable>,
    local_address: Option<IpAddr>,
    stats: Arc<HttpStats>,
    logs: ManagerLogs,
    needs: LogNeeds,
    buffer_limit: u32,
    drain: Drain,
    closing: Drain,
    cut: Rc<CutOff>,
    handover: Rc<Handover>,
}

/// One of its chains of filters.
struct Chain {
    /// The filters of the others.
    others: FilterSet,
    router: Router,
}

impl HttpConnectionManager {
    pub fn new(
        settings: Arc<settings::HttpConnectionManager>,
        filters: &FilterChains,
        context: ManagerContext,
    ) -> HttpConnectionManager {
        let built = filters.build(&FilterWorker {
            clusters: Rc::clone(&context.clusters),
            filter_chain: Rc::clone(&context.logs.filter_chain),
        });
        let logged = context.logs.needs();
        let replies = settings.local_replies.as_ref();
        let needs = LogNeeds {
            record: logged.record
                || settings.routes.tells_of_record()
                || filters.tells_of_record()
                || settings.proxy_status.as_ref().is_some_and(|status| status.details)
                || replies.is_some_and(LocalReplyConfig::tells_of_record),
            ..logged
        };
        let chain = |plan: &ChainPlan| Chain {
            others: filters.others(plan),
            router: Router::new(
                plan.router(),
                Rc::clone(&context.clusters),
                Arc::clone(&context.stats),
                context.logs.need_upstream_response(),
                Rc::clone(&context.logs.filter_chain),
            ),
        };
        HttpConnectionManager(Rc::new(Manager {
            default_chain: chain(filters.default_chain()),
            upgrade_chains: filters.of_upgrades().iter().map(chain).collect(),
            filters: built,
            disabled_filters: filters.disabled_by_default(),
            settings,
            routes: context.routes,
            local_address: context.local_address,
            stats: context.stats,
            needs,
            logs: context.logs,
            buffer_limit: context.buffer_limit,
            drain: context.drain,
            closing: context.closing,
            cut: context.cut,
            handover: context.handover,
        }))
    }
}

impl Manager {
    /// The chain that serves a stream.
    fn chain(&self, stream: &StreamInfo) -> &Chain {
        let own = usize::from(stream.filter_chain().0).checked_sub(1);
        own.and_then(|index| self.upgrade_chains.get(index)).unwrap_or(&self.default_chain)
    }

    /// Has a chain serve a stream, with all filters that are not disabled by default.
    fn set_filter_chain(&self, stream: &StreamInfo, chain: ChainIndex) {
        stream.set_filter_chain(chain);
        stream.set_disabled_filters(self.disabled_filters.with(self.chain(stream).others));
    }

    /// What heads of HTTP/1 requests may be.
    fn request_rules(&self) -> RequestRules<'_> {
        let settings = &self.settings;
        RequestRules {
            limits: HeadLimits {
                bytes: settings.max_request_header_bytes as usize,
                lines: settings.max_request_headers as usize,
            },
            options: &settings.http1,
            underscores: settings.underscores,
        }
    }

    /// How heads are written to a client that speaks `version`.
    fn head_style(&self, version: Version) -> HeadStyle {
        HeadStyle { http10: version == Version::Http10, case: self.settings.http1.header_case }
    }
}

impl NetworkFilter for HttpConnectionManager {
    fn serve<'a>(
        &'a self,
        mut connection: Connection,
        _next: NextNetwork<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CloseReason>> {
        Box::pin(async move {
            let manager = &self.0;
            let moved = MovedHttp::of(&mut connection);
            let (stats, opened) = (&manager.stats.manager, connection.info.started);
            let guard = match moved {
                Some(_) => ConnectionGuard::resumed(stats, opened),
                None => ConnectionGuard::new(stats, opened),
            };
            let moved = match moved {
                Some((moved, beside)) if moved.upgrade.is_some() => {
                    guard.set_still_http1();
                    return Box::pin(h1::resume(manager, connection, guard, moved, *beside)).await;
                }
                Some((moved, _)) if moved.requests > 0 => {
                    guard.set_still_http1();
                    return h1::serve(manager, connection, guard, moved).await;
                }
                moved => moved.map(|(moved, _)| moved),
            };
            let mobility = manager.handover.mobility();
            let detected = match manager.settings.codec {
                settings::CodecType::Http1 => Detected::Http1,
                settings::CodecType::Http2 => Detected::Http2,
                // In a box of its own, so that the future of an HTTP/1 connection that idles stays small.
                settings::CodecType::Auto => {
                    Box::pin(detect::detect(manager, &mut connection, &guard, &mobility)).await?
                }
            };
            drop(mobility);
            match detected {
                Detected::Http1 => {
                    guard.set_http1();
                    h1::serve(manager, connection, guard, moved.unwrap_or_default()).await
                }
                Detected::Http2 => {
                    guard.set_http2();
                    Box::pin(h2::serve(manager, connection, guard)).await
                }
                Detected::Moved(receipt) => {
                    guard.moved();
                    drop(connection);
                    receipt.released();
                    Err(CloseReason::Moved)
                }
                Detected::Nothing => Ok(()),
            }
        })
    }

    fn takes(&self, moved: &MovedConnection, _info: &ConnectionInfo) -> bool {
        self.0.settings.codec != settings::CodecType::Http2
            && match moved.kind() {
                MovedKind::Http => true,
                MovedKind::Upgraded => self.0.would_resume(moved),
                MovedKind::Unspecified | MovedKind::Relay => false,
            }
    }

    fn turned_away(&self, info: &Rc<ConnectionInfo>) {
        drop(ConnectionGuard::new(&self.0.stats.manager, info.started));
    }
}
