//! Image references, and the registry behind each: `nginx` is `docker.io/library/nginx:latest`.
//! The rule is Docker's own (the distribution project's reference grammar): the first component
//! names a registry only if it has a dot, a colon, or is `localhost`.

use core::{fmt, str::FromStr};

use crate::limits;

/// The registry that a reference without one means.
pub const DOCKER_HUB: &str = "docker.io";

/// A reference taken apart, with Docker's defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    /// Host, and port if any, such as `docker.io` or `registry.example:5000`.
    pub registry: String,
    /// Whether the text names the registry; a bare name may also be an image that is only local.
    pub registry_named: bool,
    /// Path within the registry, such as `library/nginx`.
    pub path: String,
    /// Tag, `latest` when there is neither tag nor digest.
    pub tag: Option<String>,
    /// `sha256:…` if pinned.
    pub digest: Option<String>,
}

impl ImageReference {
    /// Registry and path, without tag or digest.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// A text that is no image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an image reference ({reason}); write it like nginx:1.27 or ghcr.io/owner/name:tag")]
pub struct ImageReferenceError {
    text: String,
    reason: &'static str,
}

impl FromStr for ImageReference {
    type Err = ImageReferenceError;

    fn from_str(text: &str) -> Result<Self, ImageReferenceError> {
        parse(text).map_err(|reason| ImageReferenceError { text: text.chars().take(120).collect(), reason })
    }
}

fn parse(text: &str) -> Result<ImageReference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > limits::IMAGE_REFERENCE_CHARS_MAX {
        return Err("it is too long");
    }
    let (name_and_tag, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|digest| !is_sha256_id(digest)) {
        return Err("what follows @ must be sha256: and 64 hexadecimal digits");
    }
    let last_slash = name_and_tag.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match name_and_tag[last_slash..].find(':') {
        Some(colon) => (&name_and_tag[..last_slash + colon], Some(&name_and_tag[last_slash + colon + 1..])),
        None => (name_and_tag, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("the tag has characters a tag cannot have");
    }
    let (registry, registry_named, path) = registry_split(name);
    if !path.split('/').all(is_path_component) {
        return Err("names have lower-case letters, digits, and single . _ - between them");
    }
    let path = if registry == DOCKER_HUB && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
    Ok(ImageReference { registry, registry_named, path, tag, digest: digest.map(str::to_owned) })
}

fn registry_split(name: &str) -> (String, bool, &str) {
    match name.split_once('/') {
        Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => {
            let host = host.to_ascii_lowercase();
            let host = if host == "index.docker.io" { DOCKER_HUB.to_owned() } else { host };
            (host, true, rest)
        }
        _ => (DOCKER_HUB.to_owned(), false, name),
    }
}

fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    (1..=128).contains(&bytes.len())
        && (bytes[0].is_ascii_alphanumeric() || bytes[0] == b'_')
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_path_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !bytes.is_empty()
        && plain(bytes[0])
        && plain(bytes[bytes.len() - 1])
        && bytes.iter().all(|&b| plain(b) || matches!(b, b'_' | b'.' | b'-'))
}

/// Whether `text` is `sha256:` and 64 lower-case hexadecimal digits: the id of a local image, or a digest.
#[must_use]
pub fn is_sha256_id(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_dockers() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, full, named) in [
            ("nginx", "docker.io/library/nginx:latest", false),
            ("nginx:1.27", "docker.io/library/nginx:1.27", false),
            ("owner/app", "docker.io/owner/app:latest", false),
            ("docker.io/nginx", "docker.io/library/nginx:latest", true),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest", true),
            ("ghcr.io/owner/app:v1", "ghcr.io/owner/app:v1", true),
            ("localhost/app", "localhost/app:latest", true),
            ("registry.example:5000/a/b:1", "registry.example:5000/a/b:1", true),
            (&format!("nginx@{digest}"), &format!("docker.io/library/nginx@{digest}"), false),
            (&format!("nginx:1@{digest}"), &format!("docker.io/library/nginx:1@{digest}"), false),
        ] {
            let reference: ImageReference = text.parse().unwrap();
            assert_eq!((reference.to_string().as_str(), reference.registry_named), (full, named), "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in ["", "Nginx", "a//b", "/a", "a/", "a:", "a:b c", "a@sha256:12", "-a", "a;b", "a\0", "ä", "a b"] {
            assert!(text.parse::<ImageReference>().is_err(), "{text:?}");
        }
    }
}
