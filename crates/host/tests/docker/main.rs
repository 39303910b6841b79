//! Tests against the real Docker Engine of this machine. They need Docker, and nothing from a registry:
//! the image they use is built from the sample app. The quick run leaves this binary out by its name.

mod effects;
mod engine;
mod follow;
mod registry;
mod support;
mod version2;
