//! The form of an image reference (`[registry[:port]/]path[:tag][@digest]`, as the distribution
//! project's grammar has it). What it resolves to is decided on the host.

use crate::limits::IMAGE_BYTES_MAX;

/// Checks a reference.
///
/// # Errors
/// With a reason when it is none.
pub(crate) fn check(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("the image reference is empty");
    }
    if text.len() > IMAGE_BYTES_MAX {
        return Err("an image reference has at most 512 bytes");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err("after the @ stands sha256: and 64 hexadecimal digits");
    }
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("a tag has 1 to 128 letters, digits, underscores, dots and hyphens");
    }
    let path = match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
            if !is_registry(first) {
                return Err("the part before the first slash is not a registry (host or host:port)");
            }
            path
        }
        _ => name,
    };
    if path.split('/').all(is_component) {
        Ok(text.to_owned())
    } else if path.bytes().any(|b| b.is_ascii_uppercase()) {
        Err("an image name is lower case")
    } else {
        Err("an image is written [registry/]name[:tag][@sha256:digest]")
    }
}

/// Checks a platform: `os/architecture[/variant]`.
///
/// # Errors
/// With a reason when it is none.
pub(crate) fn platform(text: &str) -> Result<String, &'static str> {
    let part = |part: &str| {
        (1..=32).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.'))
    };
    let parts: Vec<&str> = text.split('/').collect();
    if (2..=3).contains(&parts.len()) && parts.into_iter().all(part) {
        Ok(text.to_owned())
    } else {
        Err("a platform is written os/architecture, such as linux/amd64 or linux/arm/v7")
    }
}

fn is_digest(digest: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
    digest.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && digits.bytes().all(hex))
}

fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    (1..=128).contains(&bytes.len())
        && (bytes[0].is_ascii_alphanumeric() || bytes[0] == b'_')
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        && !host.is_empty()
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

/// Lower-case letters and digits, joined by one dot, one or two underscores, or hyphens.
fn is_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|run| !run.is_empty());
    alphanumeric(first)
        && alphanumeric(last)
        && separators.into_iter().all(|run| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        for good in ["linux/amd64", "linux/arm/v7", "linux/arm64/v8"] {
            assert!(platform(good).is_ok(), "{good}");
        }
        for bad in ["", "linux", "linux/", "Linux/amd64", "a/b/c/d", "linux/amd 64"] {
            assert!(platform(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn references() {
        let digest = format!("postgres@sha256:{}", "0a".repeat(32));
        for good in [
            "nginx",
            "nginx:1.27",
            "docker.io/library/nginx:1.27-alpine",
            "localhost/app",
            "registry.example:5000/team/app_name:v1",
            "serverflow-sample:1",
            "a--b/c__d.e",
            &digest,
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "Nginx",
            "nginx:",
            "nginx latest",
            "nginx:a b",
            "-x",
            "a/../b",
            "/a",
            "a/",
            "a@sha256:12",
            "a@md5:x",
            "ex..ample.org/a",
            "a:b:c",
            "a\n",
            "host:99999/a",
            "ä",
            &"a".repeat(IMAGE_BYTES_MAX + 1),
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
