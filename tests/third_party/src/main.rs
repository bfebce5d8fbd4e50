//! A proxyd with three filters that it does not have: an example, and the suite's proof that there can be any.

mod greeting;
mod knock;
mod quota;

use std::process::ExitCode;

use proxyd::Extensions;

fn main() -> ExitCode {
    let extensions = Extensions::default()
        .listener_filter("example.Knock", knock::plan)
        .network_filter("example.Quota", quota::plan)
        .http_filter("example.Greeting", greeting::plan)
        .route_settings::<greeting::PerRoute>("example.GreetingPerRoute");
    proxyd::main(extensions)
}
