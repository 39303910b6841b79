//! Absolute paths inside a container.

use crate::limits::PATH_BYTES_MAX;

/// Checks a path and gives its plain form: no `.` parts, no doubled or closing slashes.
///
/// # Errors
/// The path is not absolute, has a `..` part, a control character, or is too long.
pub(crate) fn absolute(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') {
        return Err("a path inside the container is absolute: it begins with /");
    }
    if text.len() > PATH_BYTES_MAX {
        return Err("the path is longer than 4095 bytes");
    }
    if text.chars().any(char::is_control) {
        return Err("the path has a control character");
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err("the path has a `..` part");
    }
    Ok(format!("/{}", parts.join("/")))
}

/// As [`absolute`], and not the root itself: nothing can be mounted over the whole file system.
pub(crate) fn mount_target(text: &str) -> Result<String, &'static str> {
    match absolute(text)?.as_str() {
        "/" => Err("nothing can be mounted over / itself"),
        path => Ok(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_plain() {
        for (text, expected) in [("/a//b/./c/", "/a/b/c"), ("/", "/"), ("/var/lib/x", "/var/lib/x")] {
            assert_eq!(absolute(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "a", "./a", "../a", "/a/../b", "/..", "/a\nb", "/a\0", "C:\\x", &"/a".repeat(PATH_BYTES_MAX)] {
            assert!(absolute(text).is_err(), "{text}");
        }
        assert!(mount_target("/.").is_err());
        assert_eq!(mount_target("/data/").as_deref(), Ok("/data"));
    }
}
