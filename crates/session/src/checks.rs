//! How checks say which of them failed, the same way everywhere in this room.

/// An error with its causes, in one line.
pub(crate) fn words(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The first of several checks that does not hold.
pub(crate) fn first_failed(checks: &[(bool, &'static str)]) -> Option<&'static str> {
    checks.iter().find(|(holds, _)| !holds).map(|(_, what)| *what)
}
