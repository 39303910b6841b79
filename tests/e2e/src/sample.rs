//! Compose files around the sample app.

use crate::docker::SAMPLE;

/// One service `web` with a health check that is quick to say yes or no, published on this machine's `port`.
#[must_use]
pub fn web(port: u16, environment: &[(&str, &str)]) -> String {
    format!("services:\n{}", web_service(port, environment, ""))
}

/// [`web`], which keeps being "starting" for as long as a test may take: what it waits for never comes.
#[must_use]
pub fn web_that_hangs(port: u16) -> String {
    let fail = [("FAIL", "slow-health:600000"), ("VERSION", "hangs")];
    format!("services:\n{}", web_service(port, &fail, "      start_period: 10m\n"))
}

/// The service alone; `health` are further lines of its health check.
#[must_use]
pub fn web_service(port: u16, environment: &[(&str, &str)], health: &str) -> String {
    let mut text = format!(
        "  web:\n    image: {SAMPLE}\n    ports: [\"127.0.0.1:{port}:8080\"]\n    stop_grace_period: 2s\n    \
         healthcheck:\n      test: [\"CMD\", \"/sample\", \"check\"]\n      interval: 300ms\n      timeout: 5s\n      \
         retries: 3\n{health}"
    );
    if !environment.is_empty() {
        text.push_str("    environment:\n");
        for (name, value) in environment {
            text.push_str(&format!("      {name}: \"{value}\"\n"));
        }
    }
    text
}
