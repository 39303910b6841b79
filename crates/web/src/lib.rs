//! The people's side of the control plane: REST, server-sent events, pages.

pub mod credentials;
