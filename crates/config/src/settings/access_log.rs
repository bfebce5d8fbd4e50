//! Access logs: where lines go, which streams get one, and what is in it.

use std::path::PathBuf;
use std::time::Duration;

use super::{Field, HeaderMatcher, HeaderSource, LineFormat, Operator, ResponseFlags, ServerNameSource};

/// `envoy.config.accesslog.v3.AccessLog`.
#[derive(Debug, Clone)]
pub struct AccessLog {
    pub target: LogTarget,
    pub format: LineFormat,
    /// `None`: every stream is told.
    pub filter: Option<AccessLogFilter>,
    /// What has to be kept of a stream for its line.
    pub needs: LogNeeds,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogTarget {
    File(PathBuf),
    Stdout,
    Stderr,
}

/// When lines are written besides at the end (`access_log_options`).
#[derive(Debug, Clone, Default)]
pub struct AccessLogOptions {
    /// `flush_access_log_on_new_request`, `flush_access_log_on_connected`.
    pub at_start: bool,
    /// `access_log_flush_interval`.
    pub interval: Option<Duration>,
}

/// What must outlive the messages of a stream so that a line can be written at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogNeeds {
    /// Anything at all: there is a log.
    pub record: bool,
    pub request: bool,
    pub response: bool,
    pub trailers: bool,
}

/// `envoy.config.accesslog.v3.AccessLogFilter`.
#[derive(Debug, Clone)]
pub enum AccessLogFilter {
    /// The response code, 0 where there was none.
    Status(Comparison),
    /// Of the stream so far, in milliseconds.
    Duration(Comparison),
    /// The request was no health check: always so, while nothing tells them apart.
    NotHealthCheck,
    /// `runtime_filter`: `numerator` of `denominator`, decided by the request's id unless `independent`.
    Sample {
        numerator: u32,
        denominator: u32,
        independent: bool,
    },
    And(Box<[AccessLogFilter]>),
    Or(Box<[AccessLogFilter]>),
    Header(HeaderMatcher),
    /// Any of these, or any at all where none is named.
    Flags(Option<ResponseFlags>),
    /// A bit for each gRPC status.
    GrpcStatus {
        statuses: u32,
        exclude: bool,
    },
    /// A bit for each [`LogType`].
    LogType {
        types: u32,
        exclude: bool,
    },
}

/// `envoy.config.accesslog.v3.ComparisonFilter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    pub operation: ComparisonOperation,
    pub value: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComparisonOperation {
    Equal,
    GreaterOrEqual,
    LessOrEqual,
    NotEqual,
}

/// On what occasion a line is written (`envoy.data.accesslog.v3.AccessLogType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogType {
    NotSet = 0,
    TcpUpstreamConnected = 1,
    TcpPeriodic = 2,
    TcpConnectionEnd = 3,
    DownstreamStart = 4,
    DownstreamPeriodic = 5,
    DownstreamEnd = 6,
    UpstreamPoolReady = 7,
    UpstreamPeriodic = 8,
    UpstreamEnd = 9,
}

impl LogType {
    /// `%ACCESS_LOG_TYPE%`.
    pub fn name(self) -> &'static str {
        match self {
            LogType::NotSet => "NotSet",
            LogType::TcpUpstreamConnected => "TcpUpstreamConnected",
            LogType::TcpPeriodic => "TcpPeriodic",
            LogType::TcpConnectionEnd => "TcpConnectionEnd",
            LogType::DownstreamStart => "DownstreamStart",
            LogType::DownstreamPeriodic => "DownstreamPeriodic",
            LogType::DownstreamEnd => "DownstreamEnd",
            LogType::UpstreamPoolReady => "UpstreamPoolReady",
            LogType::UpstreamPeriodic => "UpstreamPeriodic",
            LogType::UpstreamEnd => "UpstreamEnd",
        }
    }

    pub fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl Comparison {
    pub fn holds(self, value: u64) -> bool {
        let limit = u64::from(self.value);
        match self.operation {
            ComparisonOperation::Equal => value == limit,
            ComparisonOperation::GreaterOrEqual => value >= limit,
            ComparisonOperation::LessOrEqual => value <= limit,
            ComparisonOperation::NotEqual => value != limit,
        }
    }
}

impl LogNeeds {
    pub fn of(format: &LineFormat, filter: Option<&AccessLogFilter>) -> LogNeeds {
        let mut needs = LogNeeds { record: true, ..LogNeeds::default() };
        format.operators().into_iter().for_each(|operator| needs.add_operator(operator));
        if let Some(filter) = filter {
            needs.add_filter(filter);
        }
        needs
    }

    #[must_use]
    pub fn with(self, other: LogNeeds) -> LogNeeds {
        LogNeeds {
            record: self.record || other.record,
            request: self.request || other.request,
            response: self.response || other.response,
            trailers: self.trailers || other.trailers,
        }
    }

    fn add_operator(&mut self, operator: &Operator) {
        match operator {
            Operator::Header(choice) => match choice.source {
                HeaderSource::Request => self.request = true,
                HeaderSource::Response => self.response = true,
                HeaderSource::ResponseTrailer => self.trailers = true,
            },
            Operator::Path { .. } | Operator::QueryParameter(_) | Operator::QueryParameters { .. } => {
                self.request = true;
            }
            Operator::ServerName(source) => self.request |= *source != ServerNameSource::ServerName,
            Operator::GrpcStatus(_) => self.add_grpc_status(),
            Operator::Field(field) => match field {
                Field::RequestHeadersBytes | Field::StreamId => self.request = true,
                Field::ResponseHeadersBytes => self.response = true,
                Field::ResponseTrailersBytes => self.trailers = true,
                _ => {}
            },
            Operator::FilterState { .. }
            | Operator::Metadata { .. }
            | Operator::Network { .. }
            | Operator::Time(_)
            | Operator::Duration { .. } => {}
        }
    }

    fn add_grpc_status(&mut self) {
        self.response = true;
        self.trailers = true;
    }

    fn add_filter(&mut self, filter: &AccessLogFilter) {
        match filter {
            AccessLogFilter::And(filters) | AccessLogFilter::Or(filters) => {
                filters.iter().for_each(|filter| self.add_filter(filter));
            }
            AccessLogFilter::Header(_) => self.request = true,
            AccessLogFilter::Sample { independent, .. } => self.request |= !independent,
            AccessLogFilter::GrpcStatus { .. } => self.add_grpc_status(),
            AccessLogFilter::Status(_)
            | AccessLogFilter::Duration(_)
            | AccessLogFilter::NotHealthCheck
            | AccessLogFilter::Flags(_)
            | AccessLogFilter::LogType { .. } => {}
        }
    }
}
