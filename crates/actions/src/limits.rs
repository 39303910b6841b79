//! Every bound of this room, in one place.

use ids::DurationMs;

/// Bytes of an order's parameters.
pub const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
/// Bytes of `policy.toml`.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;
/// Services in one app.
pub const SERVICES_MAX: usize = 64;
/// Networks in one app, and volumes in one app.
pub const NETWORKS_MAX: usize = 64;
/// Entries of one list of a service: files, links, extra hosts, kernel parameters and the like.
pub const SERVICE_LIST_MAX: usize = 256;
/// Bytes of a path of the host.
pub const PATH_BYTES_MAX: usize = 1024;
/// Characters of a kernel parameter's value, and of other short words.
pub const SYSCTL_VALUE_CHARS_MAX: usize = 256;
/// Characters of an annotation's key, and of its value.
pub const ANNOTATION_CHARS_MAX: usize = 4096;
/// Processes a service may ask for: as many as the kernel can number.
pub const PIDS_MAX: i64 = 4_194_304;
/// Characters of an image reference.
pub const IMAGE_REFERENCE_CHARS_MAX: usize = 512;
/// Releases kept per app, the current one among them; their images keep a tag of ours.
pub const RELEASES_KEPT: usize = 5;

/// Time a deploy waits for one service to become healthy, unless the order says otherwise.
pub const HEALTH_DEADLINE_DEFAULT: DurationMs = DurationMs::from_secs(120);
/// Least health deadline an order may ask for.
pub const HEALTH_DEADLINE_MIN: DurationMs = DurationMs::from_secs(1);
/// Greatest health deadline an order may ask for.
pub const HEALTH_DEADLINE_MAX: DurationMs = DurationMs::from_mins(20);
/// Time a service must stay healthy before the deploy believes it, unless the order says otherwise.
pub const MIN_HEALTHY_DEFAULT: DurationMs = DurationMs::from_secs(2);
/// Greatest time of that kind an order may ask for.
pub const MIN_HEALTHY_MAX: DurationMs = DurationMs::from_mins(10);
/// Between two looks at a container that is waited for.
pub const HEALTH_POLL: DurationMs = DurationMs(500);
/// First wait when Docker does not answer; doubles up to [`ENGINE_RETRY_MAX`].
pub const ENGINE_RETRY_FIRST: DurationMs = DurationMs::from_secs(1);
/// Longest wait between two attempts to reach Docker.
pub const ENGINE_RETRY_MAX: DurationMs = DurationMs::from_secs(30);
/// How long a change that has not touched anything yet waits for Docker.
pub const ENGINE_PATIENCE_SHORT: DurationMs = DurationMs::from_secs(60);
/// Attempts to reach Docker for one effect, whatever the clock says.
pub const ENGINE_ATTEMPTS_MAX: u32 = 10_000;
/// Looks at one container that is waited for, whatever the clock says.
pub const HEALTH_POLLS_MAX: u32 = 100_000;
/// Time a container may take to end before it is killed, when the app does not say.
pub const STOP_GRACE_DEFAULT: DurationMs = DurationMs::from_secs(10);
/// Greatest such time an app may ask for.
pub const STOP_GRACE_MAX: DurationMs = DurationMs::from_mins(10);

/// Time within which a deploy or removal ends by itself.
pub const CHANGE_TIMEOUT: DurationMs = DurationMs::from_mins(60);
/// How long going back keeps trying to reach Docker; nothing else limits it.
pub const BACK_PATIENCE: DurationMs = DurationMs::from_mins(60);
/// Time within which a plan ends by itself; it may pull images.
pub const PLAN_TIMEOUT: DurationMs = DurationMs::from_mins(30);
/// Time within which a plain read ends by itself.
pub const READ_TIMEOUT: DurationMs = DurationMs::from_secs(60);

/// Log lines of a failing container in a deploy's report.
pub const FAILURE_LOG_LINES: u32 = 30;
/// Bytes of those lines, per container; the last ones are kept.
pub const FAILURE_LOG_BYTES_MAX: usize = 16 * 1024;
/// Bytes of those lines of all containers together, shared evenly. They are part of a record.
pub const FAILURE_LOGS_BYTES_MAX: usize = 128 * 1024;
/// Log lines per service that `app.logs` returns unless told.
pub const LOGS_TAIL_DEFAULT: u32 = 100;
/// Greatest number of log lines per service.
pub const LOGS_TAIL_MAX: u32 = 2_000;
/// Bytes of all logs in one result; the last lines of each service are kept.
pub const LOGS_BYTES_MAX: usize = 192 * 1024;
/// Longest time logs are followed at a time.
pub const FOLLOW_TIME_MAX: DurationMs = DurationMs::from_mins(60);
/// Time within which following ends by itself: that, and what it takes to say so.
pub const FOLLOW_TIMEOUT: DurationMs = DurationMs::from_mins(62);
/// Greatest age of lines that following may begin with.
pub const FOLLOW_SINCE_MAX: DurationMs = DurationMs::from_days(7);
/// Between two looks at which containers there are to follow.
pub const FOLLOW_LOOK: DurationMs = DurationMs::from_secs(1);
/// How long nothing may run, and no change be under way, before following ends.
pub const FOLLOW_GONE_AFTER: DurationMs = DurationMs::from_secs(10);
/// Pause in reading after lines had to be left out.
pub const FOLLOW_SLOW_DOWN: DurationMs = DurationMs(50);
/// Without a renewal for so long, nobody watches a stream any more.
pub const STREAM_LEASE: DurationMs = DurationMs::from_secs(15);
/// Streams running on one host at a time.
pub const STREAMS_MAX: usize = 8;
/// Containers in the result of `docker.containers`.
pub const CONTAINERS_MAX: usize = 500;
/// Bytes of a record. A larger one is not written, and one that is read back is damaged.
pub const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Characters a value must have to be masked: shorter ones (`1`, `yes`, `dev`) would blot out
/// ordinary text without hiding anything.
pub const MASK_CHARS_MIN: usize = 4;
/// From so many characters on a value is hidden wherever it occurs; shorter ones only where they
/// stand by themselves, so that digests and names stay readable.
pub const MASK_ANYWHERE_CHARS_MIN: usize = 8;
