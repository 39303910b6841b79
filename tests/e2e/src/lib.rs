//! End-to-end tests: the real programs, real TLS, the real Docker Engine.
