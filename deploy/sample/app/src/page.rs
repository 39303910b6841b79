//! The page at `/`.

use std::env;

/// What the page tells.
pub(crate) struct Facts {
    greeting: String,
    app: Option<String>,
    release: Option<String>,
    host: String,
}

impl Facts {
    /// Reads `GREETING`, `APP`, `RELEASE`, `HOST_NAME` and the container's own host name.
    pub(crate) fn from_environment() -> Self {
        let read = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let own_name = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|text| text.trim().to_owned());
        Self {
            greeting: read("GREETING").unwrap_or_else(|| "Hello from ServerFlow".to_owned()),
            app: read("APP"),
            release: read("RELEASE"),
            host: read("HOST_NAME").or_else(|| own_name().ok()).unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}

/// The page as HTML, every value escaped.
pub(crate) fn render(facts: &Facts) -> String {
    let row = |name: &str, value: &Option<String>| {
        value.as_ref().map_or(String::new(), |value| format!("<dt>{name}</dt><dd>{}</dd>", escape(value)))
    };
    let greeting = escape(&facts.greeting);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{greeting}</title><style>{STYLE}</style></head>\
         <body><main><h1>{greeting}</h1><dl>{}{}<dt>Host</dt><dd>{}</dd></dl></main></body></html>\n",
        row("App", &facts.app),
        row("Release", &facts.release),
        escape(&facts.host),
    )
}

const STYLE: &str = ":root{color-scheme:light dark}body{margin:0;min-height:100vh;display:grid;place-items:center;\
    font:1.1rem/1.5 system-ui,sans-serif}main{max-width:34rem;padding:2rem}h1{font-weight:600;margin:0 0 1rem}\
    dl{display:grid;grid-template-columns:auto 1fr;gap:.3rem 1rem;margin:0}dt{opacity:.6}dd{margin:0}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_absent_rows_left_out() {
        let page = render(&Facts {
            greeting: "<b>\"hi\" & co</b>".to_owned(),
            app: Some("blog".to_owned()),
            release: None,
            host: "h1".to_owned(),
        });
        assert!(page.contains("<h1>&lt;b&gt;&quot;hi&quot; &amp; co&lt;/b&gt;</h1>"), "{page}");
        assert!(page.contains("<dt>App</dt><dd>blog</dd>"), "{page}");
        assert!(!page.contains("Release"), "{page}");
    }
}
