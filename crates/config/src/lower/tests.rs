//! Snippets of configuration, and the settings or findings they become.
