//! Paths: absolute ones inside a container, and those of files, judged by their text alone.

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

/// The plain form of a file's path: no `.` parts and doubled slashes, `..` only at the beginning of a
/// relative one. Empty stands for the folder everything starts from.
pub(crate) fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if path.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    let plain = parts.join("/");
    if path.starts_with('/') { format!("/{plain}") } else { plain }
}

/// `path` as seen from `folder`, both plain.
///
/// # Errors
/// It is none, or begins in a home folder, which is another one for everybody.
pub(crate) fn joined(folder: &str, path: &str) -> Result<String, &'static str> {
    if path.is_empty() {
        return Err("the path is empty");
    }
    if path.len() > PATH_BYTES_MAX {
        return Err("the path is longer than 4095 bytes");
    }
    if path.chars().any(char::is_control) || path.contains('\\') {
        return Err("the path has a backslash or a control character");
    }
    if path.starts_with('~') {
        return Err("`~` is another folder for everybody: write the path from the Compose file's folder");
    }
    if path.contains("://") || path.starts_with("git@") {
        return Err("it is an address, and only files of the app's folder are read");
    }
    Ok(if path.starts_with('/') || folder.is_empty() { plain(path) } else { plain(&format!("{folder}/{path}")) })
}

/// The folder a file lies in; empty for one that has none.
pub(crate) fn folder(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => "",
    }
}

/// Whether a plain path lies below a plain folder, by their texts.
pub(crate) fn is_below(path: &str, folder: &str) -> bool {
    relative(path, folder).is_some()
}

/// A plain path as seen from a plain folder that it lies below.
pub(crate) fn relative<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    let rest = match folder {
        "" if path.starts_with('/') => return None,
        "" => path,
        "/" => path.strip_prefix('/')?,
        folder => path.strip_prefix(folder)?.strip_prefix('/')?,
    };
    let leaves = rest.is_empty() || rest == ".." || rest.starts_with("../");
    (!leaves).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_files_are_judged_by_their_text() {
        for (folder, path, expected) in [
            ("", "./a//b", "a/b"),
            ("", "../x", "../x"),
            ("shop", "../x", "x"),
            ("shop", "../../x", "../x"),
            ("shop", "a/../../b/c", "b/c"),
            ("..", "../x", "../../x"),
            ("/srv/shop", "../x", "/srv/x"),
            ("/", "../../x", "/x"),
            ("shop", "/etc/passwd", "/etc/passwd"),
            ("", "/a/../../etc", "/etc"),
        ] {
            assert_eq!(joined(folder, path).as_deref(), Ok(expected), "{folder} {path}");
        }
        for path in ["", "~/x", "a\nb", "C:\\x", "https://example.org/x", "oci://example.org/x", "git@example.org:x"] {
            assert!(joined("", path).is_err(), "{path}");
        }
        for (path, folder) in [("a", ""), ("shop/a", "shop"), ("../a", ".."), ("/srv/a", "/srv"), ("/a", "/")] {
            assert!(is_below(path, folder), "{path} {folder}");
        }
        for (path, folder) in [
            ("../a", ""),
            ("/a", ""),
            ("", ""),
            ("shopping/a", "shop"),
            ("../../a", ".."),
            ("x", "shop"),
            ("/a", "/srv"),
        ] {
            assert!(!is_below(path, folder), "{path} {folder}");
        }
        assert_eq!((folder("a"), folder("a/b/c"), folder("/a")), ("", "a/b", "/"));
    }

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
