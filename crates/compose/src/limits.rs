//! Every bound of this room in one place. A file that breaks one is refused, and the message names
//! the bound.

/// Largest Compose file, in bytes. Far above any file a person writes; keeps parsing below a second.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Most files of one app that are read, and most readings of them: a file that is included twice counts
/// twice.
pub const BUNDLE_FILES_MAX: usize = 128;
/// Most bytes of all files of one app together, each as often as it is read.
pub const BUNDLE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often a caller is asked for more files: each round may find one more level of files that name files.
pub const BUNDLE_ROUNDS_MAX: usize = 16;
/// Deepest nesting of `include` in `include`.
pub const INCLUDE_DEPTH_MAX: usize = 8;
/// Longest chain of services that extend each other.
pub const EXTENDS_DEPTH_MAX: usize = 16;
/// Deepest nesting of lists and mappings, after aliases are put in.
pub const DEPTH_MAX: usize = 64;
/// Most lists, mappings and texts in one file, after aliases are put in.
pub const NODES_MAX: usize = 100_000;
/// Most bytes of text in one file, after aliases (in `.env`: variables) are put in.
pub const EXPANDED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest single text, in bytes, before and after variables are put in. Linux gives a program no
/// argument and no environment entry of more than 128 KiB (`MAX_ARG_STRLEN`).
pub const TEXT_BYTES_MAX: usize = 128 * 1024 - 1;
/// Most bytes of variables that are looked up while one app (or one `.env`) is read, each as often as it
/// stands somewhere. Far above what may be sealed; bounds the work, as the other limits do the memory.
pub const VARIABLE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Deepest nesting of `${A:-${B:-…}}`.
pub const INTERPOLATION_DEPTH_MAX: usize = 16;
/// Most problems reported at once; the rest is counted.
pub const PROBLEMS_MAX: usize = 50;
/// Most services, networks or volumes in one app, each.
pub const ENTRIES_MAX: usize = 200;
/// Most items in one list of a service. Some checks compare every item with every other.
pub const LIST_ITEMS_MAX: usize = 1000;
/// Most ports one range may expand to.
pub const PORT_RANGE_MAX: u16 = 256;
/// Most published ports of one service.
pub const PORTS_MAX: usize = 512;
/// Longest path, in bytes (Linux `PATH_MAX` without its end mark).
pub const PATH_BYTES_MAX: usize = 4095;
/// Longest image reference, in bytes.
pub const IMAGE_BYTES_MAX: usize = 512;
/// Longest label key, environment variable name or alias, in bytes.
pub const NAME_BYTES_MAX: usize = 253;
/// Longest span of time, in milliseconds: 30 days.
pub const DURATION_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;
/// Smallest memory limit the engine takes, in bytes.
pub const MEMORY_BYTES_MIN: u64 = 6 * 1024 * 1024;
/// Most thousandths of a core a limit may name: 1024 cores.
pub const CPUS_MILLI_MAX: u64 = 1024 * 1000;
/// Largest specification as JSON, in bytes. An order's parameters may take 256 KiB in all; this
/// leaves room for what stands beside the specification.
pub const SPEC_BYTES_MAX: usize = 224 * 1024;
/// Most bytes of sealed plaintext in one app.
pub const SECRETS_BYTES_MAX: usize = 1024 * 1024;
/// Longest excerpt of a file's own text in a message, in characters.
pub const EXCERPT_CHARS_MAX: usize = 80;
/// Most sealed texts of one app: what one order takes.
pub const SEALED_COUNT_MAX: usize = 512;
/// Longest name of a sealed text, in bytes.
pub const SEALED_NAME_BYTES_MAX: usize = 256;
